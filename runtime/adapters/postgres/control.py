"""What people do to tasks: cancel, replay, purge; one by one, and by filter.

Law: a row may move while it is looked for, so whoever does not find it where it was looks again. Ids are
sorted, so that two changes never wait for each other crosswise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runtime.adapters.postgres.linking import link_again
from runtime.adapters.postgres.members import intern
from runtime.adapters.postgres.queries import SQL, Query
from runtime.adapters.postgres.reading import Reading
from runtime.adapters.postgres.rows import uuid_of, uuids_of
from runtime.adapters.postgres.scanning import dead_letters, unfinished, unstarted
from runtime.adapters.postgres.translate import repeated
from runtime.core.task import BandKey, Lane, State, Status, TaskFilter, TaskView
from runtime.errors import TaskNotFound, Unavailable, WrongState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

_LOOKS: Final = 20  # a row that has moved each time would have been moved by somebody else each time
_CHUNK: Final = 500  # rows per statement
_STARTED: Final = frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED})
_ENDED_UNWELL: Final = (int(Status.FAILED), int(Status.CANCELLED))


class Control(Reading):
    async def cancel(self, task_id: UUID) -> TaskView:
        for _ in range(_LOOKS):
            met = await self._change(SQL.cancel_waiting, [task_id]) or await self._ask_to_cancel([task_id])
            view = await self._existing(task_id)
            if met or view.state.final:
                return view
        raise Unavailable(f"task {task_id} moved each time it was looked for")

    async def prioritize(self, task_id: UUID, lane: Lane) -> TaskView:
        for _ in range(_LOOKS):
            moved = await self._prioritize([task_id], lane)
            view = await self._existing(task_id)
            if moved or (view.state not in _STARTED and view.lane is lane):
                return view
            if view.state in _STARTED:
                raise WrongState(
                    f"task {task_id} is {view.state}; only waiting tasks can be given another priority",
                    view.state,
                )
        raise Unavailable(f"task {task_id} moved each time it was looked for")

    async def prioritize_matching(
        self, which: TaskFilter, limit: int, *, lane: Lane, dry_run: bool = False
    ) -> tuple[int, int]:
        which = replace(which, not_lane=lane)
        ids = sorted(await self._find(unstarted(which), which, limit))
        if dry_run:
            return len(ids), 0
        return len(ids), sum([len(await self._prioritize(some, lane)) for some in _chunks(ids)])

    async def replay(self, task_id: UUID) -> TaskView:
        replayed = await self._replay([task_id], _ENDED_UNWELL)
        view = await self._existing(task_id)
        if not replayed:
            raise WrongState(
                f"task {task_id} is {view.state}; only failed and cancelled tasks can be replayed", view.state
            )
        return view

    async def cancel_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        ids = sorted(await self._find(unfinished(which), which, limit))
        # the newest first: children end before their parents, whose ends they would hear of
        return len(ids), 0 if dry_run else sum([await self._cancel_some(some) for some in _chunks(ids)[::-1]])

    async def replay_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        return await self._change_dead_letters(self._replay, which, limit, dry_run=dry_run)

    async def purge_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        return await self._change_dead_letters(self._purge, which, limit, dry_run=dry_run)

    # -- steps ---------------------------------------------------------------------------------------

    async def _change_dead_letters(
        self,
        change: Callable[[Sequence[UUID], Sequence[int]], Awaitable[Sequence[UUID]]],
        which: TaskFilter,
        limit: int,
        *,
        dry_run: bool,
    ) -> tuple[int, int]:
        statuses = _ENDED_UNWELL if State.CANCELLED in which.states else (int(Status.FAILED),)
        ids = sorted(await self._find(dead_letters(which), which, limit))
        if dry_run:
            return len(ids), 0
        return len(ids), sum([len(await change(some, statuses)) for some in _chunks(ids)])

    async def _purge(self, ids: Sequence[UUID], statuses: Sequence[int]) -> list[UUID]:
        return await self._change(SQL.purge, ids, list(statuses))

    async def _replay(self, ids: Sequence[UUID], statuses: Sequence[int]) -> list[UUID]:
        """Those that were met; what depends on others is blocked until they have ended."""

        async def once() -> list[UUID]:
            async with self._connections.read.session(len(ids)) as session, session.transaction():
                rows = await session.fetch(SQL.replay, list(ids), list(statuses))
                waiting_for = {row["id"]: row["parents"] for row in rows if row["parents"] is not None}
                if waiting_for:
                    await link_again(session, waiting_for)
            return uuids_of(rows)

        return await repeated(once) if ids else []

    async def _cancel_some(self, ids: Sequence[UUID]) -> int:
        """How many were changed. What was claimed or handed back between two looks is looked for again."""
        changed = 0
        left = list(ids)
        for _ in range(_LOOKS):
            gone = set(await self._change(SQL.cancel_waiting, left))
            asked = await self._ask_to_cancel([task_id for task_id in left if task_id not in gone])
            changed += len(gone) + sum(asked.values())
            left = [task_id for task_id in left if task_id not in gone and task_id not in asked]
            if left:
                ended = {view.id for view in await self.finished(left)}
                left = [task_id for task_id in left if task_id not in ended]
            if not left:
                break
        return changed

    async def _prioritize(self, ids: Sequence[UUID], lane: Lane) -> list[UUID]:
        """Ids that were moved to this lane."""
        rows = await self._connections.read.fetch(SQL.waiting_bands, list(ids), lane, rows=len(ids))
        if not rows:
            return []
        await intern(
            self._connections, [BandKey(row[0], lane, row[1], tuple(row[2]), row[3]) for row in rows]
        )
        return await self._change(SQL.prioritize, ids, lane)

    async def _change(self, statement: Query, ids: Sequence[UUID], *values: object) -> list[UUID]:
        """Ids that were met."""
        if not ids:
            return []
        return uuids_of(await self._connections.read.fetch(statement, list(ids), *values, rows=len(ids)))

    async def _ask_to_cancel(self, ids: Sequence[UUID]) -> dict[UUID, bool]:
        """Those that run, and whether this is the first request."""
        if not ids:
            return {}
        rows = await self._connections.read.fetch(SQL.cancel_running, list(ids), rows=len(ids))
        return {uuid_of(row[0]): row[1] for row in rows}

    async def _existing(self, task_id: UUID) -> TaskView:
        view = await self.get(task_id)
        if view is None:
            raise TaskNotFound(f"no task {task_id}")
        return view


def _chunks(ids: Sequence[UUID]) -> list[Sequence[UUID]]:
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
