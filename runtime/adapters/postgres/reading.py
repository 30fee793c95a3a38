"""Reading the record: views, pages, counts. Nothing here takes a lock."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from runtime.adapters.postgres.connections import Connections
from runtime.adapters.postgres.queries import SQL
from runtime.core.task import (
    AttemptKind,
    AttemptView,
    BandCount,
    Census,
    Codec,
    ErrorInfo,
    Lane,
    Page,
    Progress,
    Reason,
    State,
    TaskFilter,
    TaskView,
)

ROWS_LOOKED_AT_MAX: Final = (
    10_000  # per page, so that a filter that matches little never reads the whole history
)
_EXACT_UP_TO: Final = 200_000
_STATES: Final = (  # as the statements number them
    State.BLOCKED,
    State.SCHEDULED,
    State.READY,
    State.RUNNING,
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
)
_LAST_ID: Final = UUID(int=2**128 - 1)


class Reading:
    _connections: Connections

    async def get(self, task_id: UUID) -> TaskView | None:
        views = await self.get_many([task_id])
        return views[0] if views else None

    async def get_many(self, ids: Sequence[UUID]) -> builtins.list[TaskView]:
        async with self._connections.read.connection() as connection:
            return [view_of(row) for row in await connection.fetch(SQL.views, list(ids))]

    async def finished(self, ids: Sequence[UUID]) -> builtins.list[TaskView]:
        async with self._connections.read.connection() as connection:
            return [view_of(row) for row in await connection.fetch(SQL.finished, list(ids))]

    async def attempts(self, task_id: UUID) -> builtins.list[AttemptView]:
        async with self._connections.read.connection() as connection:
            return [
                AttemptView(
                    attempt=row["attempt"],
                    kind=AttemptKind(row["kind"]),
                    node=row["node"],
                    started_at=row["started_at"],
                    ended_at=row["ended_at"],
                    error=_error(row["error"]),
                )
                for row in await connection.fetch(SQL.attempts, task_id)
            ]

    async def list(self, which: TaskFilter, limit: int, before: UUID | None = None) -> Page:
        look = limit + 1 if which.empty and which.tenant is None else ROWS_LOOKED_AT_MAX
        async with self._connections.read.connection() as connection:
            rows = await connection.fetch(
                _listing(which), *filter_values(which), before or _LAST_ID, max(look, limit + 1), limit + 1
            )
            found = [row["id"] for row in rows if row["id"] is not None]
            looked, last = rows[0]["looked"], rows[0]["last"]
            shown = found[:limit]
            views = {
                row["id"]: view_of(row) for row in await connection.fetch(SQL.views_without_results, shown)
            }
        if len(found) > limit:
            cursor = shown[-1] if shown else None
        else:
            cursor = last if looked >= max(look, limit + 1) else None
        return Page(tuple(views[task_id] for task_id in shown if task_id in views), cursor)

    async def census(self) -> Census:
        async with self._connections.slow.connection() as connection:
            waiting = {row["band"]: row for row in await connection.fetch(SQL.count_waiting)}
            running = {row["band"]: row["running"] for row in await connection.fetch(SQL.count_running)}
            ended = await connection.fetchrow(SQL.count_ended)
            assert ended is not None, "an aggregate always has a row"
            succeeded = max(0, ended["estimate"] - ended["failed"] - ended["cancelled"])
            estimated = ended["estimate"] > _EXACT_UP_TO
            if not estimated:
                succeeded = await connection.fetchval(SQL.count_succeeded)
        return Census(
            bands=tuple(
                _count(band, waiting.get(band), running.get(band, 0)) for band in sorted({*waiting, *running})
            ),
            succeeded=succeeded,
            failed=ended["failed"],
            cancelled=ended["cancelled"],
            succeeded_is_estimate=estimated,
        )


def _listing(which: TaskFilter) -> str:
    """The narrowest way in that the filter allows."""
    if which.ids:
        return SQL.list_by_ids
    if which.tenant is not None and which.idempotency_key is not None:
        return SQL.list_by_key
    if which.tenant is not None and which.actor_key is not None:
        return SQL.list_by_actor
    if which.workflow_id is not None:
        return SQL.list_by_workflow
    return _BY_STATES.get(frozenset(which.states), SQL.list_by_task)


_BY_STATES: Final = {
    frozenset({State.READY}): SQL.list_waiting,
    frozenset({State.SCHEDULED}): SQL.list_waiting,
    frozenset({State.READY, State.SCHEDULED}): SQL.list_waiting,
    frozenset({State.RUNNING}): SQL.list_running,
    frozenset({State.FAILED}): SQL.list_failed,
    frozenset({State.CANCELLED}): SQL.list_cancelled,
}


def filter_values(which: TaskFilter) -> tuple[Any, ...]:
    """$1…$10 of the statements that filter."""
    return (
        list(which.ids) or None,
        which.tenant,
        which.handler,
        which.actor_key,
        which.idempotency_key,
        which.workflow_id,
        which.created_after,
        which.created_before,
        which.error_type,
        [_STATES.index(state) for state in which.states] or None,
    )


def _count(band: int, waiting: asyncpg.Record | None, running: int) -> BandCount:
    if waiting is None:
        return BandCount(band, 0, 0, running, 0.0)
    return BandCount(band, waiting["ready"], waiting["scheduled"], running, max(0.0, waiting["oldest_due_s"]))


def view_of(row: asyncpg.Record) -> TaskView:
    state = _STATES[row["state"]]
    return TaskView(
        id=row["id"],
        tenant=row["tenant"],
        handler=row["handler"],
        lane=Lane(row["lane"]),
        state=state,
        slot=row["slot"],
        attempt=row["attempt"],
        failures=row["failures"],
        crashes=row["crashes"],
        max_attempts=row["max_attempts"],
        timeout_s=row["timeout_s"],
        created_at=row["created_at"],
        run_at=row["run_at"],
        requires=tuple(row["requires"]),
        prefers=tuple(row["prefers"] or ()),
        idempotency_key=row["idempotency_key"],
        actor_key=row["actor_key"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        expires_at=row["expires_at"],
        cancel_requested_at=row["cancel_requested_at"],
        node=row["node"],
        reason=Reason(row["reason"]),
        suspect=row["suspect"],
        due=row["due"],
        metadata=None if row["metadata"] is None else row["metadata"].encode(),
        created_by=row["created_by"] or "",
        trace_context=row["trace_context"],
        workflow_id=row["workflow_id"],
        result=row["result"],
        result_codec=Codec(row["result_codec"] or 0),
        error=_error(row["error"]),
        progress=_progress(row["progress"]),
    )


def _error(text: str | None) -> ErrorInfo | None:
    return None if text is None else ErrorInfo(**orjson.loads(text))


def _progress(text: str | None) -> Progress | None:
    if text is None:
        return None
    done, total, message = orjson.loads(text)
    return Progress(done=done, total=total, message=message)
