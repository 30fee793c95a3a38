"""Accepting tasks: what each group comes to, then its rows.

Law: a group is planned completely before anything of it is written, so that it is stored whole or not at all.
Groups are taken one after the other; of equal keys the first one stored is the task, the others find it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from runtime.adapters.memory import content
from runtime.adapters.memory.rows import RunningRow, TaskRow, UniqueRow, WaitingRow
from runtime.adapters.memory.workflows import blocked, link
from runtime.core.keyed import actor_of
from runtime.core.task import (
    Acceptance,
    Duplicate,
    ErrorInfo,
    KeyReused,
    NewTask,
    NotUnique,
    Refused,
    Stored,
    StoredInstead,
    Undone,
)
from runtime.core.unique import REPLACED, Accept, Find, Holder, Sole, Stand, decide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from runtime.adapters.memory.leases import Leases
    from runtime.adapters.memory.tables import Tables


@dataclass(slots=True)
class Plan:
    """What a group comes to: an answer per task, and the rows that are to be written."""

    answers: list[Acceptance] = field(default_factory=list)
    fresh: dict[UUID, TaskRow] = field(default_factory=dict)
    fresh_keys: dict[tuple[str, str], NewTask] = field(default_factory=dict)
    holders: dict[UUID, UniqueRow] = field(default_factory=dict)  # by unique id
    replaced: dict[UUID, UUID] = field(default_factory=dict)  # task -> the one that took its place

    @property
    def whole(self) -> bool:
        return not any(isinstance(answer, KeyReused | NotUnique | Refused) for answer in self.answers)

    def undone(self) -> list[Acceptance]:
        """The answers of a group that falls: what was there before stays, what would be new is undone."""
        return [
            Undone() if isinstance(answer, Stored | Duplicate) and answer.id in self.fresh else answer
            for answer in self.answers
        ]


def accept(
    tables: Tables, leases: Leases, groups: Sequence[Sequence[NewTask]], now: datetime
) -> list[list[Acceptance]]:
    answers = []
    for group in groups:
        plan = plan_group(tables, group, now)
        if plan.whole:
            write_group(tables, leases, plan, now)
        answers.append([_told(tables, one) for one in plan.answers] if plan.whole else plan.undone())
    return answers


def _told(tables: Tables, answer: Acceptance) -> Acceptance:
    """What was stored, now or before, says whether it runs where it was to be born."""
    if not isinstance(answer, Stored):
        return answer
    running = tables.running.get(answer.id)
    own = tables.tasks[answer.id].new.born_on
    return replace(answer, born=running is not None and (running.attempt, running.incarnation) == (1, own))


def plan_group(tables: Tables, group: Sequence[NewTask], now: datetime) -> Plan:
    plan = Plan()
    for new in group:
        plan.answers.append(_judge(tables, plan, new, now))
    if plan.whole and any(new.parents for new in group):
        _bind(tables, plan, group)
    return plan


def _bind(tables: Tables, plan: Plan, group: Sequence[NewTask]) -> None:
    """What was there before under its key stands for what is not stored; what depends on nothing there is refused."""
    answers = zip(group, list(plan.answers), strict=True)
    stand_ins = {new.id: one.id for new, one in answers if isinstance(one, Duplicate)}
    for place, new in enumerate(group):
        row = plan.fresh.get(new.id)
        if row is None or not new.parents:
            continue
        parents = tuple(dict.fromkeys(stand_ins.get(parent, parent) for parent in new.parents))
        plan.fresh[new.id] = replace(row, new=replace(new, parents=parents))
        for nth, parent in enumerate(new.parents):
            if not _exists(tables, plan, stand_ins.get(parent, parent), new.tenant):
                plan.answers[place] = Refused(f"there is no task {parent}", f"/depends_on/{nth}")
                break


def _exists(tables: Tables, plan: Plan, task_id: UUID, tenant: str) -> bool:
    row = plan.fresh.get(task_id) or tables.tasks.get(task_id)
    return row is not None and row.new.tenant == tenant


def write_group(tables: Tables, leases: Leases, plan: Plan, now: datetime) -> None:
    """Store a whole plan."""
    for row in plan.fresh.values():
        tables.insert(row)
        born_on = row.new.born_on
        plain = actor_of(row.new) is None  # messages to keyed actors wait for their turn
        if (
            plain
            and born_on is not None
            and not row.new.parents
            and row.run_at <= now
            and leases.alive(born_on, now)
        ):
            tables.run(_born(row, born_on, now))
        else:
            tables.wait(_first_wait(tables, row))
    for row in plan.fresh.values():
        if row.new.parents:
            link(tables, row.new.id, row.new.parents)
    for old, new in plan.replaced.items():
        tables.end_waiting(old, now, error=ErrorInfo(REPLACED, f"task {new} took its place"))
    tables.unique |= plan.holders


def _judge(tables: Tables, plan: Plan, new: NewTask, now: datetime) -> Acceptance:
    known = tables.tasks.get(new.id) or plan.fresh.get(new.id)
    if known is not None:  # a repeat after a lost answer
        return _stored(known)
    wrong = content.wrong_with_task(new)
    due = new.run_at or content.later(now, new.delay_s)
    if wrong is not None or due is None:
        return Refused(wrong or f"delay_s {new.delay_s} leads to no instant")
    if new.idempotency_key is not None:
        key = (new.tenant, new.idempotency_key)
        holder = plan.fresh_keys.get(key) or _holder(tables, key)
        if holder is not None:
            same = holder.digest == new.digest
            return Duplicate(holder.id) if same else KeyReused(holder.id, holder.digest or b"")
    replaced = None
    if new.unique is not None:
        placed = _take_place(tables, plan, new, new.unique, now, due)
        if not isinstance(placed, tuple):
            return placed
        new, due, replaced = placed
    if new.idempotency_key is not None:
        plan.fresh_keys[new.tenant, new.idempotency_key] = new
    row = plan.fresh[new.id] = TaskRow(new, tables.next_seq(), now, due)
    return _stored(row) if replaced is None else _stored_instead(tables, row, replaced)


def _holder(tables: Tables, key: tuple[str, str]) -> NewTask | None:
    task_id = tables.keys.get(key)
    return None if task_id is None else tables.tasks[task_id].new


# -- unique ------------------------------------------------------------------------------------------


def _take_place(
    tables: Tables, plan: Plan, new: NewTask, sole: Sole, now: datetime, due: datetime
) -> Acceptance | tuple[NewTask, datetime, UUID | None]:
    """The task as it is to be stored, its due time, and whose place it takes; or that it is not stored."""
    holder = _unique_holder(tables, plan, sole.id)
    decision = decide(sole.rule, holder, now, later=new.run_at is not None or new.delay_s > 0)
    if holder is not None and not isinstance(decision, Accept):
        return Duplicate(holder.id) if isinstance(decision, Find) else NotUnique(holder.id)
    assert isinstance(decision, Accept), "without a holder there is nothing to find"
    if decision.run_at is not None or decision.delay_s is not None:
        new = replace(new, run_at=decision.run_at, delay_s=decision.delay_s or 0.0)
        due = new.run_at or now + timedelta(seconds=new.delay_s)
    plan.holders[sole.id] = UniqueRow(
        task_id=new.id, first_at=decision.first_at, kept_until=decision.kept_until
    )
    if not decision.replaces or holder is None:
        return new, due, None
    plan.replaced[holder.id] = new.id
    return new, due, holder.id


def _unique_holder(tables: Tables, plan: Plan, unique: UUID) -> Holder | None:
    bound = plan.holders.get(unique) or tables.unique.get(unique)
    if bound is None:
        return None
    fresh = plan.fresh.get(bound.task_id)
    if fresh is not None:
        stand = Stand.WAITS if fresh.new.born_on is None else Stand.RUNS
        return Holder(bound.task_id, stand, fresh.created_at, bound.first_at, fresh.run_at)
    row, waiting = tables.tasks[bound.task_id], tables.waiting.get(bound.task_id)
    if waiting is not None:
        return Holder(bound.task_id, Stand.WAITS, row.created_at, bound.first_at, waiting.due)
    stand = Stand.ENDED if bound.task_id in tables.outcomes else Stand.RUNS
    return Holder(bound.task_id, stand, row.created_at, bound.first_at, row.run_at)


def _stored_instead(tables: Tables, row: TaskRow, replaced: UUID) -> StoredInstead:
    waiting = tables.waiting.get(replaced)  # else it is of this group
    begun = 0 if waiting is None else waiting.attempt - 1
    return StoredInstead(
        row.new.id, row.seq, row.created_at, row.run_at, replaced=replaced, replaced_attempt=begun
    )


# -- rows --------------------------------------------------------------------------------------------


def _stored(row: TaskRow) -> Stored:
    return Stored(row.new.id, row.seq, row.created_at, row.run_at)


def _born(row: TaskRow, incarnation: int, now: datetime) -> RunningRow:
    return RunningRow(
        id=row.new.id,
        incarnation=incarnation,
        seq=row.seq,
        started_at=now,
        expires_at=row.new.expires_at,
        band=row.new.band,
        attempt=1,
        limiter=row.new.limiter,
    )


def _first_wait(tables: Tables, row: TaskRow) -> WaitingRow:
    actor = actor_of(row.new)
    first = WaitingRow(
        id=row.new.id,
        due=row.run_at,
        seq=row.seq,
        expires_at=row.new.expires_at,
        band=row.new.band,
        attempt=1,
        actor=actor,
        lane=None if actor is None else tables.lane_of(row.new.band),
        limiter=row.new.limiter,
    )
    return blocked(first, row.new.parents) if row.new.parents else first
