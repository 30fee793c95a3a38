"""Reload on save: a node is drained and started anew when what it would load has changed, and loads.

What does not load is told, and the nodes go on with the code they have. For nodes of `noria dev` that is the
handlers and what they import; for `noria node --reload` it may be Noria's own packages, too.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from node.dev.check import check
from node.dev.screen import announced, complain, say
from node.dev.source import Look, as_of, contents, look, look_around, own_files, wakes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from node.dev.importing import Checked
    from node.dev.runner import NodeRunner

_CHECKS: Final = 3


class Reloader:
    """`own`: whether a change of Noria's own source counts as well (installed packages never do)."""

    def __init__(self, handlers: Sequence[str], environment: Mapping[str, str], *, own: bool = False) -> None:
        self._handlers = handlers
        self._environment = environment
        self._own = own
        self._seen: Look = {}  # what the last check saw

    async def check(self, known: tuple[str, ...] = ()) -> Checked:
        """Check what stands in the files now; again where one was written meanwhile, but not for ever (some
        code writes Python files when it is imported). After a mistake, all `known` files count as well."""
        for _ in range(_CHECKS):
            began_ns = time.time_ns()
            checked = await check(self._handlers, self._environment, whole=self._own)
            if checked.error:
                checked = replace(checked, files=tuple(sorted({*known, *checked.files})))
            self._seen = self._look(checked.files)
            if as_of(self._seen, began_ns) == self._seen:
                break
        return checked

    async def loadable(self, checked: Checked, *, wait: bool = True) -> Checked | None:
        """`checked`, or what the first change that repairs it makes of it; None where none can or shall."""
        while checked.error:
            complain(checked.error)
            if not wait or not self._watched(checked.files):
                return None
            say("waiting for you to save a change ...")
            checked = await self._changed(checked)
        return checked

    def loaded(self, checked: Checked) -> dict[str, bytes]:
        """What a node that starts now has of it."""
        return contents(self._watched(checked.files))

    async def run(self, checked: Checked, loaded: dict[str, bytes], runners: Sequence[NodeRunner]) -> int:
        """Restart the nodes, one after the other, whenever what they would load has changed and loads."""
        while self._watched(checked.files):
            repaired = checked.error
            checked = await self._changed(checked)
            if checked.error:
                complain(f"{checked.error}\nnot reloaded: the node goes on with the code it has")
                continue
            now = self.loaded(checked)
            if now == loaded:
                if repaired:
                    say("repaired: the node has this code already")
                continue
            loaded = now
            started_s = asyncio.get_running_loop().time()
            async with announced("reloading: the node finishes what it runs"):
                answers = [await runner.restart() for runner in runners]
            if all(answers):
                took_s = asyncio.get_running_loop().time() - started_s
                names = ", ".join(handler.name for handler in checked.handlers)
                say(f"reloaded in {took_s:.1f} s: {names or 'no handlers'}")
        await asyncio.Event().wait()  # nothing to watch: for ever
        return 0

    async def _changed(self, checked: Checked) -> Checked:
        """Wait for a change around these files and check again."""
        if self._look(checked.files) == self._seen:
            async for _ in wakes(self._watched(checked.files)):
                if self._look(checked.files) != self._seen:
                    break
        return await self.check(checked.files)

    def _watched(self, files: tuple[str, ...]) -> tuple[str, ...]:
        return (*files, *own_files()) if self._own else files

    def _look(self, files: tuple[str, ...]) -> Look:
        return look_around(files) | look(own_files() if self._own else ())
