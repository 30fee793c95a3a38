"""The port Coordinator on PostgreSQL: the view is one row, and proposing one updates it if its number is one less.

Law: a proposal is repeated only together with a look at what the log says under its number; so an answer that was
lost on the way does not turn a proposal that was accepted into one that was not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import orjson

from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.translate import repeated
from runtime.core.view import NO_VIEW, VIEWS_KEPT, View, view_from_json, view_to_json

if TYPE_CHECKING:
    from runtime.adapters.postgres.connections import Line

POLL_S: Final = 0.5


class PostgresCoordinator:
    """Implements runtime.ports.Coordinator over connections of the record."""

    def __init__(self, line: Line, *, kept: int = VIEWS_KEPT) -> None:
        self._line = line
        self._kept = kept

    async def view(self) -> View:
        rows = await self._line.fetch(SQL.present_view)
        return _view_of(rows[0]["view"]) if rows else NO_VIEW

    async def propose(self, view: View) -> bool:
        """As the port says; the same proposal again, also after Unavailable, is accepted again."""
        text = orjson.dumps(view_to_json(view)).decode()

        async def once() -> bool:
            async with self._line.session() as session:
                if await session.row(SQL.propose_view, view.number, text, self._kept) is not None:
                    return True
                logged = await session.row(SQL.logged_view, view.number)
                return logged is not None and _view_of(logged["view"]) == view

        async with self._line.deadline():
            return await repeated(once)

    async def newer(self, number: int, timeout_s: float) -> View | None:
        """Looks every POLL_S."""
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + timeout_s
        while True:
            rows = await self._line.fetch(SQL.newer_view, number)
            if rows:
                return _view_of(rows[0]["view"])
            rest_s = end_s - now_s()
            if rest_s <= 0:
                return None
            await asyncio.sleep(min(rest_s, POLL_S))

    async def history(self, limit: int) -> list[View]:
        return [_view_of(row["view"]) for row in await self._line.fetch(SQL.view_history, limit)]


def _view_of(text: str) -> View:
    return view_from_json(orjson.loads(text))
