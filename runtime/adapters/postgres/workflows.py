"""Passing on the ends of parents, and reading workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import error_of, json_of_error, uuid_of, uuids_of
from runtime.adapters.postgres.translate import repeated
from runtime.core.task import Codec, OnParentFailure, State, Status
from runtime.core.workflow import (
    Fate,
    Freed,
    ParentEnd,
    ParentView,
    PassedOn,
    WorkflowTask,
    WorkflowView,
    fate,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import asyncpg

    from runtime.adapters.postgres.connections import Connections, Session

_ENDS_MAX: Final = 500
_TIDIED: Final = 2_000  # per statement
_STATEMENTS_MAX: Final = 50  # per call
_FIRST: Final = (UUID(int=0), UUID(int=0))
_STATES: Final = (
    State.SUCCEEDED, State.FAILED, State.CANCELLED, State.RUNNING, State.BLOCKED, State.SCHEDULED, State.READY,
)  # fmt: skip


class Workflows:
    _connections: Connections
    _tidied_to: tuple[UUID, UUID] = _FIRST

    async def pass_on(self, limit: int) -> PassedOn:
        """Raises Unavailable, Overloaded; whom a lost answer freed, a pull finds."""
        [[told]] = await self._connections.read.fetch(SQL.any_parent_end)
        return await repeated(lambda: self._pass_on_once(limit)) if told else PassedOn()

    async def _pass_on_once(self, limit: int) -> PassedOn:
        async with self._connections.read.session(limit) as session, session.transaction():
            rows = await session.fetch(SQL.parent_ends, _ENDS_MAX)
            ends = {end.id: end for end in map(_end_of, rows)}
            counted = await session.fetch(SQL.count_dependence, sorted(ends), limit) if ends else []
            freed, cascades = await _count_down(session, _by_child(counted, ends))
            all_counted = len(counted) < limit
            if ends and all_counted:
                await session.fetch(SQL.forget_ends, [row["seq"] for row in rows])
        return PassedOn(tuple(freed), more=cascades or not all_counted or len(rows) == _ENDS_MAX)

    async def tidy_dependences(self) -> None:
        """Goes on from where the last call ended, once around at most."""
        for _ in range(_STATEMENTS_MAX):
            rows = await self._connections.sweep.fetch(SQL.tidy_dependence, *self._tidied_to, _TIDIED)
            if not rows or (rows[0]["looked_at"] < _TIDIED):
                self._tidied_to = _FIRST
                break
            self._tidied_to = uuid_of(rows[0]["parent"]), uuid_of(rows[0]["child"])

    # -- reading -------------------------------------------------------------------------------------

    async def parents(self, ids: Sequence[UUID], inline_bytes: int) -> list[ParentView]:
        rows = await self._connections.read.fetch(SQL.parents, list(ids), inline_bytes, rows=len(ids))
        found = {view.id: view for view in map(_parent_of, rows)}
        return [found.get(parent) or ParentView(parent) for parent in ids]

    async def workflow(self, workflow_id: UUID, tasks: int) -> WorkflowView | None:
        async with self._connections.read.session(tasks) as session:
            counts = await session.only(SQL.workflow_counts, workflow_id)
            if not counts["total"]:
                return None
            rows = await session.fetch(SQL.workflow_tasks, workflow_id, tasks) if tasks else []
        return _view(workflow_id, counts, rows)

    async def workflows(self, tenant: str, limit: int, before: UUID | None = None) -> list[WorkflowView]:
        last = UUID(int=2**128 - 1) if before is None else before
        ids = uuids_of(await self._connections.read.fetch(SQL.workflows, tenant, last, limit))
        views = [await self.workflow(workflow_id, 0) for workflow_id in ids]
        return [view for view in views if view is not None]


# -- steps -------------------------------------------------------------------------------------------


async def _count_down(
    session: Session, ends_of: Mapping[UUID, Sequence[ParentEnd]]
) -> tuple[list[Freed], bool]:
    """Whom the ends free or end; and whether somebody waits for one of the latter."""
    if not ends_of:
        return [], False
    kept: list[tuple[UUID, int]] = []
    ended: dict[UUID, Fate] = {}
    for child, open_parents, policy in await session.fetch(SQL.blocked_children, sorted(ends_of)):
        decided = fate(OnParentFailure(policy or 0), open_parents, ends_of[child])
        if decided.status is None:
            kept.append((child, decided.open_parents))
        else:
            ended[child] = decided
    freed: list[Freed] = []
    if kept:
        columns = [child for child, _ in kept], [count for _, count in kept]
        rows = await session.fetch(SQL.count_down, *columns)
        freed += [_freed(row) for row in rows if row["open_parents"] is None]
    told = await _end(session, ended, freed) if ended else False
    return freed, told


async def _end(session: Session, ended: Mapping[UUID, Fate], freed: list[Freed]) -> bool:
    statuses = [int(each.status) for each in ended.values() if each.status is not None]
    errors = [json_of_error(each.error) for each in ended.values()]
    told = False
    for child, attempt, band, slot, awaited in await session.fetch(
        SQL.end_children, list(ended), statuses, errors
    ):
        decided = ended[child]
        freed.append(Freed(uuid_of(child), attempt, band, slot, status=decided.status, error=decided.error))
        told = told or awaited
    return told


def _by_child(
    counted: Sequence[asyncpg.Record], ends: Mapping[UUID, ParentEnd]
) -> dict[UUID, list[ParentEnd]]:
    found: dict[UUID, list[ParentEnd]] = {}
    for parent, child in counted:
        found.setdefault(child, []).append(ends[parent])
    return found


# -- rows --------------------------------------------------------------------------------------------


def _end_of(row: asyncpg.Record) -> ParentEnd:
    return ParentEnd(uuid_of(row["id"]), Status(row["status"]), row["name"] or "")


def _freed(row: asyncpg.Record) -> Freed:
    return Freed(
        uuid_of(row["id"]),
        row["attempt"],
        row["band"],
        row["slot"],
        tuple(row["prefers"] or ()),
        None if row["actor"] is None else uuid_of(row["actor"]),
        max(0.0, row["due_in_s"]),
    )


def _parent_of(row: asyncpg.Record) -> ParentView:
    ended = row["status"] is not None
    state = Status(row["status"]).state if ended else State.RUNNING if row["runs"] else State.READY
    return ParentView(
        uuid_of(row["id"]),
        row["name"] or "",
        row["handler"],
        state,
        row["result"],
        row["size"],
        Codec(row["result_codec"] or 0),
        error_of(row["error"]),
    )


def _view(workflow_id: UUID, counts: asyncpg.Record, rows: Sequence[asyncpg.Record]) -> WorkflowView:
    return WorkflowView(
        id=workflow_id,
        tenant=counts["tenant"],
        created_at=counts["created_at"],
        counts={state: counts[state.value] for state in _STATES if counts[state.value]},
        tasks=tuple(map(_task_of, rows)),
    )


def _task_of(row: Any) -> WorkflowTask:
    return WorkflowTask(
        id=uuid_of(row["id"]),
        name=row["name"] or "",
        handler=row["handler"],
        state=_STATES[row["state"]],
        parents=tuple(map(uuid_of, row["parents"] or ())),
        attempt=row["attempt"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        error=error_of(row["error"]),
    )
