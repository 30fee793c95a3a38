"""Accepting tasks: one transaction for a whole batch of groups.

Law: the answer is as if the groups had come one after the other, and a group is stored whole or not at all.
One statement inserts every row whose id and key are new; what it skips is read by a second one and judged:
an earlier commit of ours whose answer was lost, the same request, or another request under that key. A
group that falls takes the transaction with it, and the others are stored without it. Ids are chosen before,
so repeating a batch is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from runtime.adapters.postgres.linking import link
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import folded, text_array, unless_empty, uuid_of
from runtime.adapters.postgres.translate import ContentRefused, TryAgain, repeated, translated
from runtime.core.task import Acceptance, Duplicate, KeyReused, NewTask, NotUnique, Refused, Stored, Undone
from runtime.core.workflow import rows_of

if TYPE_CHECKING:
    from uuid import UUID

    import asyncpg

    from runtime.adapters.postgres.connections import Connections, Session

Group = Sequence[NewTask]
Key = tuple[str, str]  # tenant, idempotency key
_UNDONE: Final = Undone()


class Accepting:
    _connections: Connections

    async def accept(self, groups: Sequence[Group]) -> list[list[Acceptance]]:
        """Raises Unavailable, Overloaded."""
        answers: dict[int, list[Acceptance]] = {}
        rows = _rows(groups)
        if rows:
            async with self._connections.accept.deadline(rows):
                await self._accept_some(groups, range(len(groups)), answers)
        return [answers.get(place, []) for place in range(len(groups))]

    async def _accept_some(
        self, groups: Sequence[Group], places: Sequence[int], answers: dict[int, list[Acceptance]]
    ) -> None:
        """Where PostgreSQL refuses some row, halves go on their own until the guilty group stands alone."""
        some = [groups[place] for place in places]
        try:
            found = await repeated(lambda: self._accept_once(some))
        except ContentRefused as refused:
            if len(places) == 1:
                answers[places[0]] = await self._blame(some[0], refused.detail)
                return
            half = len(places) // 2
            await self._accept_some(groups, places[:half], answers)
            await self._accept_some(groups, places[half:], answers)
        else:
            answers.update(zip(places, found, strict=True))

    async def _accept_once(self, groups: Sequence[Group]) -> list[list[Acceptance]]:
        async with self._connections.accept.session(_rows(groups)) as session:
            return await accept_on(session, groups)

    async def _blame(self, group: Group, detail: str) -> list[Acceptance]:
        """What each task of a group comes to that holds a refused row: all is tried and taken back."""
        if len(group) == 1:
            return [Refused(detail)]
        async with self._connections.accept.session(len(group)) as session:
            bad = await refused_among(session, range(len(group)), group)
            if not bad:  # all fine one by one: what was refused is the batch as such
                return [Refused(detail)] * len(group)
            good = [task for place, task in enumerate(group) if place not in bad]
            async with session.trial():
                plan = Plan([good])
                judged = plan.judge(await insert(session, plan.leaders)) if good else []
        others = iter(undone(judged[0] or [], good) if judged else ())
        return [Refused(bad[place]) if place in bad else next(others, _UNDONE) for place in range(len(group))]


def _rows(groups: Sequence[Group]) -> int:
    """What time is given for. A single task has few parents, in comparison."""
    families = [group for group in groups if len(group) > 1]
    return sum(map(len, groups)) + rows_of(sum(len(task.parents) for group in families for task in group))


async def accept_on(session: Session, groups: Sequence[Group]) -> list[list[Acceptance]]:
    """One statement is the transaction where nothing can fall in part (Plan.separable)."""
    answers: dict[int, list[Acceptance]] = {}
    while True:
        places = [place for place in range(len(groups)) if place not in answers]
        plan = Plan([groups[place] for place in places])
        if plan.separable:
            judged = plan.judge(await insert(session, plan.leaders))
            fallen = False
        else:
            judged, fallen = await _insert_whole(session, plan)
        answers |= {
            place: answer
            for place, answer in zip(places, judged, strict=True)
            if answer is not None and (not fallen or falls(answer))
        }
        if len(answers) == len(groups):
            return [answers[place] for place in range(len(groups))]


async def _insert_whole(session: Session, plan: Plan) -> tuple[list[list[Acceptance] | None], bool]:
    """What the groups come to, and whether some fell, so that nothing was stored."""
    try:
        async with session.transaction():
            found = await insert(session, plan.leaders)
            judged = plan.judge(found)
            _raise_if_fallen(judged)
            missing = await link_new(session, plan, found, judged)
            _raise_if_fallen(plan.without(missing, judged) if missing else judged)
    except _FallenError as fallen:
        return fallen.judged, True
    return judged, False


def _raise_if_fallen(judged: list[list[Acceptance] | None]) -> None:
    if any(answer is None or falls(answer) for answer in judged):
        raise _FallenError(judged)


async def link_new(
    session: Session, plan: Plan, found: Found, judged: Sequence[Sequence[Acceptance] | None]
) -> set[UUID]:
    """Link what was inserted just now to what it depends on. Returns the parents that do not exist."""
    fresh = [task for task in plan.leaders if found.in_order is not None or task.id in found.stored]
    children = [task for task in fresh if task.parents]
    if not children:
        return set()
    return await link(session, children, (task.id for task in fresh if task.awaited), plan.stand_ins(judged))


class _FallenError(Exception):
    """Rolls the transaction back."""

    def __init__(self, judged: list[list[Acceptance] | None]) -> None:
        super().__init__()
        self.judged = judged


async def refused_among(session: Session, places: Sequence[int], group: Group) -> dict[int, str]:
    """Which rows are refused, with what PostgreSQL says; by halving, each half tried and taken back."""
    try:
        with translated():
            async with session.trial():
                await session.fetch(SQL.accept, *columns([group[place] for place in places]))
    except ContentRefused as refused:
        if len(places) == 1:
            return {places[0]: refused.detail}
        half = len(places) // 2
        first = await refused_among(session, places[:half], group)
        return first | await refused_among(session, places[half:], group)
    return {}


# -- one statement -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What the insert stored (mostly all, `in_order`), and what was there before, by id and by key."""

    in_order: Sequence[Stored] | None
    stored: Mapping[UUID, Stored]
    by_id: Mapping[UUID, Stored]
    by_key: Mapping[Key, tuple[UUID, bytes]]  # id, digest


