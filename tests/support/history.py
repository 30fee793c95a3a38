"""What was asked for, what ran and what is on record, and everything that must be true of it: the one checker.

Law: `violations(history)` knows nothing of how the history came about: a test, a simulation, a chaos run or a dump of a
real system may feed it. Every rule stands in RULES under the words that a failing test shows. What has no answer (status
None, or a 5xx) may have happened or not: both are right.

    python -m tests.faults.check FILE     checks a file of events (tests/support/events.py)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, Final, Self

from runtime.core.ring import Table, build_table, moved, table_hash
from runtime.core.slots import SLOTS
from tests.support.events import (
    Attempt,
    Body,
    Cancelling,
    Counted,
    Event,
    Fault,
    Installed,
    Member,
    Memory,
    Outcome,
    Runs,
    Stored,
    Submission,
    Viewed,
    Waits,
)

SUCCEEDED, FAILED, CANCELLED = 0, 1, 2  # outcome.status
BURNS_FAILURE: Final = frozenset({0, 1})  # attempt.kind: failed, timed out
BURNS_CRASH: Final = 4
DEAD: Final = 9  # lease.state
OF_A_NODE: Final = frozenset(
    {"kill", "die", "freeze", "cut"}
)  # fault.kind: who meets one may be declared dead
HEALED_WITHIN_S: Final = 60.0  # from the end of the last fault to the end of the last task
TAKEN_OVER_S: Final = 2.0  # beyond the lease
MEMORY_MAX_MIB: Final = 500.0
MOVED_SLACK: Final = 0.15  # of the even share
_CLOCK_SLACK_S: Final = 0.05  # the record notes when a statement began
_TIMES_SLACK_S: Final = 0.5  # between the moment of a fault and the time that was noted
_SHOWN_MAX: Final = 5


@dataclass(slots=True, kw_only=True)
class History:
    submissions: Sequence[Submission] = ()
    cancels: Sequence[Cancelling] = ()
    bodies: Sequence[Body] = ()
    tasks: Sequence[Stored] = ()
    waiting: Sequence[str] = ()
    running: Sequence[str] = ()
    outcomes: Sequence[Outcome] = ()
    attempts: Sequence[Attempt] = ()
    members: Sequence[Member] = ()
    views: Sequence[Viewed] = ()
    installs: Sequence[Installed] = ()
    faults: Sequence[Fault] = ()
    memory: Sequence[Memory] = ()
    counted: Sequence[Counted] = ()
    faulted: frozenset[int] = (
        frozenset()
    )  # incarnations that were killed, frozen or cut off: these may be dead
    frozen: frozenset[int] = (
        frozenset()
    )  # processes that were stopped or cut off: their bodies may overlap later ones
    kills: int = 0  # processes that died while they ran tasks
    final: bool = True  # all faults have healed and everything had its time
    _outcome: dict[str, Outcome] = field(init=False, repr=False)
    _noted: dict[str, list[Attempt]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._outcome = {one.id: one for one in self.outcomes}
        self._noted = defaultdict(list)
        for one in self.attempts:
            self._noted[one.id].append(one)

    @classmethod
    def of(cls, events: Iterable[Event], *, final: bool = True) -> Self:
        """From what a file holds, or `events` gives."""
        by_kind: dict[type[Any], list[Any]] = defaultdict(list)
        for event in events:
            by_kind[type(event)].append(event)
        faults: list[Fault] = by_kind[Fault]
        return cls(
            submissions=by_kind[Submission],
            cancels=by_kind[Cancelling],
            bodies=by_kind[Body],
            tasks=by_kind[Stored],
            waiting=[one.id for one in by_kind[Waits]],
            running=[one.id for one in by_kind[Runs]],
            outcomes=by_kind[Outcome],
            attempts=by_kind[Attempt],
            members=by_kind[Member],
            views=by_kind[Viewed],
            installs=by_kind[Installed],
            faults=faults,
            memory=by_kind[Memory],
            counted=by_kind[Counted],
            faulted=frozenset(one.incarnation for one in faults if one.incarnation and one.kind in OF_A_NODE),
            frozen=frozenset(one.pid for one in faults if one.pid and one.kind in {"freeze", "cut"}),
            kills=sum(one.processes for one in faults),
            final=final,
        )

    @property
    def events(self) -> Iterator[Event]:
        """`of` makes a history of them again."""
        yield from self.submissions
        yield from self.cancels
        yield from self.bodies
        yield from self.tasks
        yield from (Waits(id=task_id) for task_id in self.waiting)
        yield from (Runs(id=task_id) for task_id in self.running)
        yield from self.outcomes
        yield from self.attempts
        yield from self.members
        yield from self.views
        yield from self.installs
        yield from self.faults
        yield from self.memory
        yield from self.counted

    def outcome(self, task_id: str) -> Outcome | None:
        return self._outcome.get(task_id)

    def noted(self, task_id: str) -> list[Attempt]:
        return self._noted.get(task_id, [])


Rule = Callable[[History], Iterable[str]]


def violations(history: History) -> list[str]:
    """What is wrong, rule by rule, a few examples each; empty where nothing is."""
    found = []
    for law, rule in RULES.items():
        examples = list(rule(history))
        found += [f"{law}: {example}" for example in examples[:_SHOWN_MAX]]
        if len(examples) > _SHOWN_MAX:
            found.append(f"{law}: and {len(examples) - _SHOWN_MAX} more")
    return found


def check(history: History) -> None:
    """Raises AssertionError that lists all violations."""
    found = violations(history)
    assert not found, "the history is impossible:\n" + "\n".join(f"  {line}" for line in found)


# -- answers ------------------------------------------------------------------------------------------


def _durable(history: History) -> Iterator[str]:
    stored = {task.id for task in history.tasks}
    for one in history.submissions:
        if one.accepted and one.id not in stored:
            yield f"{one.id} was answered {one.status} and is not on record"


def _asked_for(history: History) -> Iterator[str]:
    answered = {one.id for one in history.submissions if one.accepted}
    uncertain = {one.key for one in history.submissions if one.uncertain and one.key is not None}
    nameless = sum(one.uncertain and one.key is None for one in history.submissions)
    for task in history.tasks:
        if task.id in answered or task.key in uncertain:
            continue
        if task.key is None and nameless:
            nameless -= 1
            continue
        yield f"{task.id} (key {task.key!r}) is on record, and nobody was told so or may have asked for it"


def _one_key(history: History) -> Iterator[str]:
    by_key: dict[str, list[Submission]] = defaultdict(list)
    for one in history.submissions:
        if one.key is not None and one.accepted:
            by_key[one.key].append(one)
    for key, answers in by_key.items():
        if len(ids := {one.id for one in answers}) > 1:
            yield f"{key!r} was answered with {len(ids)} tasks: {sorted(map(str, ids))}"
        if len({one.request for one in answers}) > 1:
            yield f"{key!r} was accepted for different requests"
        if (new := sum(not one.duplicate for one in answers)) > 1:
            yield f"{key!r} was answered {new} times as new"
    for one in history.submissions:
        if one.status == 422 and any(one.request == other.request for other in by_key.get(one.key or "", ())):
            yield f"{one.key!r} was refused for the request that it was accepted for"
    for key, count in Counter(task.key for task in history.tasks if task.key is not None).items():
        if count > 1:
            yield f"{key!r} belongs to {count} tasks on record"


def _says_when(history: History) -> Iterator[str]:
    for one in history.submissions:
        if one.status in {429, 503} and not one.retry_after:
            yield f"key {one.key!r} was answered {one.status} without Retry-After"


def _cancelled(history: History) -> Iterator[str]:
    for one in history.cancels:
        outcome = history.outcome(one.id)
        if one.state == "cancelled" and (outcome is None or outcome.status != CANCELLED):
            yield f"{one.id} was answered cancelled, and is {'open' if outcome is None else outcome.status}"


# -- outcomes -----------------------------------------------------------------------------------------


def _one_place(history: History) -> Iterator[str]:
    places: dict[str, list[str]] = {task.id: [] for task in history.tasks}
    ended = [one.id for one in history.outcomes]
    for place, ids in (("waiting", history.waiting), ("running", history.running), ("outcome", ended)):
        for task_id in ids:
            places.setdefault(task_id, ["(no task row)"]).append(place)
    for task_id, found in places.items():
        if len(found) != 1:
            yield f"{task_id} is in {found or 'no table'}"
        elif history.final and found != ["outcome"]:
            yield f"{task_id} is still {found[0]}"


def _newest(history: History) -> Iterator[str]:
    for one in history.outcomes:
        noted = sorted(attempt.attempt for attempt in history.noted(one.id))
        begun = {len(noted), len(noted) + 1} if one.status == CANCELLED else {len(noted) + 1}
        if noted != list(range(1, len(noted) + 1)):
            yield f"{one.id}: attempts {noted} are not 1, 2, 3 ..."
        elif one.attempt not in begun:
            yield f"{one.id}: attempt {one.attempt} committed after attempts {noted}"


def _budgets(history: History) -> Iterator[str]:
    most_of = {task.id: task.max_attempts for task in history.tasks}
    for one in history.outcomes:
        kinds = [attempt.kind for attempt in history.noted(one.id)]
        failures, crashes = sum(kind in BURNS_FAILURE for kind in kinds), kinds.count(BURNS_CRASH)
        burnt = (one.failures - failures, one.crashes - crashes)
        if burnt not in ({(0, 0), (1, 0), (0, 1)} if one.status == FAILED else {(0, 0)}):
            yield (
                f"{one.id}: {one.failures} failures and {one.crashes} crashes are counted, "
                f"its earlier attempts show {failures} and {crashes}"
            )
        if (most := most_of.get(one.id)) is not None and one.failures > most:
            yield f"{one.id}: {one.failures} failures, {most} are allowed"
        if one.crashes > history.kills:
            yield f"{one.id}: {one.crashes} crashes, though only {history.kills} processes died"


# -- bodies -------------------------------------------------------------------------------------------


def _one_body(history: History) -> Iterator[str]:
    for (task_id, attempt), count in Counter((body.id, body.attempt) for body in history.bodies).items():
        if count > 1:
            yield f"attempt {attempt} of {task_id} ran {count} times"


def _on_record(history: History) -> Iterator[str]:
    stored = {task.id for task in history.tasks}
    for body in history.bodies:
        outcome = history.outcome(body.id)
        if body.id not in stored:
            yield f"{body.id} ran and is not on record"
        elif outcome is not None and body.attempt > outcome.attempt:
            yield f"{body.id}: attempt {body.attempt} ran, and attempt {outcome.attempt} is the one on record"


def _own_result(history: History) -> Iterator[str]:
    returned = {(body.id, body.attempt) for body in history.bodies if body.returned}
    staged = {body.id for body in history.bodies}
    for one in history.outcomes:
        if one.status != SUCCEEDED:
            continue
        if one.result_attempt is not None and one.result_attempt != one.attempt:
            yield f"{one.id}: attempt {one.attempt} is on record with the result of {one.result_attempt}"
        if one.id in staged and (one.id, one.attempt) not in returned:
            yield f"{one.id}: attempt {one.attempt} has succeeded, but its body did not come to its end"


def _apart(history: History) -> Iterator[str]:
    by_id: dict[str, list[Body]] = defaultdict(list)
    for body in history.bodies:
        by_id[body.id].append(body)
    for task_id, bodies in by_id.items():
        for earlier, later in pairwise(sorted(bodies, key=lambda body: body.attempt)):
            if later.started_s < earlier.ended_s and earlier.pid not in history.frozen:
                yield f"{task_id}: attempt {later.attempt} began before attempt {earlier.attempt} had ended"


def _keys_apart_on_record(history: History) -> Iterator[str]:
    """The record's times of the turns of one actor key. Attempts that began in one statement are one turn."""
    key_of = _keys(history)
    turns: dict[str, dict[tuple[float, int | None], float]] = defaultdict(dict)
    for one in (*history.outcomes, *history.attempts):
        if one.id in key_of and one.started_s is not None and one.ended_s is not None:
            of_key = turns[key_of[one.id]]
            turn = one.started_s, one.incarnation
            of_key[turn] = max(one.ended_s, of_key.get(turn, one.ended_s))
    for key, of_key in turns.items():
        for ((_, earlier), ended_s), ((started_s, later), _) in pairwise(sorted(of_key.items(), key=_began)):
            if started_s < ended_s - _CLOCK_SLACK_S:
                yield f"{key!r}: a turn of incarnation {later} began before one of {earlier} had ended"


