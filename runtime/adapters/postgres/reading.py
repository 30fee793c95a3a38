"""Reading the record: views, pages, counts. Nothing here takes a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import attempt_of, uuid_of, view_of
from runtime.adapters.postgres.scanning import Bands, Stretch, Way, matches, merge, ways, ways_within
from runtime.core.task import BandCount, Census, Page

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

    import asyncpg

    from runtime.adapters.postgres.connections import Connections, Session
    from runtime.core.task import AttemptView, State, TaskFilter, TaskView

LOOKED_AT_MAX: Final = 20_000  # rows per page of a list
_LOOK_FIRST: Final = 100  # rows per statement, growing
_LOOK_MAX: Final = 5_000
_LOOK_INEXACT_MAX: Final = 500  # where every row has to be viewed
_EXACT_UP_TO: Final = 200_000
_LAST_ID: Final = UUID(int=2**128 - 1)


class Reading:
    _connections: Connections

    async def get(self, task_id: UUID) -> TaskView | None:
        views = await self.get_many([task_id])
        return views[0] if views else None

    async def get_many(self, ids: Sequence[UUID]) -> builtins.list[TaskView]:
        return await self._views(ids)

    async def finished(self, ids: Sequence[UUID]) -> builtins.list[TaskView]:
        return await self._views(ids, final_only=True)

    async def attempts(self, task_id: UUID) -> builtins.list[AttemptView]:
        return [attempt_of(row) for row in await self._connections.read.fetch(SQL.attempts, task_id)]

    async def list(self, which: TaskFilter, limit: int, before: UUID | None = None) -> Page:
        async with self._connections.read.session() as session:
            going = ways(which, await _bands(session, which))
            cursor: UUID | None = before or _LAST_ID
            found: list[TaskView] = []
            looked_at, look = 0, max(_LOOK_FIRST, limit + 1)
            while going and cursor is not None and looked_at < LOOKED_AT_MAX:
                ids, cursor, looked = await _walk(session, going, cursor, look)
                found += await _matching(session, ids, which, limit + 1 - len(found))
                looked_at, look = looked_at + looked, look * 4
                if len(found) > limit:
                    return Page(tuple(found[:limit]), found[limit - 1].id if limit else before)
        return Page(tuple(found), cursor if going else None)

    async def census(self) -> Census:
        async with self._connections.sweep.session() as session:
            waiting = {row["band"]: row for row in await session.fetch(SQL.census_waiting)}
            running = {row["band"]: row["running"] for row in await session.fetch(SQL.census_running)}
            unsuccessful = {
                row["status"]: row["count"] for row in await session.fetch(SQL.census_unsuccessful)
            }
            succeeded, estimated = await _succeeded(session, sum(unsuccessful.values()))
        return Census(
            bands=tuple(
                _count(band, waiting.get(band), running.get(band, 0)) for band in sorted({*waiting, *running})
            ),
            succeeded=succeeded,
            failed=unsuccessful.get(1, 0),
            cancelled=unsuccessful.get(2, 0),
            succeeded_is_estimate=estimated,
        )

    async def results_in_use(self, attempts: Sequence[tuple[UUID, int]]) -> builtins.list[tuple[UUID, int]]:
        values = [task_id for task_id, _ in attempts], [attempt for _, attempt in attempts]
        rows = await self._connections.read.fetch(SQL.results_in_use, *values, rows=len(attempts))
        return [(uuid_of(row[0]), row[1]) for row in rows]

    async def _views(self, ids: Sequence[UUID], *, final_only: bool = False) -> builtins.list[TaskView]:
        unique = sorted(set(ids))
        if not unique:
            return []
        rows = await self._connections.read.fetch(SQL.views, unique, True, final_only, rows=len(unique))
        return [view_of(row) for row in rows]

    async def _find(self, states: frozenset[State], which: TaskFilter, limit: int) -> builtins.list[UUID]:
        """At most `limit` tasks in one of `states` that match, however many have to be looked at."""
        found: list[UUID] = []
        cursor: UUID | None = _LAST_ID
        look = _LOOK_FIRST
        while cursor is not None and len(found) < limit:
            async with self._connections.read.session() as session:  # each time anew: readers get their turn
                going = ways_within(which, await _bands(session, which), states)
                if not going:
                    break
                ids, cursor, _ = await _walk(session, going, cursor, look)
                if not all(way.exact for way in going):
                    ids = [view.id for view in await _matching(session, ids, which, len(ids), states)]
            found += ids
            look *= 4
        return found[: max(limit, 0)]


async def _walk(
    session: Session, going: Sequence[Way], before: UUID, look: int
) -> tuple[list[UUID], UUID | None, int]:
    """Ids that match, new to old; where to go on, or None; how many rows were looked at."""
    look = min(look, _LOOK_MAX if all(way.exact for way in going) else _LOOK_INEXACT_MAX)
    stretches, looked_at = [], 0
    for way in going:
        rows = await session.fetch(way.query, before, look, *way.values)
        ids = [uuid_of(row["id"]) for row in rows if row["matches"]]
        looked = rows[0]["looked_at"] if rows else 0
        stretches.append(Stretch(ids, uuid_of(rows[-1]["id"]) if rows else None, looked < look))
        looked_at += looked
    return *merge(stretches), looked_at


async def _matching(
    session: Session,
    ids: Sequence[UUID],
    which: TaskFilter,
    limit: int,
    states: frozenset[State] | None = None,
) -> list[TaskView]:
    """Views of those that still match, new to old; no more than `limit` are needed."""
    found: list[TaskView] = []
    for start in range(0, len(ids), max(limit, 1)):
        some = list(ids[start : start + limit])
        rows = await session.fetch(SQL.views, some, False, False)
        views = sorted(map(view_of, rows), key=lambda view: view.id, reverse=True)
        found += [view for view in views if matches(view, which, states)]
        if len(found) >= limit:
            break
    return found


async def _bands(session: Session, which: TaskFilter) -> Bands:
    rows = await session.fetch(SQL.bands_of, which.handler, which.tenant, which.not_lane)
    chosen = (which.handler, which.tenant, which.not_lane) != (None, None, None)
    return Bands([row["id"] for row in rows] if chosen else None, sorted({row["tenant"] for row in rows}))


async def _succeeded(session: Session, unsuccessful: int) -> tuple[int, bool]:
    """How many, and whether that is an estimate."""
    estimate: int = await session.value(SQL.census_outcomes)
    if estimate - unsuccessful < 2 * _EXACT_UP_TO:  # it may also be that PostgreSQL does not know yet
        exact: int = await session.value(SQL.census_succeeded, _EXACT_UP_TO)
        if exact <= _EXACT_UP_TO:
            return exact, False
        estimate = max(estimate, exact + unsuccessful)
    return estimate - unsuccessful, True


def _count(band: int, waiting: asyncpg.Record | None, running: int) -> BandCount:
    if waiting is None:
        return BandCount(band, 0, 0, running, 0.0)
    return BandCount(
        band, waiting["ready"], waiting["scheduled"], running, waiting["oldest_due_s"], waiting["blocked"]
    )
