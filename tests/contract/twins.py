"""The same operations on two stores, and what must be equal afterwards.

Numbers that a store gives out (incarnations, bands, seq) differ between the two; they are compared by what
they stand for: the member's or band's place, and the order of seq. Instants are compared by their distance
from now in steps of ten seconds; every duration in use keeps clear of the edges, so a slow test crosses none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from runtime.core.task import (
    Acceptance,
    AttemptKind,
    Finish,
    Lane,
    NewTask,
    Orphan,
    Progress,
    Reason,
    Refused,
    Requeue,
    Settlement,
    Status,
    Stored,
    StoredInstead,
    Take,
    TaskFilter,
)
from runtime.core.unique import Sole, Unique
from runtime.errors import NoriaError
from tests.contract.world import ALL
from tests.support.factories import band_key, error, new_id, new_task

if TYPE_CHECKING:
    from runtime.core.task import Claim
    from tests.contract.world import World

# Time passes in multiples of 30 s; nothing that is waited for is one (remainders 10 and 20; of the
# 110 s of a lease 80 and 50 left are in time, 20 left are not).
TICKS_S: Final = (30.0, 90.0, 900.0)
DELAY_S: Final = 50.0
EXPIRY_S: Final = 160.0
LEASE_S: Final = 110.0
KEPT_S: Final = 100.0
KEYS_KEPT_S: Final = 200.0
SINCE_S: Final = 45.0
BANDS: Final = (band_key("echo"), band_key("slow", Lane.LOW, requires=("gpu",)))


RULES: Final = (
    Unique(mode="reject"),
    Unique(mode="existing"),
    Unique(mode="existing", until="started"),
    Unique(mode="reject", for_s=100.0),
    Unique(mode="throttle", for_s=400.0),
    Unique(mode="replace"),
    Unique(mode="debounce", for_s=40.0, max_s=80.0),
)


@dataclass
class Side:
    """One of the two stores with the numbers it gave out, by place."""

    world: World
    members: list[int] = field(default_factory=list)
    bands: list[int] = field(default_factory=list)
    seqs: dict[UUID, int] = field(default_factory=dict)

    def band_place(self, band: int) -> tuple[int, int]:
        return (1 if band > 0 else -1), self.bands.index(abs(band))

    def saw(self, task_id: UUID, seq: int) -> None:
        """A task's seq never changes."""
        assert self.seqs.setdefault(task_id, seq) == seq


Action = Callable[[Side], Awaitable[object]]


@dataclass
class Cast:
    """What operations may name: the same for both sides."""

    tasks: list[UUID] = field(default_factory=list)
    running: list[tuple[UUID, int, int]] = field(default_factory=list)  # id, attempt, member's place
    attempts: dict[UUID, int] = field(default_factory=dict)  # that run next or now
    members: int = 0
    last_accept: list[list[tuple[NewTask, int, int | None]]] = field(default_factory=list)

    def task(self, number: int) -> UUID:
        return self.tasks[number % len(self.tasks)] if self.tasks else new_id()


# -- operations: data that says what to do, planned once, done on both sides -------------------------


@dataclass(frozen=True)
class Spec:
    """A task to be: which band, key, request and so on, by small numbers."""

    band: int
    key: int | None
    request: str
    delayed: bool
    expires: bool
    born_on: int | None
    bad: bool
    unique: tuple[int, int] | None = None  # unique id, place of its rule

    def make(self) -> NewTask:
        return new_task(
            key=None if self.key is None else f"k{self.key}",
            request=self.request,
            delay_s=DELAY_S if self.delayed else 0.0,
            metadata=b'{"a": 1}' if self.request == "b" else None,
            unique=None if self.unique is None else Sole(UUID(int=self.unique[0]), RULES[self.unique[1]]),
            # what is folded into an equal key need not be looked at, so a bad row has none
            **({"slot": 5_000} if self.bad and self.key is None else {}),
        )


def settle_in(side: Side, now: datetime, task: NewTask, spec: Spec, members: int) -> NewTask:
    """The task with the numbers of this side."""
    return replace(
        task,
        band=side.bands[spec.band],
        expires_at=now + timedelta(seconds=EXPIRY_S) if spec.expires else None,
        born_on=None if spec.born_on is None else side.members[spec.born_on % members],
    )