def _began(turn: tuple[tuple[float, int | None], float]) -> float:
    return turn[0][0]


def _keys(history: History) -> dict[str, str]:
    return {task.id: task.actor_key for task in history.tasks if task.actor_key is not None}


def _key_bodies_apart(history: History) -> Iterator[str]:
    key_of = _keys(history)
    by_key: dict[str, list[Body]] = defaultdict(list)
    for body in history.bodies:
        if body.id in key_of:
            by_key[key_of[body.id]].append(body)
    for key, bodies in by_key.items():
        for earlier, later in pairwise(sorted(bodies, key=lambda body: body.started_s)):
            if later.started_s < earlier.ended_s and earlier.pid not in history.frozen:
                yield f"{key!r}: the body of {later.id} began before that of {earlier.id} had ended"


def _keys_in_order(history: History) -> Iterator[str]:
    """What is due later does not block those behind it, so it is left out."""
    lanes: dict[tuple[str, int], list[tuple[int, float, str]]] = defaultdict(list)
    for task in history.tasks:
        outcome = history.outcome(task.id)
        if task.actor_key is None or task.seq is None or task.delayed or outcome is None:
            continue
        if outcome.ended_s is not None and outcome.status != CANCELLED:
            lanes[task.actor_key, task.lane].append((task.seq, outcome.ended_s, task.id))
    for (key, _), tasks in lanes.items():
        for earlier, later in pairwise(sorted(tasks)):
            if later[1] < earlier[1] - _CLOCK_SLACK_S:
                yield f"{key!r}: {later[2]} ended before {earlier[2]}, which was submitted before it"


