"""Accepting unique tasks: beside the way of all others, on connections of its own.

Law: the lock is the row of the unique id; what stands under it is read after the lock, from the tables of tasks, and
decided by runtime.core.unique. Groups are judged one after the other, as the memory store does, then written at once.
Whatever else happened meanwhile (an equal idempotency key) shows as a row too few, and all is done again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Final

from runtime.adapters.postgres.accepting import (
    Accepting,
    Group,
    Key,
    by_id_and_key,
    falls,
    insert,
    refused_among,
    undone,
)
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import uuid_of
from runtime.adapters.postgres.translate import ContentRefused, TryAgain, repeated
from runtime.core.task import (
    Acceptance,
    Duplicate,
    KeyReused,
    NewTask,
    NotUnique,
    Refused,
    Stored,
    StoredInstead,
)
from runtime.core.unique import Accept, Find, Holder, Sole, Stand, decide

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    import asyncpg

    from runtime.adapters.postgres.connections import Session

_MOVABLE: Final = frozenset({"replace", "debounce"})


class Uniques(Accepting):
    async def accept(self, groups: Sequence[Group]) -> list[list[Acceptance]]:
        """Raises Unavailable, Overloaded."""
        if not any(task.unique is not None for group in groups for task in group):
            return await super().accept(groups)
        answers: list[list[Acceptance]] = []
        for unique, run in groupby(groups, key=_has_unique):
            some = list(run)
            answers += await (self._accept_unique(some) if unique else super().accept(some))
        return answers

    async def _accept_unique(self, groups: Sequence[Group]) -> list[list[Acceptance]]:
        async with self._connections.unique.deadline(sum(map(len, groups))):
            return await self._accept_unique_some(groups)

    async def _accept_unique_some(self, groups: Sequence[Group]) -> list[list[Acceptance]]:
        """Where PostgreSQL refuses some row, halves go on their own until the guilty group stands alone."""
        try:
            return await repeated(lambda: self._accept_unique_once(groups))
        except ContentRefused as refused:
            if len(groups) == 1:
                return [await self._blame_unique(groups[0], refused.detail)]
        half = len(groups) // 2
        first = await self._accept_unique_some(groups[:half])
        return first + await self._accept_unique_some(groups[half:])

    async def _accept_unique_once(self, groups: Sequence[Group]) -> list[list[Acceptance]]:
        async with (
            self._connections.unique.session(sum(map(len, groups))) as session,
            session.transaction(),
        ):
            judge = await _look(session, groups)
            answers = [judge.judge(group) for group in groups]
            stored = await _write(session, judge)
        return [
            [stored.get(one.id, one) if isinstance(one, Stored) else one for one in group]
            for group in answers
        ]

    async def _blame_unique(self, group: Group, detail: str) -> list[Acceptance]:
        """What each task of a group comes to that holds a refused row; nothing of it remains."""
        async with self._connections.unique.session(len(group)) as session:
            bad = await refused_among(session, range(len(group)), group)
            good = [task for place, task in enumerate(group) if place not in bad]
            if not bad or not good:
                return [Refused(bad.get(place, detail)) for place in range(len(group))]
            async with session.trial():
                judged = (await _look(session, [good])).judge(good)
        others = iter(undone(judged, good))
        return [Refused(bad[place]) if place in bad else next(others) for place in range(len(group))]


def _has_unique(group: Group) -> bool:
    return any(task.unique is not None for task in group)


# -- looking -----------------------------------------------------------------------------------------


async def _look(session: Session, groups: Sequence[Group]) -> _Judge:
    """Lock the unique ids of these, and read all that there is of them."""
    tasks = [task for group in groups for task in group]
    soles = [task.unique for task in tasks if task.unique is not None]
    locked = await session.fetch(SQL.unique_lock, sorted({sole.id for sole in soles}))
    bound = {uuid_of(row[0]): (row[1], row[2]) for row in locked}
    keyed = [task for task in tasks if task.idempotency_key is not None]
    existing = await session.fetch(
        SQL.existing,
        [task.id for task in tasks],
        [task.tenant for task in keyed],
        [task.idempotency_key for task in keyed],
    )
    movable = {bound[sole.id][0] for sole in soles if sole.rule.mode in _MOVABLE} - {None}
    if movable:
        await session.fetch(SQL.unique_hold, sorted(movable))
    rows = await session.fetch(SQL.unique_holders, [task_id for task_id, _ in bound.values() if task_id])
    unbound = {unique for unique, (task_id, _) in bound.items() if task_id is None}
    return _Judge(rows[0]["now"], *by_id_and_key(existing), _holders(bound, rows), unbound)


def _holders(
    bound: Mapping[UUID, tuple[UUID | None, datetime]], rows: Sequence[asyncpg.Record]
) -> dict[UUID, Holder]:
    """By unique id. A task that is not there any more holds nothing."""
    found = {row["id"]: row for row in rows if row["id"] is not None}
    holders: dict[UUID, Holder] = {}
    for unique, (task_id, first_at) in bound.items():
        row = found.get(task_id)
        if row is not None:
            stand = Stand.WAITS if row["waits"] else Stand.ENDED if row["ended"] else Stand.RUNS
            holders[unique] = Holder(uuid_of(row["id"]), stand, row["created_at"], first_at, row["due"])
    return holders


# -- judging -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Changes:
    """What accepting some groups comes to."""

    tasks: dict[UUID, NewTask] = field(default_factory=dict)
    keys: dict[Key, tuple[UUID, bytes]] = field(default_factory=dict)
    holders: dict[UUID, Holder] = field(default_factory=dict)  # by unique id
    kept_until: dict[UUID, datetime | None] = field(default_factory=dict)
    replaced: dict[UUID, UUID] = field(default_factory=dict)  # task -> the one that took its place

    def add(self, more: _Changes) -> None:
        self.tasks |= more.tasks
        self.keys |= more.keys
        self.holders |= more.holders
        self.kept_until |= more.kept_until
        self.replaced |= more.replaced


class _Judge:
    """Takes groups one after the other. What is stored is answered as if, until the record has numbered it."""

    def __init__(
        self,
        now: datetime,
        by_id: Mapping[UUID, Stored],
        by_key: Mapping[Key, tuple[UUID, bytes]],
        holders: Mapping[UUID, Holder],
        unbound: Collection[UUID],
    ) -> None:
        self.now = now
        self.unbound = unbound  # unique ids that had no task yet
        self.changes = _Changes()
        self._by_id = by_id
        self._known = _Changes(keys=dict(by_key), holders=dict(holders))

    def judge(self, group: Group) -> list[Acceptance]:
        changes = _Changes()
        answers = [self._judge_one(task, changes) for task in group]
        if falls(answers):
            return undone(answers, group)
        self.changes.add(changes)
        self._known.add(changes)
        return answers

    def _judge_one(self, task: NewTask, changes: _Changes) -> Acceptance:
        if task.id in self._by_id:
            return self._by_id[task.id]
        if task.id in changes.tasks or task.id in self._known.tasks:  # the same task twice in one batch
            return Stored(task.id, 0, self.now, self.now)
        if task.idempotency_key is not None:
            key = (task.tenant, task.idempotency_key)
            owner = changes.keys.get(key) or self._known.keys.get(key)
            if owner is not None:
                return Duplicate(owner[0]) if owner[1] == task.digest else KeyReused(*owner)
        if task.unique is not None:
            answer = self._take_place(task, task.unique, changes)
            if answer is not None:
                return answer
        else:
            changes.tasks[task.id] = task
        if task.idempotency_key is not None:
            changes.keys[task.tenant, task.idempotency_key] = (task.id, task.digest or b"")
        return Stored(task.id, 0, self.now, self.now)

    def _take_place(self, task: NewTask, sole: Sole, changes: _Changes) -> Acceptance | None:
        """None: it is the holder now."""
        holder = changes.holders.get(sole.id) or self._known.holders.get(sole.id)
        later = task.run_at is not None or task.delay_s > 0
        decision = decide(sole.rule, holder, self.now, later=later)
        if holder is not None and not isinstance(decision, Accept):
            return Duplicate(holder.id) if isinstance(decision, Find) else NotUnique(holder.id)
        assert isinstance(decision, Accept), "without a holder there is nothing to find"
        if decision.run_at is not None or decision.delay_s is not None:
            task = replace(task, run_at=decision.run_at, delay_s=decision.delay_s or 0.0)
        if decision.replaces and holder is not None:
            changes.replaced[holder.id] = task.id
        stand = Stand.WAITS if task.born_on is None else Stand.RUNS
        due = task.run_at or self.now + timedelta(seconds=task.delay_s)
        changes.tasks[task.id] = task
        changes.holders[sole.id] = Holder(task.id, stand, self.now, decision.first_at, due)
        changes.kept_until[sole.id] = decision.kept_until
        return None


# -- writing -----------------------------------------------------------------------------------------


async def _write(session: Session, judge: _Judge) -> dict[UUID, Stored]:
    """What the record says of those that are new."""
    changes = judge.changes
    stored: dict[UUID, Stored] = {}
    if changes.tasks:
        found = await insert(session, list(changes.tasks.values()))
        if found.in_order is None:  # somebody else has stored an equal idempotency key meanwhile
            raise TryAgain("a task was there that was not there before")
        stored = {one.id: one for one in found.in_order}
    if changes.replaced:
        stored |= await _replace(session, changes.replaced, stored)
    held = sorted(changes.holders.items())
    if held:
        await session.fetch(
            SQL.unique_bind,
            [unique for unique, _ in held],
            [holder.id for _, holder in held],
            [holder.first_at for _, holder in held],
            [changes.kept_until[unique] for unique, _ in held],
        )
    if left := sorted(set(judge.unbound) - changes.holders.keys()):
        await session.fetch(SQL.unique_free, left)
    return stored


async def _replace(
    session: Session, replaced: Mapping[UUID, UUID], stored: Mapping[UUID, Stored]
) -> dict[UUID, Stored]:
    """Cancel these; the answers of those that took their places."""
    pairs = sorted(replaced.items())
    rows = await session.fetch(SQL.unique_replace, [old for old, _ in pairs], [new for _, new in pairs])
    if len(rows) < len(pairs):
        raise TryAgain("a task that was to be replaced did not wait any more")
    attempts = {uuid_of(row[0]): row[1] for row in rows}
    answers: dict[UUID, Stored] = {}
    for old, new in pairs:
        one = stored[new]
        answers[new] = StoredInstead(
            one.id,
            one.seq,
            one.created_at,
            one.due,
            one.born,
            replaced=old,
            replaced_attempt=attempts[old],
        )
    return answers
