"""The tables of the record and the indexes beside them.

Law: a task's state is the table its id is in; rows are moved by the methods here and nowhere else, so that
the indexes are always in step. Nothing here decides, reads a clock or refuses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from runtime.adapters.memory.ordered import Ordered
from runtime.adapters.memory.rows import OutcomeRow
from runtime.core.task import ErrorInfo, Lane, NewTask, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.adapters.memory.rows import (
        ActorRow,
        AttemptRow,
        RunningRow,
        TaskRow,
        UniqueRow,
        WaitingRow,
    )

Due = tuple[datetime, int, UUID]  # (due, seq, id)


class Tables:
    """`lane_of` says the lane of a band."""

    def __init__(self, lane_of: Callable[[int], Lane]) -> None:
        self.lane_of = lane_of
        self.tasks: dict[UUID, TaskRow] = {}
        self.waiting: dict[UUID, WaitingRow] = {}
        self.running: dict[UUID, RunningRow] = {}
        self.outcomes: dict[UUID, OutcomeRow] = {}
        self.attempts: dict[UUID, dict[int, AttemptRow]] = {}
        self.actors: dict[UUID, ActorRow] = {}
        self.dependences: dict[
            UUID, dict[UUID, bool]
        ] = {}  # by parent: its children, and whether they heard of its end
        self.parent_ends: list[tuple[UUID, Status]] = []  # that are to be passed on
        self.unique: dict[UUID, UniqueRow] = {}  # by unique id
        # indexes
        self.keys: dict[tuple[str, str], UUID] = {}  # (tenant, idempotency key)
        self.ids: Ordered[UUID] = Ordered()
        self.workflows: dict[UUID, dict[UUID, None]] = {}  # tasks of each
        self.blocked_in: Counter[int] = Counter()  # how much is blocked, by band
        self.bands: dict[int, Ordered[Due]] = {}  # what waits, by signed band
        self.mail: dict[tuple[UUID, Lane], Ordered[tuple[int, UUID]]] = {}  # what waits for keys: (seq, id)
        self.busy: Counter[UUID] = Counter()  # how much runs, by key
        self.limited: dict[tuple[int, UUID], Ordered[Due]] = {}  # what waits, by signed band and limiter
        self.running_under: Counter[UUID] = Counter()  # how much runs, by limiter
        self.expiry: Ordered[tuple[datetime, int, UUID]] = Ordered()  # of what waits: (expires_at, seq, id)
        self.held: defaultdict[int, dict[UUID, None]] = defaultdict(dict)  # what runs, by incarnation
        self.running_in: Counter[int] = Counter()  # how much runs, by band
        self.finished: Ordered[tuple[datetime, UUID]] = Ordered()  # (finished_at, id)
        self.ended: dict[Status, dict[UUID, None]] = {status: {} for status in Status}
        self.fence = 0
        self._seq = 0

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def insert(self, row: TaskRow) -> None:
        new = row.new
        self.tasks[new.id] = row
        self.ids.add(new.id)
        if new.idempotency_key is not None:
            self.keys[new.tenant, new.idempotency_key] = new.id
        if new.workflow_id is not None:
            self.workflows.setdefault(new.workflow_id, {})[new.id] = None

    def delete(self, task_id: UUID) -> None:
        """The task with everything that hangs on it; it must be final."""
        self.drop_outcome(task_id)
        new = self.tasks.pop(task_id).new
        self.ids.remove(task_id)
        self.attempts.pop(task_id, None)
        if new.idempotency_key is not None:
            del self.keys[new.tenant, new.idempotency_key]
        if new.workflow_id is not None:
            del self.workflows[new.workflow_id][task_id]
            if not self.workflows[new.workflow_id]:
                del self.workflows[new.workflow_id]
        if self.is_holder(new):
            assert new.unique is not None
            del self.unique[new.unique.id]

    def is_holder(self, new: NewTask) -> bool:
        """Whether it is the newest task of its unique id."""
        row = None if new.unique is None else self.unique.get(new.unique.id)
        return row is not None and row.task_id == new.id

    def wait(self, row: WaitingRow) -> None:
        self.waiting[row.id] = row
        queue = self.bands.get(row.band)
        if queue is None:
            queue = self.bands[row.band] = Ordered()
        queue.add((row.due, row.seq, row.id))
        if row.open_parents is not None:
            self.blocked_in[row.band] += 1
        if row.expires_at is not None:
            self.expiry.add((row.expires_at, row.seq, row.id))
        if row.actor is not None and row.lane is not None:
            self.mail.setdefault((row.actor, row.lane), Ordered()).add((row.seq, row.id))
        if row.limiter is not None:
            self.limited.setdefault((row.band, row.limiter), Ordered()).add((row.due, row.seq, row.id))

    def unwait(self, task_id: UUID) -> WaitingRow:
        row = self.waiting.pop(task_id)
        queue = self.bands[row.band]
        queue.remove((row.due, row.seq, row.id))
        if row.open_parents is not None:
            self.blocked_in[row.band] -= 1
        if not queue:
            del self.bands[row.band]
        if row.expires_at is not None:
            self.expiry.remove((row.expires_at, row.seq, row.id))
        if row.actor is not None and row.lane is not None:
            self.mail[row.actor, row.lane].remove((row.seq, row.id))
            if not self.mail[row.actor, row.lane]:
                del self.mail[row.actor, row.lane]
        if row.limiter is not None:
            self.limited[row.band, row.limiter].remove((row.due, row.seq, row.id))
            if not self.limited[row.band, row.limiter]:
                del self.limited[row.band, row.limiter]
        return row

    def move_to_band(self, task_id: UUID, band: int) -> None:
        """A positive band; suspects stay among suspects."""
        row = self.unwait(task_id)
        lane = None if row.lane is None else self.lane_of(band)
        self.wait(replace(row, band=band if row.band > 0 else -band, lane=lane))

    def run(self, row: RunningRow) -> None:
        self.running[row.id] = row
        self.held[row.incarnation][row.id] = None
        self.running_in[row.band] += 1
        if row.actor is not None:
            self.busy[row.actor] += 1
        if row.limiter is not None:
            self.running_under[row.limiter] += 1

    def unrun(self, task_id: UUID) -> RunningRow:
        row = self.running.pop(task_id)
        held = self.held[row.incarnation]
        del held[task_id]
        if not held:
            del self.held[row.incarnation]
        self.running_in[row.band] -= 1
        if not self.running_in[row.band]:
            del self.running_in[row.band]
        if row.actor is not None:
            self.busy[row.actor] -= 1
            if not self.busy[row.actor]:
                del self.busy[row.actor]
        if row.limiter is not None:
            self.running_under[row.limiter] -= 1
            if not self.running_under[row.limiter]:
                del self.running_under[row.limiter]
        return row

    def end(self, row: OutcomeRow) -> None:
        self.outcomes[row.id] = row
        self.finished.add((row.finished_at, row.id))
        self.ended[row.status][row.id] = None
        if row.id in self.dependences:
            self.parent_ends.append((row.id, row.status))

    def end_waiting(
        self, task_id: UUID, now: datetime, status: Status = Status.CANCELLED, error: ErrorInfo | None = None
    ) -> None:
        """What waits ends without another attempt."""
        row = self.unwait(task_id)
        self.end(
            OutcomeRow(
                id=task_id,
                incarnation=None,
                started_at=None,
                finished_at=now,
                attempt=row.attempt - 1,
                failures=row.failures,
                crashes=row.crashes,
                status=status,
                error=error,
            )
        )

    def drop_outcome(self, task_id: UUID) -> OutcomeRow:
        row = self.outcomes.pop(task_id)
        self.finished.remove((row.finished_at, row.id))
        del self.ended[row.status][task_id]
        return row

    def note(self, row: AttemptRow) -> None:
        """What an attempt met first stays."""
        self.attempts.setdefault(row.id, {}).setdefault(row.attempt, row)