@dataclass(frozen=True)
class Accept:
    groups: list[list[Spec]]

    def plan(self, cast: Cast) -> Action:
        made = [[(spec.make(), spec) for spec in _judged_alike(group)] for group in self.groups]
        cast.tasks += [task.id for group in made for task, _ in group]
        members = cast.members

        async def act(side: Side) -> object:
            now = await side.world.store.now()
            batch = [[settle_in(side, now, task, spec, members) for task, spec in group] for group in made]
            answers = await side.world.store.accept(batch)
            again = await side.world.store.accept(batch)  # a repeat after a lost answer
            plain = [[plain_acceptance(side, answer) for answer in group] for group in answers]
            return plain, [[plain_acceptance(side, answer) for answer in group] for group in again]

        return act


def _judged_alike(group: list[Spec]) -> list[Spec]:
    """A group with a unique task may fall for that before its rows are looked at, so it has no bad ones. And whether a
    birth is refused, because its lease has run out, is known to the others of its batch in one of the stores only."""
    unique = any(spec.unique is not None for spec in group)
    return [replace(spec, bad=False, born_on=None) for spec in group] if unique else group


@dataclass(frozen=True)
class ClaimOffers:
    offers: list[tuple[int, int]]  # task's number, how far off its attempt is
    member: int

    def plan(self, cast: Cast) -> Action:
        ids = [(cast.task(number), off) for number, off in self.offers]
        offers = [(task_id, cast.attempts.get(task_id, 1) + off) for task_id, off in ids]

        async def act(side: Side) -> object:
            claims = await side.world.store.claim(offers, side.members[self.member % len(side.members)])
            return sorted((plain_claim(side, claim) for claim in claims), key=lambda claim: str(claim["id"]))

        return act


@dataclass(frozen=True)
class Pull:
    takes: list[tuple[int, bool, int, bool]]  # band's place, suspects, limit, with a watermark; one per band
    member: int

    def plan(self, cast: Cast) -> Action:
        async def act(side: Side) -> object:
            since = await side.world.store.now() - timedelta(seconds=SINCE_S)
            takes = [
                Take(-side.bands[place] if suspects else side.bands[place], limit, since if marked else None)
                for place, suspects, limit, marked in self.takes
            ]
            alone = any(suspects for _, suspects, _, _ in self.takes)
            member = side.members[self.member % len(side.members)]
            claims = await side.world.store.pull(takes, member, alone=alone)
            by_band: dict[str, list[object]] = {}
            for claim in claims:  # in order within a band
                by_band.setdefault(str(side.band_place(claim.band)), []).append(plain_claim(side, claim))
            return by_band

        return act


@dataclass(frozen=True)
class Move:
    """How an attempt ends: a status, or the kind of a requeue."""

    status: Status | None
    kind: AttemptKind
    delayed: bool
    suspect: bool
    failures: int
    crashes: int
    children: list[Spec]
    bad: bool

    def make(self, cast: Cast) -> tuple[Finish | Requeue, list[tuple[NewTask, Spec]]]:
        problem = error("a\0b") if self.bad else error()
        if self.status is None:
            delay_s = DELAY_S if self.delayed else 0.0
            move = Requeue(
                kind=self.kind,
                delay_s=delay_s,
                reason=Reason.RETRY_BACKOFF if self.delayed else Reason.RELEASED,
                failures=self.failures,
                crashes=self.crashes,
                error=problem,
                suspect=self.suspect,
            )
            return move, []
        children = [(spec.make(), spec) for spec in self.children]
        cast.tasks += [task.id for task, _ in children]
        good = self.status is Status.SUCCEEDED
        return (
            Finish(
                status=self.status,
                result=b"r" if good else None,
                error=None if good and not self.bad else problem,
                failures=self.failures,
                crashes=self.crashes,
            ),
            children,
        )