async def insert(session: Session, tasks: Sequence[NewTask]) -> Found:
    pg_ids, seqs, at, dues, born = await session.only(SQL.accept, *columns(tasks))
    ids = [task.id for task in tasks] if pg_ids is None else list(map(uuid_of, pg_ids))
    due_at = repeat(at) if dues is None else dues
    is_born = repeat(born[0]) if len(born) == 1 else born
    new = [Stored(*each) for each in zip(ids, seqs, repeat(at), due_at, is_born, strict=False)]
    if pg_ids is None:
        return Found(new, {}, {}, {})
    stored = {one.id: one for one in new}
    missing = [task for task in tasks if task.id not in stored]
    keyed = [task for task in missing if task.idempotency_key is not None]
    existing = await session.fetch(
        SQL.existing,
        [task.id for task in missing],
        [task.tenant for task in keyed],
        [task.idempotency_key for task in keyed],
    )
    return Found(None, stored, *by_id_and_key(existing))


def by_id_and_key(
    rows: Sequence[asyncpg.Record],
) -> tuple[dict[UUID, Stored], dict[Key, tuple[UUID, bytes]]]:
    by_id: dict[UUID, Stored] = {}
    by_key: dict[Key, tuple[UUID, bytes]] = {}
    for pg_id, tenant, key, digest, seq, created_at, run_at, born in rows:
        task_id = uuid_of(pg_id)
        by_id[task_id] = Stored(task_id, seq, created_at, run_at, born)
        if key is not None:
            by_key[tenant, key] = (task_id, digest or b"")
    return by_id, by_key


def columns(tasks: Sequence[NewTask]) -> list[list[Any]]:
    """The parameters of `accept`, which says when a column has one value or none."""
    return [
        [task.id for task in tasks],
        folded([task.band for task in tasks]),
        [task.slot for task in tasks],
        [task.payload for task in tasks],
        folded([task.max_attempts for task in tasks]),
        folded([task.timeout_s for task in tasks]),
        folded([task.tenant for task in tasks]),
        *(unless_empty(list(map(value_of, tasks))) for value_of in _BEFORE_BORN_ON),
        folded([task.born_on for task in tasks]),
        *(unless_empty(list(map(value_of, tasks))) for value_of in _AFTER_BORN_ON),
    ]


