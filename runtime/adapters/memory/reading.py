"""Reading the record: views, filters, pages, counts. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import UUID

from runtime.core.task import (
    AttemptView,
    BandCount,
    Census,
    Lane,
    Page,
    State,
    Status,
    TaskFilter,
    TaskView,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from runtime.adapters.memory.leases import Leases
    from runtime.adapters.memory.names import Names
    from runtime.adapters.memory.rows import OutcomeRow, RunningRow, TaskRow, WaitingRow
    from runtime.adapters.memory.tables import Tables

ROWS_LOOKED_AT_MAX: Final = 10_000  # per page of a list

_LAST_SEQ: Final = 2**63
_LAST_ID: Final = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Reader:
    tables: Tables
    leases: Leases
    names: Names
    now: datetime

    # -- one task ------------------------------------------------------------------------------------

    def state_of(self, task_id: UUID) -> State:
        waiting = self.tables.waiting.get(task_id)
        if waiting is not None:
            if waiting.open_parents is not None:
                return State.BLOCKED
            return State.READY if waiting.due <= self.now else State.SCHEDULED
        if task_id in self.tables.running:
            return State.RUNNING
        return self.tables.outcomes[task_id].status.state

    def view(self, task_id: UUID) -> TaskView | None:
        return self.existing(task_id) if task_id in self.tables.tasks else None

    def existing(self, task_id: UUID, *, with_result: bool = True) -> TaskView:
        """Raises KeyError."""
        task = self.tables.tasks[task_id]
        waiting = self.tables.waiting.get(task_id)
        if waiting is not None:
            return self._view_waiting(task, waiting)
        running = self.tables.running.get(task_id)
        if running is not None:
            return self._view_running(task, running)
        return self._view_ended(task, self.tables.outcomes[task_id], with_result=with_result)

    def _view_waiting(self, task: TaskRow, row: WaitingRow) -> TaskView:
        return self._view(
            task,
            state=self.state_of(row.id),
            attempt=row.attempt - 1,
            failures=row.failures,
            crashes=row.crashes,
            reason=row.reason,
            suspect=row.band < 0,
            unbound=self.names.band(row.band).requires != self.names.band(task.new.band).requires,
            lane=self.names.band(row.band).lane,
            due=None if row.open_parents is not None else row.due,
            open_parents=row.open_parents or 0,
        )

    def _view_running(self, task: TaskRow, row: RunningRow) -> TaskView:
        return self._view(
            task,
            state=State.RUNNING,
            attempt=row.attempt,
            failures=row.failures,
            crashes=row.crashes,
            suspect=row.alone,
            lane=self.names.band(row.band).lane,
            node=self.leases.node_of(row.incarnation),
            started_at=row.started_at,
            cancel_requested_at=row.cancel_requested_at,
            progress=row.progress,
        )

    def _view_ended(self, task: TaskRow, row: OutcomeRow, *, with_result: bool) -> TaskView:
        return self._view(
            task,
            state=row.status.state,
            attempt=row.attempt,
            failures=row.failures,
            crashes=row.crashes,
            node=self.leases.node_of(row.incarnation),
            started_at=row.started_at,
            finished_at=row.finished_at,
            result=row.result if with_result else None,
            result_codec=row.result_codec,
            error=row.error,
        )

    def _view(self, task: TaskRow, lane: Lane | None = None, **of_state: object) -> TaskView:
        """`lane`: that it waits or runs in now."""
        new = task.new
        band = self.names.band(new.band)
        return TaskView(
            id=new.id,
            tenant=new.tenant,
            handler=band.handler,
            lane=band.lane if lane is None else lane,
            slot=new.slot,
            max_attempts=new.max_attempts,
            timeout_s=new.timeout_s,
            created_at=task.created_at,
            run_at=task.run_at,
            requires=band.requires,
            prefers=new.prefers,
            idempotency_key=new.idempotency_key,
            actor_key=new.actor_key,
            limit_key=new.limit_key,
            expires_at=new.expires_at,
            metadata=new.metadata,
            created_by=new.created_by,
            trace_context=new.trace_context,
            workflow_id=new.workflow_id,
            name=new.name,
            parents=new.parents,
            on_parent_failure=new.on_parent_failure,
            **of_state,  # type: ignore[arg-type]  # the callers above name fields of TaskView only
        )

    def attempts(self, task_id: UUID) -> list[AttemptView]:
        rows = self.tables.attempts.get(task_id, {})
        return [
            AttemptView(
                attempt=row.attempt,
                kind=row.kind,
                node=self.leases.node_of(row.incarnation),
                started_at=row.started_at,
                ended_at=row.ended_at,
                error=row.error,
            )
            for _, row in sorted(rows.items())
        ]

    # -- many tasks ----------------------------------------------------------------------------------

    def views(self, ids: Sequence[UUID]) -> list[TaskView]:
        return [self.existing(task_id) for task_id in dict.fromkeys(ids) if task_id in self.tables.tasks]

    def finished(self, ids: Sequence[UUID]) -> list[TaskView]:
        return self.views([task_id for task_id in ids if task_id in self.tables.outcomes])

    def matches(self, which: TaskFilter, task_id: UUID) -> bool:
        """Whether the task, which exists, is one of these."""
        task = self.tables.tasks[task_id]
        new = task.new
        return (
            (not which.ids or task_id in which.ids)
            and which.tenant in (None, new.tenant)
            and which.actor_key in (None, new.actor_key)
            and which.idempotency_key in (None, new.idempotency_key)
            and which.workflow_id in (None, new.workflow_id)
            and (which.created_after is None or task.created_at > which.created_after)
            and (which.created_before is None or task.created_at < which.created_before)
            and which.handler in (None, self.names.band(new.band).handler)
            and (not which.states or self.state_of(task_id) in which.states)
            and which.error_type in (None, self._error_type(task_id))
            and (which.not_lane is None or self.existing(task_id).lane is not which.not_lane)
        )

    def _error_type(self, task_id: UUID) -> str | None:
        outcome = self.tables.outcomes.get(task_id)
        return None if outcome is None or outcome.error is None else outcome.error.type

    def page(self, which: TaskFilter, limit: int, before: UUID | None) -> Page:
        found: list[TaskView] = []
        looked_at, last = 0, before
        for task_id in self._candidates(which, before):
            if len(found) >= limit or looked_at >= ROWS_LOOKED_AT_MAX:
                return Page(tuple(found), last)
            looked_at, last = looked_at + 1, task_id
            if self.matches(which, task_id):
                found.append(self.existing(task_id, with_result=False))
        return Page(tuple(found), None)

    def _candidates(self, which: TaskFilter, before: UUID | None) -> Iterator[UUID]:
        """Newest first; the narrowest index that the filter allows."""
        if not which.ids:
            return self.tables.ids.descending(before)
        known = (task_id for task_id in set(which.ids) if task_id in self.tables.tasks)
        return iter(sorted((i for i in known if before is None or i < before), reverse=True))

    def unfinished(self, which: TaskFilter, limit: int) -> list[UUID]:
        """Those of `which` that wait, or run and are not yet asked to cancel; oldest first."""
        tables = self.tables
        running = (row.id for row in tables.running.values() if row.cancel_requested_at is None)
        return self._first([*tables.waiting, *running], which, limit)

    def waiting(self, which: TaskFilter, limit: int) -> list[UUID]:
        """Those of `which` that wait; oldest first."""
        return self._first([*self.tables.waiting], which, limit)

    def dead_letters(self, which: TaskFilter, limit: int) -> list[UUID]:
        """Failed tasks of `which`, and cancelled ones if its states say so; oldest first."""
        statuses = [Status.FAILED, Status.CANCELLED] if State.CANCELLED in which.states else [Status.FAILED]
        return self._first(
            [task_id for status in statuses for task_id in self.tables.ended[status]], which, limit
        )

    def _first(self, ids: list[UUID], which: TaskFilter, limit: int) -> list[UUID]:
        ids.sort(key=lambda task_id: task_id.int)
        return list(islice((task_id for task_id in ids if self.matches(which, task_id)), max(limit, 0)))

    def results_in_use(self, attempts: Sequence[tuple[UUID, int]]) -> list[tuple[UUID, int]]:
        return [key for key in attempts if self._runs(*key) or self._ended_apart(*key)]

    def _runs(self, task_id: UUID, attempt: int) -> bool:
        row = self.tables.running.get(task_id)
        return row is not None and row.attempt == attempt

    def _ended_apart(self, task_id: UUID, attempt: int) -> bool:
        row = self.tables.outcomes.get(task_id)
        return row is not None and row.attempt == attempt and row.result_codec.is_apart

    # -- counts --------------------------------------------------------------------------------------

    def census(self) -> Census:
        tables = self.tables
        return Census(
            bands=tuple(self._count(band) for band in sorted({*tables.bands, *tables.running_in})),
            succeeded=len(tables.ended[Status.SUCCEEDED]),
            failed=len(tables.ended[Status.FAILED]),
            cancelled=len(tables.ended[Status.CANCELLED]),
            succeeded_is_estimate=False,
        )

    def _count(self, band: int) -> BandCount:
        queue = self.tables.bands.get(band)
        ready = scheduled = 0
        oldest_due_s = 0.0
        if queue is not None:
            ready = queue.count_to((self.now, _LAST_SEQ, _LAST_ID))
            scheduled = len(queue) - ready - self.tables.blocked_in[band]
            oldest_due_s = max(0.0, (self.now - next(queue.ascending())[0]).total_seconds())
        running, blocked = self.tables.running_in[band], self.tables.blocked_in[band]
        return BandCount(band, ready, scheduled, running, oldest_due_s, blocked)