@dataclass(frozen=True)
class Settle:
    ends: list[tuple[int, int, int, Move]]  # running task's number, attempt off by, member off by, move

    def plan(self, cast: Cast) -> Action:
        running = cast.running or [(new_id(), 1, 0)]
        planned = []
        for number, attempt_off, member_off, move in self.ends:
            task_id, attempt, member = running[number % len(running)]
            planned.append((task_id, attempt + attempt_off, member + member_off, *move.make(cast)))
        planned.sort(key=lambda end: end[0])  # whose child with an equal key is the one stored is open else
        members = cast.members

        async def act(side: Side) -> object:
            now = await side.world.store.now()
            settlements = []
            for task_id, attempt, member, move, children in planned:
                born = tuple(settle_in(side, now, task, spec, members) for task, spec in children)
                end = replace(move, children=born) if isinstance(move, Finish) else move
                settlements.append(Settlement(task_id, attempt, side.members[member % members], end))
            store = side.world.store
            return await store.settle(settlements), await store.settle(settlements)

        return act


@dataclass(frozen=True)
class Repair:
    """What the janitor does: orphans go back to waiting, or become dead letters."""

    crashes_max: int

    def plan(self, cast: Cast) -> Action:
        async def act(side: Side) -> object:
            orphans = await side.world.store.orphans(ALL)
            ends = [
                Settlement(orphan.id, orphan.attempt, orphan.incarnation, self._end(orphan))
                for orphan in orphans
            ]
            return sorted(
                map(str, (plain_orphan(side, orphan) for orphan in orphans))
            ), await side.world.store.settle(ends)

        return act

    def _end(self, orphan: Orphan) -> Finish | Requeue:
        crashes = orphan.crashes + 1
        if crashes > self.crashes_max:
            return Finish(
                status=Status.FAILED, failures=orphan.failures, crashes=crashes, error=error("crashed")
            )
        return Requeue(
            kind=AttemptKind.CRASHED,
            delay_s=0.0,
            reason=Reason.CRASHED,
            failures=orphan.failures,
            crashes=crashes,
            suspect=crashes > 1,
        )


@dataclass(frozen=True)
class Control:
    """cancel and replay of one task; `get` for good measure."""

    name: str
    task: int

    def plan(self, cast: Cast) -> Action:
        task_id = cast.task(self.task)

        async def act(side: Side) -> object:
            view = await getattr(side.world.store, self.name)(task_id)
            return None if view is None else await plain(side, view)

        return act


@dataclass(frozen=True)
class Matching:
    name: str
    which: TaskFilter
    dry_run: bool

    def plan(self, cast: Cast) -> Action:
        async def act(side: Side) -> object:
            operation = getattr(side.world.store, f"{self.name}_matching")
            matched: tuple[int, int] = await operation(self.which, ALL, dry_run=self.dry_run)
            return matched

        return act


@dataclass(frozen=True)
class Tell:
    """Progress of what runs, some of it of attempts that are over."""

    reports: list[tuple[int, int]]
    member: int

    def plan(self, cast: Cast) -> Action:
        running = cast.running or [(new_id(), 1, 0)]
        told = [(running[number % len(running)], off) for number, off in self.reports]
        reports = {(one[0], one[1] + off): Progress(done=off, message="ü") for one, off in told}

        async def act(side: Side) -> object:
            member = side.members[self.member % len(side.members)]
            await side.world.store.report_progress(member, reports)
            return None

        return act


@dataclass(frozen=True)
class Simple:
    """Operations without anything to plan."""

    name: str
    member: int = 0
    value: float = 0.0

    def plan(self, cast: Cast) -> Action:
        cast.members += self.name == "join"

        async def act(side: Side) -> object:
            store, member = side.world.store, side.members[self.member % len(side.members)]
            match self.name:
                case "advance":
                    await side.world.advance(self.value)
                case "expire":
                    return sorted(await store.expire(ALL))
                case "forget":
                    return await forgotten(side)
                case "join":
                    side.members.append(await store.join(f"n{self.member}", self.value, {"m": self.member}))
                case "renew":
                    return await store.renew(member, self.value)
                case "bury":
                    return sorted(side.members.index(dead) for dead in await store.bury(member, LEASE_S))
                case state:
                    await store.set_state(member, state)
            return None

        return act


@dataclass(frozen=True)
class Death:
    """A member's lease runs out while the others keep theirs, and each of these tries to bury it."""

    member: int

    def plan(self, cast: Cast) -> Action:
        async def act(side: Side) -> object:
            store, doomed = side.world.store, side.members[self.member % len(side.members)]
            nodes = [node for node in await store.nodes() if node.state not in {"left", "dead"}]
            others = sorted(node.incarnation for node in nodes if node.incarnation != doomed)
            for _ in range(5):
                for other in others:
                    await store.renew(other, LEASE_S)
                await side.world.advance(TICKS_S[0])
            return [sorted(map(side.members.index, await store.bury(other, LEASE_S))) for other in others]

        return act


