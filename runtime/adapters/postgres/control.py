"""What people and retention do to tasks: cancel, replay, purge, forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from runtime.adapters.postgres.connections import Connections, Line
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.reading import filter_values, view_of
from runtime.adapters.postgres.translate import TryAgain
from runtime.core.ids import uuid7_floor
from runtime.core.task import State, Status, TaskFilter, TaskView
from runtime.errors import TaskNotFound, Unavailable, WrongState

_TRIES: Final = 20  # a row that moves each time we look would have to be retried by somebody else each time
_FIRST_ID: Final = UUID(int=0)
_CLOCKS_APART_S: Final = 3600.0  # ids are dated by nodes' clocks; retention allows for one that is ahead


class Control:
    _connections: Connections

    async def cancel(self, task_id: UUID) -> TaskView:
        for _ in range(_TRIES):
            moved = await self._change(SQL.cancel_waiting, [task_id]) or await self._change(
                SQL.cancel_running, [task_id]
            )
            view = await self._view(task_id)
            if moved or view.state.final:
                return view
        raise Unavailable(f"task {task_id} moved each time it was looked at")

    async def cancel_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        ids = await self._matching(SQL.unfinished, which, limit)
        if dry_run:
            return len(ids), 0
        waiting = await self._change(SQL.cancel_waiting, ids, slow=True)
        running = await self._change(SQL.cancel_running, [i for i in ids if i not in waiting], slow=True)
        return len(ids), len(waiting) + len(running)

    async def replay(self, task_id: UUID) -> TaskView:
        replayed = await self._change(SQL.replay, [task_id])
        view = await self._view(task_id)
        if not replayed:
            raise WrongState(
                f"task {task_id} is {view.state}; only failed and cancelled tasks can be replayed", view.state
            )
        return view

    async def replay_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        ids = await self._dead_letters(which, limit)
        return len(ids), 0 if dry_run else len(await self._change(SQL.replay, ids, slow=True))

    async def purge_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        ids = await self._dead_letters(which, limit)
        return len(ids), 0 if dry_run else len(await self._change(SQL.delete_ended, ids, slow=True))

    async def forget(self, *, finished_before_s: float, keys_before_s: float, limit: int) -> int:
        """Walks up from the oldest ids until `limit` are found that may go, or all that are old enough were seen."""
        going: list[UUID] = []
        after = _FIRST_ID
        async with self._connections.slow.connection() as connection:
            upto = await _created_before(connection, finished_before_s - _CLOCKS_APART_S)
            while len(going) < limit:
                rows = await connection.fetch(
                    SQL.forgettable, finished_before_s, keys_before_s, max(limit, 1), after, upto
                )
                going += [row["id"] for row in rows if row["goes"]]
                if len(rows) < limit:
                    break
                after = rows[-1]["id"]
        return len(await self._change(SQL.delete_ended, going[:limit], slow=True))

    # -- steps ---------------------------------------------------------------------------------------

    async def _change(self, statement: str, ids: Sequence[UUID], *, slow: bool = False) -> set[UUID]:
        """Ids in order, so that two changes never wait for each other crosswise; repeated after a deadlock."""
        if not ids:
            return set()
        line: Line = self._connections.slow if slow else self._connections.settle
        for attempt in range(_TRIES):
            try:
                async with line.connection() as connection:
                    return {row["id"] for row in await connection.fetch(statement, sorted(ids))}
            except TryAgain:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def _view(self, task_id: UUID) -> TaskView:
        async with self._connections.read.connection() as connection:
            row = await connection.fetchrow(SQL.views, [task_id])
        if row is None:
            raise TaskNotFound(f"no task {task_id}")
        return view_of(row)

    async def _matching(self, statement: str, which: TaskFilter, limit: int) -> list[UUID]:
        async with self._connections.slow.connection() as connection:
            return [
                row["id"] for row in await connection.fetch(statement, *filter_values(which), max(limit, 0))
            ]

    async def _dead_letters(self, which: TaskFilter, limit: int) -> list[UUID]:
        statuses = [Status.FAILED, Status.CANCELLED] if State.CANCELLED in which.states else [Status.FAILED]
        async with self._connections.slow.connection() as connection:
            rows = await connection.fetch(
                SQL.dead_letters, *filter_values(which), max(limit, 0), [int(status) for status in statuses]
            )
        return [row["id"] for row in rows]


async def _created_before(connection: asyncpg.Connection[asyncpg.Record], seconds_ago: float) -> UUID:
    """The smallest id that is younger, by the record's clock."""
    now = await connection.fetchval(SQL.now)
    return uuid7_floor(max(0, int((now.timestamp() - seconds_ago) * 1000)))