def _counted(history: History) -> Iterator[str]:
    key_of = _keys(history)
    done = Counter(key_of[one.id] for one in history.outcomes if one.id in key_of and one.status == SUCCEEDED)
    for one in history.counted:
        if one.count != done[one.key]:
            yield f"{one.key!r} has counted {one.count}, and {done[one.key]} messages have succeeded"


def _submitted_in_order(history: History) -> Iterator[str]:
    """Whoever was answered before another asked is before it in the order of submission."""
    seq_of = {task.id: task.seq for task in history.tasks if task.seq is not None}
    new = [
        (one.asked_s, one.answered_s, seq_of[one.id], one.id)
        for one in history.submissions
        if one.accepted and not one.duplicate and one.id in seq_of
        if one.asked_s is not None and one.answered_s is not None
    ]
    answered = sorted(new, key=lambda one: one[1])
    highest, nth = (-1, ""), 0
    for asked_s, _, seq, task_id in sorted(new):
        while nth < len(answered) and answered[nth][1] < asked_s:
            highest = max(highest, (answered[nth][2], answered[nth][3]))
            nth += 1
        if highest[0] > seq:
            yield f"{task_id} was posted after {highest[1]} was answered, and is before it in the order"


# -- members ------------------------------------------------------------------------------------------


def _no_false_death(history: History) -> Iterator[str]:
    for one in history.members:
        if one.state == DEAD and one.incarnation not in history.faulted:
            yield f"incarnation {one.incarnation} of {one.node} was without a fault"