_BEFORE_BORN_ON: Final[tuple[Callable[[NewTask], Any], ...]] = (
    attrgetter("idempotency_key"),
    attrgetter("digest"),
    lambda task: task.delay_s or None,
)
_AFTER_BORN_ON: Final[tuple[Callable[[NewTask], Any], ...]] = (
    lambda task: task.created_by or None,
    attrgetter("trace_context"),
    attrgetter("actor_type"),
    attrgetter("actor_key"),
    lambda task: text_array(task.prefers) if task.prefers else None,
    attrgetter("run_at"),
    attrgetter("expires_at"),
    attrgetter("metadata"),
    attrgetter("workflow_id"),
    lambda task: int(task.payload_codec) or None,
    attrgetter("payload_key"),
    attrgetter("payload_ref"),
    attrgetter("limit_key"),
    attrgetter("limiter"),
    lambda task: text_array(map(str, task.parents)) if task.parents else None,
    attrgetter("name"),
    lambda task: int(task.on_parent_failure) if task.parents else None,
    lambda task: task.awaited or None,
)


# -- judging -----------------------------------------------------------------------------------------


class Plan:
    """Groups with equal keys folded: of each key the first task (its leader) is sent, the others follow."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._leader_of: dict[Key, NewTask] = {}
        self.leaders: list[NewTask] = []
        self.separable = True  # no group could be stored in part
        self._followers = False
        for group in groups:
            for task in group:
                if task.parents:
                    self.separable = False
                if task.idempotency_key is None:
                    self.leaders.append(task)
                    continue
                self.separable = self.separable and len(group) == 1
                if self._leader_of.setdefault((task.tenant, task.idempotency_key), task) is task:
                    self.leaders.append(task)
                else:
                    self._followers = True

    def judge(self, found: Found) -> list[list[Acceptance] | None]:
        """One answer per task; None for a group that depends on one that fell: to be judged anew."""
        if found.in_order is not None:
            if not self._followers:
                each = iter(found.in_order)
                return [list(islice(each, len(group))) for group in self._groups]
            found = replace(found, in_order=None, stored={one.id: one for one in found.in_order})
        fallen: set[UUID] = set()
        answers: list[list[Acceptance] | None] = []
        for group in self._groups:
            if fallen and any(
                task.id not in found.stored and self._leader(task).id in fallen for task in group
            ):
                answers.append(None)
                continue
            answer = [self._judge_one(task, found) for task in group]
            if falls(answer):
                fallen.update(task.id for task in group)
                answer = undone(answer, group)
            answers.append(answer)
        return answers

    def stand_ins(self, judged: Sequence[Sequence[Acceptance] | None]) -> dict[UUID, UUID]:
        """Which tasks stand for those that were found under their key."""
        if not self._leader_of:
            return {}
        return {
            task.id: one.id
            for group, answer in zip(self._groups, judged, strict=True)
            for task, one in zip(group, answer or (), strict=False)
            if isinstance(one, Duplicate)
        }

    def without(
        self, missing: set[UUID], judged: list[list[Acceptance] | None]
    ) -> list[list[Acceptance] | None]:
        """Those groups fall that depend on something that is not there."""
        answers = list(judged)
        for place, group in enumerate(self._groups):
            if any(missing.intersection(task.parents) for task in group):
                met = [
                    _missing(task, missing) or one
                    for task, one in zip(group, judged[place] or (), strict=True)
                ]
                answers[place] = undone(met, group)
        return answers

    def _leader(self, task: NewTask) -> NewTask:
        return task if task.idempotency_key is None else self._leader_of[task.tenant, task.idempotency_key]

    def _judge_one(self, task: NewTask, found: Found) -> Acceptance:
        stored = found.stored.get(task.id) or found.by_id.get(task.id)
        if stored is not None:
            return stored
        leader = self._leader(task)
        holder = found.by_key.get((task.tenant, task.idempotency_key or ""))
        if holder is None and leader is task:  # what was in its way is gone again (retention)
            raise TryAgain(f"task {task.id} was neither stored nor found")
        holder_id, digest = holder or (leader.id, leader.digest or b"")
        return Duplicate(holder_id) if digest == task.digest else KeyReused(holder_id, digest)


def falls(answer: Sequence[Acceptance]) -> bool:
    return any(isinstance(one, KeyReused | NotUnique | Refused) for one in answer)


def _missing(task: NewTask, missing: set[UUID]) -> Refused | None:
    for nth, parent in enumerate(task.parents):
        if parent in missing:
            return Refused(f"there is no task {parent}", f"/depends_on/{nth}")
    return None


def undone(answer: Sequence[Acceptance], group: Group) -> list[Acceptance]:
    """The answers of a group that falls: what was there before stays, what would be new is undone."""
    ids = {task.id for task in group}
    return [
        _UNDONE if isinstance(one, Stored) or (isinstance(one, Duplicate) and one.id in ids) else one
        for one in answer
    ]
