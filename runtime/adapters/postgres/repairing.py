"""Repair and retention: what looks at everything that runs, or walks through all that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import orphan_of, uuid_of, uuids_of

if TYPE_CHECKING:
    from runtime.adapters.postgres.connections import Connections
    from runtime.core.task import Orphan

_FIRST_ID: Final = UUID(int=0)
_ID_MS_SHIFT: Final = 80  # a UUIDv7 begins with the milliseconds of its creation
_LOOK_AT: Final = 5_000  # outcomes per statement of retention
_STATEMENTS_MAX: Final = 100  # per call
_CLOCKS_APART_MS: Final = 300_000  # ids are dated by nodes' clocks; one may be ahead by this much


class Repairing:
    _connections: Connections
    _forgotten_to: UUID = (
        _FIRST_ID  # retention goes on from here, and begins anew when it has met young tasks
    )

    async def orphans(self, limit: int) -> list[Orphan]:
        return [orphan_of(row) for row in await self._connections.sweep.fetch(SQL.orphans, max(limit, 0))]

    async def held(self, incarnation: int) -> list[Orphan]:
        return [orphan_of(row) for row in await self._connections.sweep.fetch(SQL.held, incarnation)]

    async def cancel_requests(self, incarnation: int) -> list[tuple[UUID, int]]:
        rows = await self._connections.sweep.fetch(SQL.cancel_requests, incarnation)
        return [(uuid_of(row[0]), row[1]) for row in rows]

    async def expire(self, limit: int) -> list[UUID]:
        return uuids_of(await self._connections.sweep.fetch(SQL.expire, max(limit, 0)))

    async def forget(self, *, finished_before_s: float, keys_before_s: float, limit: int) -> int:
        """Goes on from where the last call ended until `limit` went, all was seen, or it took long enough."""
        gone = 0
        begun_anew = self._forgotten_to == _FIRST_ID
        for _ in range(_STATEMENTS_MAX):
            if gone >= limit:
                break
            more, at_end = await self._forget_some(finished_before_s, keys_before_s, limit - gone)
            gone += more
            if at_end:
                if begun_anew or gone:
                    break
                begun_anew = True
        return gone

    async def _forget_some(
        self, finished_before_s: float, keys_before_s: float, limit: int
    ) -> tuple[int, bool]:
        """How many went, and whether only young tasks follow."""
        values = (self._forgotten_to, _LOOK_AT, finished_before_s, keys_before_s, limit)
        async with self._connections.forget.session() as session, session.transaction():
            picked, last, looked_at, cutoff_ms = await session.only(SQL.forgettable, *values)
            gone: int = await session.value(SQL.forget, picked) if picked else 0
        at_end = looked_at < _LOOK_AT or last.int >> _ID_MS_SHIFT > cutoff_ms + _CLOCKS_APART_MS
        if len(picked) >= limit:  # there may be more of them before `last`
            self._forgotten_to = uuid_of(picked[-1])
            return gone, False
        self._forgotten_to = _FIRST_ID if at_end else uuid_of(last)
        return gone, at_end
