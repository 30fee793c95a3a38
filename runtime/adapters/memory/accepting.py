"""Accepting tasks: what each group comes to, then its rows.

Law: a group is planned completely before anything of it is written, so that it is stored whole or not at all.
Groups are taken one after the other; of equal keys the first one stored is the task, the others find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from runtime.adapters.memory import content
from runtime.adapters.memory.leases import Leases
from runtime.adapters.memory.rows import RunningRow, TaskRow, WaitingRow
from runtime.adapters.memory.tables import Tables
from runtime.core.task import Acceptance, Duplicate, KeyReused, NewTask, Refused, Stored, Undone


@dataclass(slots=True)
class Plan:
    """What a group comes to. Items are final answers, or the task that is to be written."""

    items: list[Acceptance | NewTask] = field(default_factory=list)
    fresh: dict[UUID, NewTask] = field(default_factory=dict)
    fresh_keys: dict[tuple[str, str], NewTask] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return not any(isinstance(item, KeyReused | Refused) for item in self.items)

    def undone(self) -> list[Acceptance]:
        """The answers of a group that falls."""
        return [
            Undone()
            if isinstance(item, NewTask) or (isinstance(item, Duplicate) and item.id in self.fresh)
            else item
            for item in self.items
        ]


def accept(
    tables: Tables, leases: Leases, groups: Sequence[Sequence[NewTask]], now: datetime
) -> list[list[Acceptance]]:
    answers = []
    for group in groups:
        plan = plan_group(tables, group, now)
        answers.append(write_group(tables, leases, plan, now) if plan.whole else plan.undone())
    return answers


def plan_group(tables: Tables, group: Sequence[NewTask], now: datetime) -> Plan:
    plan = Plan()
    for new in group:
        item = _judge(tables, plan, new, now)
        plan.items.append(item)
        if item is new and new.id not in plan.fresh:
            plan.fresh[new.id] = new
            if new.idempotency_key is not None:
                plan.fresh_keys[new.tenant, new.idempotency_key] = new
    return plan


def write_group(tables: Tables, leases: Leases, plan: Plan, now: datetime) -> list[Acceptance]:
    """Store a whole plan; its answers in order."""
    stored = {task_id: _store(tables, leases, new, now) for task_id, new in plan.fresh.items()}
    return [stored[item.id] if isinstance(item, NewTask) else item for item in plan.items]


def _judge(tables: Tables, plan: Plan, new: NewTask, now: datetime) -> Acceptance | NewTask:
    known = tables.tasks.get(new.id)
    if known is not None:  # a repeat after a lost answer
        return Stored(new.id, known.seq, known.created_at, known.run_at)
    wrong = content.wrong_with_task(new)
    if wrong is None and _first_due(new, now) is None:
        wrong = f"delay_s {new.delay_s} leads to no instant"
    if wrong is not None:
        return Refused(wrong)
    if new.idempotency_key is None or new.id in plan.fresh:
        return new
    key = (new.tenant, new.idempotency_key)
    holder = plan.fresh_keys.get(key)
    if holder is None and key in tables.keys:
        holder = tables.tasks[tables.keys[key]].new
    if holder is None:
        return new
    if holder.digest == new.digest:
        return Duplicate(holder.id)
    return KeyReused(holder.id, holder.digest or b"")


def _first_due(new: NewTask, now: datetime) -> datetime | None:
    return new.run_at or content.later(now, new.delay_s)


def _store(tables: Tables, leases: Leases, new: NewTask, now: datetime) -> Stored:
    due = _first_due(new, now)
    assert due is not None, "a plan holds no task that could not be dated"
    row = TaskRow(new, tables.next_seq(), now, due)
    tables.insert(row)
    if new.born_on is not None and due <= now and leases.alive(new.born_on, now):
        tables.run(
            RunningRow(
                id=new.id,
                incarnation=new.born_on,
                seq=row.seq,
                started_at=now,
                expires_at=new.expires_at,
                band=new.band,
                attempt=1,
            )
        )
    else:
        tables.wait(
            WaitingRow(id=new.id, due=due, seq=row.seq, expires_at=new.expires_at, band=new.band, attempt=1)
        )
    return Stored(new.id, row.seq, row.created_at, due)