def _one_order_of_views(history: History) -> Iterator[str]:
    numbers = [view.number for view in history.views]
    for earlier, later in pairwise(sorted(numbers)):
        if later != earlier + 1:
            yield f"view {later} follows view {earlier} in the log"
    newest: dict[int, int] = {}
    for one in history.installs:
        if one.view < newest.get(one.incarnation, 0):
            yield f"incarnation {one.incarnation} went from view {newest[one.incarnation]} back to {one.view}"
        newest[one.incarnation] = one.view
        if history.views and one.view and one.view not in numbers:
            yield f"incarnation {one.incarnation} went by view {one.view}, which is not in the log"


def _gone_for_good(history: History) -> Iterator[str]:
    seen: set[int] = set()
    gone: set[int] = set()
    for view in sorted(history.views, key=lambda view: view.number):
        present = {seat.incarnation for seat in view.members}
        for incarnation in sorted(present & gone):
            yield f"incarnation {incarnation} was gone, and is a member of view {view.number}"
        gone |= seen - present
        seen |= present


def _one_table(history: History) -> Iterator[str]:
    hashes: dict[int, set[str]] = defaultdict(set)
    for one in history.installs:
        hashes[one.view].add(one.table_hash)
    for view in history.views:
        if view.number in hashes:
            hashes[view.number].add(table_hash(_table(view)))
    for number, found in hashes.items():
        if len(found) > 1:
            yield f"view {number} has the tables {', '.join(sorted(found))}"


def _only_theirs_move(history: History) -> Iterator[str]:
    for before, after in pairwise(sorted(history.views, key=lambda view: view.number)):
        old, new = _weights(before), _weights(after)
        if not old or not new or any(old[node] != new[node] for node in old.keys() & new.keys()):
            continue
        tables = _table(before), _table(after)
        changed = moved(*tables)
        for slot in sorted(changed):
            if tables[0][slot] in new and tables[1][slot] in old:
                yield f"view {after.number}: slot {slot} went from {tables[0][slot]} to {tables[1][slot]}, who both stay"
        if len(old.keys() ^ new.keys()) == 1 and {*old.values(), *new.values()} == {1.0}:
            most = (1 + MOVED_SLACK) / max(len(old), len(new))
            if len(changed) > most * SLOTS:
                yield f"view {after.number}: {len(changed) / SLOTS:.1%} of the slots move, {most:.1%} is the most"


