"""`noria drain --wait`: follow a node until it has left."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from node.cli import render
from node.cli.context import with_client
from node.cli.exits import Code
from node.client import Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from node.client import Client

POLL_S: Final = 0.3
_LIVING: Final = frozenset({"joining", "active", "unreachable", "draining"})

Row = dict[str, Any]


def drain_and_wait(node: str, timeout_s: float | None, *, as_json: bool) -> Code:
    """Ask it, then show each change until no incarnation that was asked lives. Raises NotFound, Unreachable."""
    code, rows = with_client(lambda client: _Leaving(client, node, timeout_s).follow())
    if as_json:
        render.print_json({"nodes": rows})
    return code


class _Leaving:
    def __init__(self, client: Client, node: str, timeout_s: float | None) -> None:
        self._client = client
        self._node = node
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._told = ""
        self._rows: list[Row] = []

    async def follow(self) -> tuple[Code, list[Row]]:
        answers_itself = (await self._client.stats()).get("node") == self._node
        asked = {row["incarnation"] for row in await self._look() if row["state"] in _LIVING}
        await self._client.drain(self._node)
        while True:
            try:
                self._rows = [row for row in await self._look() if row["incarnation"] in asked]
            except Unreachable:
                if not answers_itself:
                    raise
                render.note(f"{self._node} answers no more: it has left")
                return Code.DONE, self._rows
            living = [row for row in self._rows if row["state"] in _LIVING]
            if not living:
                return self._end(), self._rows
            self._tell(living)
            if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
                render.note(f"{self._node} has not left yet; it goes on: noria drain {self._node} --wait")
                return Code.TIMED_OUT, self._rows
            await asyncio.sleep(POLL_S)

    async def _look(self) -> list[Row]:
        nodes: Sequence[Mapping[str, Any]] = (await self._client.cluster())["nodes"]
        return [dict(row) for row in nodes if row["name"] == self._node]

    def _tell(self, living: Sequence[Row]) -> None:
        """One line for each change."""
        for row in living:
            state = "asked to drain" if row["state"] == "active" else row["state"]
            running = row.get("running")
            in_hand = "" if running is None else f", {running:,} in hand"
            line = f"{self._node} (incarnation {row['incarnation']}): {state}{in_hand}"
            if line != self._told:
                self._told = line
                render.note(line)

    def _end(self) -> Code:
        if any(row["state"] == "dead" for row in self._rows):
            render.note(f"{self._node} died before it had left; what it ran is repeated elsewhere")
            return Code.REFUSED
        render.note(f"{self._node} has left")
        return Code.DONE
