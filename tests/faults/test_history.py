"""The checker itself: a sound history passes, and every rule fails on the smallest history that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.history import (
    BURNS_CRASH,
    CANCELLED,
    DEAD,
    FAILED,
    RULES,
    Attempt,
    Body,
    History,
    Member,
    Outcome,
    Stored,
    Submission,
    check,
    violations,
)

ASKED = Submission(key="k", request="a", status=202, id="t")
AGAIN = replace(ASKED, status=200, duplicate=True)
LOST = Submission(key="k", request="a", status=None)
TASK = Stored(id="t", key="k")
CRASHED = Attempt(id="t", attempt=1, kind=BURNS_CRASH)
FIRST = Body(id="t", attempt=1, pid=10, started_s=1, ended_s=2, returned=False)
SECOND = Body(id="t", attempt=2, pid=11, started_s=3, ended_s=4, returned=True)
DONE = Outcome(id="t", attempt=2, crashes=1, result_attempt=2)
SOUND = History(
    submissions=[LOST, ASKED, AGAIN, Submission(key="n", request="b", status=503, retry_after=True)],
    bodies=[FIRST, SECOND],
    tasks=[TASK],
    outcomes=[DONE],
    attempts=[CRASHED],
    members=[Member(incarnation=1, node="a", state=DEAD), Member(incarnation=2, node="a", state=1)],
    faulted=frozenset({1}),
    kills=1,
)


def test_a_sound_history_passes() -> None:
    check(SOUND)
    check(History())


@pytest.mark.parametrize(
    "sound",
    [
        replace(SOUND, submissions=[LOST]),  # it had happened
        replace(SOUND, submissions=[*SOUND.submissions, replace(LOST, key="z")]),  # it had not
        replace(SOUND, outcomes=[], running=["t"], final=False),
        replace(SOUND, bodies=[replace(FIRST, ended_s=9), SECOND], frozen=frozenset({10})),
        replace(SOUND, bodies=[replace(FIRST, started_s=5, ended_s=6), SECOND], frozen=frozenset({10})),
        History(submissions=[LOST], tasks=[TASK], outcomes=[Outcome(id="t", attempt=0, status=CANCELLED)]),
        replace(
            SOUND, bodies=[], outcomes=[Outcome(id="t", attempt=2, status=FAILED, failures=1, crashes=1)]
        ),
        replace(SOUND, bodies=[], outcomes=[Outcome(id="t", attempt=2, status=FAILED, crashes=2)], kills=2),
    ],
)
def test_what_may_happen_passes(sound: History) -> None:
    check(sound)


BROKEN = {
    "every 2xx is on record": [
        replace(
            SOUND, submissions=[*SOUND.submissions, Submission(key=None, request="b", status=202, id="u")]
        )
    ],
    "nothing is on record that nobody asked for": [
        replace(SOUND, submissions=[]),
        replace(SOUND, submissions=[replace(ASKED, status=422, id=None)]),
    ],
    "one key, one task": [
        replace(SOUND, submissions=[ASKED, replace(AGAIN, id="u")]),
        replace(SOUND, submissions=[ASKED, replace(AGAIN, request="b")]),
        replace(SOUND, submissions=[ASKED, ASKED]),
        replace(SOUND, tasks=[TASK, Stored(id="u", key="k")]),
    ],
    "429 and 503 say when to come back": [
        replace(SOUND, submissions=[ASKED, replace(LOST, status=503)]),
        replace(SOUND, submissions=[ASKED, replace(LOST, status=429)]),
    ],
    "a task is in one place, in the end in its outcome": [
        replace(SOUND, outcomes=[]),
        replace(SOUND, outcomes=[], waiting=["t"]),
        replace(SOUND, running=["t"]),
        replace(SOUND, outcomes=[DONE, DONE]),
        replace(SOUND, outcomes=[DONE, Outcome(id="u", attempt=1)]),
    ],
    "only the newest attempt commits, and attempts grow by one": [
        replace(SOUND, outcomes=[replace(DONE, attempt=1)]),
        replace(SOUND, outcomes=[replace(DONE, attempt=3)]),
        replace(SOUND, attempts=[replace(CRASHED, attempt=2)]),
        replace(SOUND, attempts=[CRASHED, CRASHED]),
    ],
    "budgets are what the attempts burnt": [
        replace(SOUND, outcomes=[replace(DONE, crashes=0)]),
        replace(SOUND, outcomes=[replace(DONE, failures=1)]),
        replace(SOUND, kills=0),
    ],
    "an attempt runs once": [replace(SOUND, bodies=[FIRST, SECOND, SECOND])],
    "what runs is on record": [
        replace(SOUND, bodies=[FIRST, SECOND, replace(SECOND, attempt=3, started_s=5, ended_s=6)]),
        replace(SOUND, bodies=[FIRST, SECOND, replace(SECOND, id="u")]),
    ],
    "an outcome is what its own attempt came to": [
        replace(SOUND, outcomes=[replace(DONE, result_attempt=1)]),
        replace(SOUND, bodies=[FIRST, replace(SECOND, returned=False)]),
        replace(SOUND, bodies=[FIRST]),
    ],
    "attempts of a task do not overlap": [
        replace(SOUND, bodies=[replace(FIRST, ended_s=3.5), SECOND]),
        replace(SOUND, bodies=[replace(FIRST, started_s=5, ended_s=6), SECOND], frozen=frozenset({11})),
    ],
    "nobody is declared dead without a fault": [replace(SOUND, faulted=frozenset())],
}


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert set(BROKEN) == set(RULES)


@pytest.mark.parametrize(
    ("law", "broken"), [(law, history) for law, histories in BROKEN.items() for history in histories]
)
def test_each_rule_fails_on_what_breaks_it(law: str, broken: History) -> None:
    found = violations(broken)
    assert any(line.startswith(f"{law}: ") for line in found), found
    with pytest.raises(AssertionError, match="the history is impossible"):
        check(broken)


def test_many_examples_are_cut_short() -> None:
    asked = [Submission(key=None, request="a", status=202, id=str(n)) for n in range(20)]
    found = violations(History(submissions=asked))
    assert len(found) == 6
    assert found[-1].endswith("and 15 more")
