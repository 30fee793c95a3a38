"""Claim, pull, settle and what repairs them: rows that move between waiting, running and outcome.

Law: a running row is left only through its fence (id, attempt, incarnation) or by repair in its name.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING
from uuid import UUID

from runtime.adapters.memory import content
from runtime.adapters.memory.accepting import plan_group, write_group
from runtime.adapters.memory.rows import AttemptRow, OutcomeRow, RunningRow, WaitingRow
from runtime.core.task import (
    Claim,
    ErrorInfo,
    Finish,
    Orphan,
    Progress,
    Requeue,
    Settlement,
    Status,
    Take,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from runtime.adapters.memory.leases import Leases
    from runtime.adapters.memory.tables import Due, Tables

# -- claim and pull ----------------------------------------------------------------------------------


def claim(tables: Tables, offers: Sequence[tuple[UUID, int]], incarnation: int, now: datetime) -> list[Claim]:
    claims = []
    for task_id, attempt in offers:
        row = tables.waiting.get(task_id)
        if row is None or row.actor is not None or row.band < 0:
            continue
        if row.attempt == attempt and row.due <= now:
            claims.append(start(tables, row, incarnation, now, alone=False))
    return claims


def pull(
    tables: Tables, takes: Sequence[Take], incarnation: int, now: datetime, *, alone: bool
) -> list[Claim]:
    return [
        start(tables, tables.waiting[task_id], incarnation, now, alone=alone)
        for take in takes
        for _, _, task_id in _oldest_due(tables, take, now)
    ]


def _oldest_due(tables: Tables, take: Take, now: datetime) -> list[Due]:
    queue = tables.bands.get(take.band)
    if queue is None or take.limit <= 0:
        return []
    first = None if take.since is None else (take.since, 0, _NIL)
    due = takewhile(lambda key: key[0] <= now, queue.ascending(first))
    return list(islice((key for key in due if tables.waiting[key[2]].actor is None), take.limit))


_NIL = UUID(int=0)


def start(
    tables: Tables,
    row: WaitingRow,
    incarnation: int,
    now: datetime,
    *,
    alone: bool,
    limiter: UUID | None = None,
) -> Claim:
    """`limiter` is what it begins under; else that of its own key."""
    tables.unwait(row.id)
    tables.run(
        RunningRow(
            id=row.id,
            incarnation=incarnation,
            seq=row.seq,
            started_at=now,
            expires_at=row.expires_at,
            band=abs(row.band),
            attempt=row.attempt,
            failures=row.failures,
            crashes=row.crashes,
            alone=alone,
            actor=row.actor,
            lane=row.lane,
            limiter=limiter or row.limiter,
        )
    )
    return _claim_of(tables, row, now, alone=alone)


def _claim_of(tables: Tables, row: WaitingRow, now: datetime, *, alone: bool) -> Claim:
    task = tables.tasks[row.id]
    new = task.new
    return Claim(
        id=row.id,
        attempt=row.attempt,
        band=abs(row.band),
        slot=new.slot,
        seq=row.seq,
        failures=row.failures,
        crashes=row.crashes,
        payload=new.payload,
        payload_codec=new.payload_codec,
        max_attempts=new.max_attempts,
        timeout_s=new.timeout_s,
        started_at=now,
        waited_s=(now - row.due).total_seconds(),
        created_at=task.created_at,
        idempotency_key=new.idempotency_key,
        actor_key=new.actor_key,
        metadata=new.metadata,
        trace_context=new.trace_context,
        created_by=new.created_by,
        expired=row.expires_at is not None and row.expires_at <= now,
        alone=alone,
        workflow_id=new.workflow_id,
        parents=new.parents,
    )


# -- settle ------------------------------------------------------------------------------------------


def settle(tables: Tables, leases: Leases, settlements: Sequence[Settlement], now: datetime) -> list[Verdict]:
    return [settle_one(tables, leases, settlement, now) for settlement in settlements]


def settle_one(tables: Tables, leases: Leases, settlement: Settlement, now: datetime) -> Verdict:
    row = tables.running.get(settlement.id)
    if row is None or (row.attempt, row.incarnation) != (settlement.attempt, settlement.incarnation):
        return Verdict.COMMITTED if on_record(tables, settlement) else Verdict.FENCED
    move = settlement.move
    if content.wrong_with_move(move) is not None:
        return Verdict.REFUSED
    if isinstance(move, Finish):
        children = plan_group(tables, move.children, now)
        if not children.whole:
            return Verdict.REFUSED
        awaited = row.id in tables.dependences
        _finish(tables, row, move, _set_times(row, settlement, now))
        write_group(tables, leases, children, now)
        return Verdict.AWAITED if awaited else Verdict.COMMITTED
    due = content.later(now, move.delay_s)
    if due is None:
        return Verdict.REFUSED
    _requeue(tables, row, move, due, _set_times(row, settlement, now))
    awaited = row.id in tables.dependences and row.id in tables.outcomes
    return Verdict.AWAITED if awaited else Verdict.COMMITTED


def _set_times(row: RunningRow, settlement: Settlement, now: datetime) -> datetime:
    """When its body really began and ended; the latter is returned."""
    claimed_at = row.started_at
    if settlement.began_ago_s is not None:
        row.started_at = max(claimed_at, now - timedelta(seconds=settlement.began_ago_s))
    return max(claimed_at, now - timedelta(seconds=settlement.ended_ago_s or 0.0))


def on_record(tables: Tables, settlement: Settlement) -> bool:
    """Whether this settlement is one that was committed before and whose answer was lost."""
    if isinstance(settlement.move, Finish):
        outcome = tables.outcomes.get(settlement.id)
        return outcome is not None and (outcome.attempt, outcome.incarnation, outcome.status) == (
            settlement.attempt,
            settlement.incarnation,
            settlement.move.status,
        )
    ended = tables.attempts.get(settlement.id, {}).get(settlement.attempt)
    return ended is not None and (ended.incarnation, ended.kind) == (
        settlement.incarnation,
        settlement.move.kind,
    )


def _finish(tables: Tables, row: RunningRow, move: Finish, ended_at: datetime) -> None:
    tables.unrun(row.id)
    tables.end(
        OutcomeRow(
            id=row.id,
            incarnation=row.incarnation,
            started_at=row.started_at,
            finished_at=ended_at,
            attempt=row.attempt,
            failures=move.failures,
            crashes=move.crashes,
            status=move.status,
            result=move.result,
            result_codec=move.result_codec,
            error=move.error,
        )
    )


def _requeue(tables: Tables, row: RunningRow, move: Requeue, due: datetime, ended_at: datetime) -> None:
    tables.unrun(row.id)
    tables.note(
        AttemptRow(
            id=row.id,
            incarnation=row.incarnation,
            started_at=row.started_at,
            ended_at=ended_at,
            attempt=row.attempt,
            kind=move.kind,
            error=move.error,
        )
    )
    if row.cancel_requested_at is not None:  # a request to cancel survives the attempt that it met
        tables.end(
            OutcomeRow(
                id=row.id,
                incarnation=row.incarnation,
                started_at=row.started_at,
                finished_at=ended_at,
                attempt=row.attempt,
                failures=move.failures,
                crashes=move.crashes,
                status=Status.CANCELLED,
            )
        )
        return
    tables.wait(
        WaitingRow(
            id=row.id,
            due=due,
            seq=row.seq,
            expires_at=row.expires_at,
            band=(move.band or row.band) * (-1 if move.suspect else 1),
            attempt=row.attempt + 1,
            failures=move.failures,
            crashes=move.crashes,
            reason=move.reason,
            actor=row.actor,
            lane=row.lane,
            limiter=row.limiter,
        )
    )


# -- repair and what runs ----------------------------------------------------------------------------


def orphans(tables: Tables, leases: Leases, limit: int) -> list[Orphan]:
    lost = (
        tables.running[task_id]
        for incarnation, ids in tables.held.items()
        if leases.ended(incarnation)
        for task_id in ids
    )
    oldest = sorted(lost, key=lambda row: (row.started_at, row.seq))[: max(limit, 0)]
    return [_orphan(tables, leases, row) for row in oldest]


def held(tables: Tables, leases: Leases, incarnation: int) -> list[Orphan]:
    return [_orphan(tables, leases, tables.running[task_id]) for task_id in tables.held.get(incarnation, ())]


def _orphan(tables: Tables, leases: Leases, row: RunningRow) -> Orphan:
    return Orphan(
        id=row.id,
        attempt=row.attempt,
        incarnation=row.incarnation,
        failures=row.failures,
        crashes=row.crashes,
        max_attempts=tables.tasks[row.id].new.max_attempts,
        alone=row.alone,
        band=row.band,
        left=leases.left(row.incarnation),
    )


def expire(tables: Tables, limit: int, now: datetime) -> list[UUID]:
    passed = islice(takewhile(lambda key: key[0] <= now, tables.expiry.ascending()), max(limit, 0))
    expired = [task_id for _, _, task_id in passed]
    for task_id in expired:
        tables.end_waiting(task_id, now, error=ErrorInfo("Expired", "not started before its expires_at"))
    return expired


def report_progress(tables: Tables, incarnation: int, reports: Mapping[tuple[UUID, int], Progress]) -> None:
    for (task_id, attempt), progress in reports.items():
        row = tables.running.get(task_id)
        if row is not None and (row.attempt, row.incarnation) == (attempt, incarnation):
            row.progress = progress


def cancel_requests(tables: Tables, incarnation: int) -> list[tuple[UUID, int]]:
    rows = (tables.running[task_id] for task_id in tables.held.get(incarnation, ()))
    return [(row.id, row.attempt) for row in rows if row.cancel_requested_at is not None]
