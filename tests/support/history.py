"""What was asked for, what ran and what is on record, and everything that must be true of it.

Law: `violations(history)` knows nothing of how the history came about: a test, a simulation or a dump of a real
system may feed it. Every rule stands in RULES under the words that a failing test shows. Times are seconds of one
monotonic clock; ids are texts. What has no answer (status None, or a 5xx) may have happened or not: both are right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

SUCCEEDED, FAILED, CANCELLED = 0, 1, 2  # outcome.status
BURNS_FAILURE: Final = frozenset({0, 1})  # attempt.kind: failed, timed out
BURNS_CRASH: Final = 4
DEAD: Final = 9  # lease.state
_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One request for one task, as its client saw it. `request` is all that makes requests equal or different."""

    key: str | None
    request: str
    status: int | None
    id: str | None = None
    duplicate: bool = False
    retry_after: bool = False

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def uncertain(self) -> bool:
        return self.status is None or self.status >= 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A handler's body that began. `returned` is false where it was cut off (its process died, it was cancelled)."""

    id: str
    attempt: int
    pid: int
    started_s: float
    ended_s: float
    returned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    id: str
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`result_attempt`: which attempt's body made the result, where the result says so."""

    id: str
    attempt: int
    status: int = SUCCEEDED
    failures: int = 0
    crashes: int = 0
    result_attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that committed no outcome."""

    id: str
    attempt: int
    kind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    incarnation: int
    node: str
    state: int


@dataclass(slots=True, kw_only=True)
class History:
    submissions: Sequence[Submission] = ()
    bodies: Sequence[Body] = ()
    tasks: Sequence[Stored] = ()
    waiting: Sequence[str] = ()
    running: Sequence[str] = ()
    outcomes: Sequence[Outcome] = ()
    attempts: Sequence[Attempt] = ()
    members: Sequence[Member] = ()
    faulted: frozenset[int] = frozenset()  # incarnations that were killed or frozen: these may be dead
    frozen: frozenset[int] = frozenset()  # process ids that were stopped: their bodies may overlap later ones
    kills: int = 0  # processes that died while they ran tasks
    final: bool = True  # all faults have healed and everything had its time
    _outcome: dict[str, Outcome] = field(init=False, repr=False)
    _noted: dict[str, list[Attempt]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._outcome = {one.id: one for one in self.outcomes}
        self._noted = defaultdict(list)
        for one in self.attempts:
            self._noted[one.id].append(one)

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
    for key, count in Counter(task.key for task in history.tasks if task.key is not None).items():
        if count > 1:
            yield f"{key!r} belongs to {count} tasks on record"


def _says_when(history: History) -> Iterator[str]:
    for one in history.submissions:
        if one.status in {429, 503} and not one.retry_after:
            yield f"key {one.key!r} was answered {one.status} without Retry-After"


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
    for one in history.outcomes:
        kinds = [attempt.kind for attempt in history.noted(one.id)]
        failures, crashes = sum(kind in BURNS_FAILURE for kind in kinds), kinds.count(BURNS_CRASH)
        burnt = (one.failures - failures, one.crashes - crashes)
        if burnt not in ({(0, 0), (1, 0), (0, 1)} if one.status == FAILED else {(0, 0)}):
            yield (
                f"{one.id}: {one.failures} failures and {one.crashes} crashes are counted, "
                f"its earlier attempts show {failures} and {crashes}"
            )
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


# -- members ------------------------------------------------------------------------------------------


def _no_false_death(history: History) -> Iterator[str]:
    for one in history.members:
        if one.state == DEAD and one.incarnation not in history.faulted:
            yield f"incarnation {one.incarnation} of {one.node} was without a fault"


RULES: Final[dict[str, Rule]] = {
    "every 2xx is on record": _durable,
    "nothing is on record that nobody asked for": _asked_for,
    "one key, one task": _one_key,
    "429 and 503 say when to come back": _says_when,
    "a task is in one place, in the end in its outcome": _one_place,
    "only the newest attempt commits, and attempts grow by one": _newest,
    "budgets are what the attempts burnt": _budgets,
    "an attempt runs once": _one_body,
    "what runs is on record": _on_record,
    "an outcome is what its own attempt came to": _own_result,
    "attempts of a task do not overlap": _apart,
    "nobody is declared dead without a fault": _no_false_death,
}