async def forgotten(side: Side) -> int:
    gone = 0
    while count := await side.world.store.forget(
        finished_before_s=KEPT_S, keys_before_s=KEYS_KEPT_S, limit=3
    ):
        gone += count
    return gone


Operation = Accept | ClaimOffers | Pull | Settle | Repair | Control | Matching | Tell | Simple | Death


# -- what is compared --------------------------------------------------------------------------------


def plain_acceptance(side: Side, answer: Acceptance) -> object:
    if isinstance(answer, Stored):
        side.saw(answer.id, answer.seq)
        instead = (answer.replaced, answer.replaced_attempt) if isinstance(answer, StoredInstead) else None
        return "stored", answer.id, tens((answer.due - answer.created_at).total_seconds()), instead
    return "refused" if isinstance(answer, Refused) else answer


def plain_claim(side: Side, claim: Claim) -> dict[str, object]:
    side.saw(claim.id, claim.seq)
    unequal = {"seq": None, "started_at": None, "created_at": None}
    metadata = None if claim.metadata is None else orjson.loads(claim.metadata)
    return {
        **{each.name: getattr(claim, each.name) for each in fields(claim)},
        **unequal,
        "band": side.band_place(claim.band),
        "waited_s": tens(claim.waited_s),
        "metadata": metadata,
    }


def plain_orphan(side: Side, orphan: Orphan) -> Orphan:
    sign, place = side.band_place(orphan.band)
    return replace(orphan, incarnation=side.members.index(orphan.incarnation), band=sign * (place + 1))


def tens(seconds: float) -> int:
    """Whole tens of seconds, nearest; the edges lie five seconds from every value in use."""
    return int((seconds + 5) // 10)


async def plain(side: Side, record: Any) -> dict[str, object]:
    """A record by field, its instants as distances from now."""
    now = await side.world.store.now()
    return {each.name: plain_value(getattr(record, each.name), now) for each in fields(record)}


def plain_value(value: object, now: datetime) -> object:
    match value:
        case datetime():
            return tens((value - now).total_seconds())
        case bytes() if value.startswith(b"{"):
            return orjson.loads(value)
        case _:
            return value


async def outcome_of(side: Side, action: Action) -> object:
    """What an operation came to: its answer, or which error of ours it raised."""
    try:
        return await action(side)
    except NoriaError as refused:
        return type(refused)


async def snapshot(side: Side, cast: Cast, *, thorough: bool) -> dict[str, object]:
    """Everything that can be read, by name. `thorough`: also what takes a query per task or filter."""
    store = side.world.store
    views = sorted(await store.get_many(cast.tasks), key=lambda view: view.id)
    census = await store.census()
    held = [await store.held(member) for member in side.members]
    found: dict[str, object] = {
        "views": [await plain(side, view) for view in views],
        "listed": [view.id for view in (await store.list(TaskFilter(), 500)).tasks],
        "ended": (census.succeeded, census.failed, census.cancelled),
        "census": sorted(
            (side.band_place(c.band), c.ready, c.scheduled, c.running, tens(c.oldest_due_s))
            for c in census.bands
            if c.ready or c.scheduled or c.running
        ),
        "nodes": sorted(
            (
                side.members.index(node.incarnation),
                node.node,
                node.state,
                tens(node.alive_for_s),
                str(node.about),
            )
            for node in await store.nodes()
        ),
        "held": [sorted(str(plain_orphan(side, orphan)) for orphan in orphans) for orphans in held],
        "asked": [sorted(await store.cancel_requests(member)) for member in side.members],
        "order": [task_id for task_id, _ in sorted(side.seqs.items(), key=lambda item: item[1])],
    }
    if thorough:
        found["attempts"] = [
            [await plain(side, attempt) for attempt in await store.attempts(task_id)]
            for task_id in cast.tasks
        ]
        found["finished"] = sorted(view.id for view in await store.finished(cast.tasks))
    running = [(orphan.id, orphan.attempt, place) for place, some in enumerate(held) for orphan in some]
    cast.running = sorted(running)
    cast.attempts = {view.id: view.attempt + (view.node is None) for view in views}
    return found