def _weights(view: Viewed) -> dict[str, float]:
    return {seat.node: seat.weight for seat in view.members if seat.standing == "active"}


def _table(view: Viewed) -> Table:
    return _table_of(tuple(sorted(_weights(view).items())))


@cache
def _table_of(weights: tuple[tuple[str, float], ...]) -> Table:
    return build_table(dict(weights))


# -- time and space -----------------------------------------------------------------------------------


def _taken_over(history: History) -> Iterator[str]:
    """Where somebody was there to do it, for a lease and more, and no other fault is near."""
    leases = {member.incarnation: member.lease_s for member in history.members}
    for fault in history.faults:
        lease_s = leases.get(fault.incarnation or 0)
        if fault.kind not in {"kill", "die"} or lease_s is None:
            continue
        from_s = fault.began_s - lease_s
        until_s = fault.began_s + lease_s + TAKEN_OVER_S + _TIMES_SLACK_S
        if not _somebody(history, from_s, until_s) or _others(history, fault, from_s - lease_s, until_s):
            continue
        for one in history.attempts:
            if one.incarnation == fault.incarnation and one.ended_s is not None and one.ended_s > until_s:
                yield f"{one.id} of incarnation {fault.incarnation} after {one.ended_s - fault.began_s:.1f} s"


def _somebody(history: History, from_s: float, until_s: float) -> bool:
    """Whether a member without any fault of its own lived all that time."""
    return any(
        one.incarnation not in history.faulted
        and one.started_s is not None
        and one.started_s < from_s
        and (one.ended_s is None or one.ended_s > until_s)
        for one in history.members
    )


def _others(history: History, fault: Fault, from_s: float, until_s: float) -> bool:
    return any(one is not fault and one.ended_s > from_s and one.began_s < until_s for one in history.faults)


def _over_in_time(history: History) -> Iterator[str]:
    ends = [one.ended_s for one in history.outcomes if one.ended_s is not None]
    if not (history.final and history.faults and ends):
        return
    begun_s = max(one.ended_s for one in history.faults)
    begun_s = max(begun_s, *(one.answered_s or 0.0 for one in history.submissions), 0.0)
    if (late_s := max(ends) - begun_s) > HEALED_WITHIN_S:
        yield f"the last task ended {late_s:.0f} s after the last fault and request"


def _memory(history: History) -> Iterator[str]:
    most: dict[int, float] = {}
    for one in history.memory:
        most[one.incarnation] = max(one.mib, most.get(one.incarnation, 0.0))
    for incarnation, mib in most.items():
        if mib > MEMORY_MAX_MIB:
            yield f"incarnation {incarnation} had {mib:.0f} MiB"


RULES: Final[dict[str, Rule]] = {
    "every 2xx is on record": _durable,
    "nothing is on record that nobody asked for": _asked_for,
    "one key, one task": _one_key,
    "429 and 503 say when to come back": _says_when,
    "who was told that it is cancelled finds it cancelled": _cancelled,
    "a task is in one place, in the end in its outcome": _one_place,
    "only the newest attempt commits, and attempts grow by one": _newest,
    "budgets are what the attempts burnt": _budgets,
    "an attempt runs once": _one_body,
    "what runs is on record": _on_record,
    "an outcome is what its own attempt came to": _own_result,
    "attempts of a task do not overlap": _apart,
    "attempts of an actor key do not overlap on record": _keys_apart_on_record,
    "bodies of an actor key do not overlap": _key_bodies_apart,
    "an actor key's tasks end in the order of submission": _keys_in_order,
    "an actor's state is what its successful messages made it": _counted,
    "who was answered first is first in the order of submission": _submitted_in_order,
    "nobody is declared dead without a fault": _no_false_death,
    "views are one order, without gaps, and nobody goes back": _one_order_of_views,
    "who is gone does not come back": _gone_for_good,
    "one view, one slot table": _one_table,
    "only slots of who leaves or joins move": _only_theirs_move,
    "what a killed node ran is taken over in time": _taken_over,
    "all ends soon after the last fault": _over_in_time,
    "memory is bounded": _memory,
}
