"""The checker itself: a sound history passes, and every rule fails on the smallest history that breaks it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.core.ring import build_table, table_hash
from tests.support import history
from tests.support.events import (
    Body,
    Cancelling,
    Counted,
    Fault,
    Installed,
    Memory,
    Seat,
    Viewed,
    read_events,
    write_events,
)
from tests.support.history import (
    BURNS_CRASH,
    CANCELLED,
    DEAD,
    FAILED,
    HEALED_WITHIN_S,
    RULES,
    Attempt,
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
SEATS = tuple(Seat(node=node, incarnation=number) for number, node in enumerate("abcd", 1))
HASHES = {n: table_hash(build_table(dict.fromkeys("abcd"[:n], 1.0))) for n in (1, 2, 3)}
VIEWS = [Viewed(number=n, members=SEATS[:n]) for n in (1, 2, 3)]
INSTALLS = [Installed(incarnation=i, view=v, table_hash=HASHES[v]) for v in (1, 2, 3) for i in (1, 2)]
KILL = Fault(kind="kill", began_s=10, ended_s=10, incarnation=1, pid=10, processes=1)
FREEZE = Fault(kind="freeze", began_s=10, ended_s=12, incarnation=1, pid=10)
SOUND = History.of(
    [
        LOST, ASKED, AGAIN, Submission(key="n", request="b", status=503, retry_after=True),
        FIRST, SECOND, TASK, DONE, CRASHED,
        Member(incarnation=1, node="a", state=DEAD, lease_s=6), Member(incarnation=2, node="a", state=1, lease_s=6, started_s=1),
        *VIEWS, *INSTALLS, KILL, Memory(incarnation=1, mib=90),
    ]
)  # fmt: skip
KEYED_TASKS = [Stored(id=one, actor_key="k", seq=seq) for seq, one in enumerate("ab")]
KEYED = History(  # two tasks of one actor key, one after the other
    submissions=[
        Submission(key=None, request="a", status=202, id="a", asked_s=1, answered_s=2),
        Submission(key=None, request="b", status=202, id="b", asked_s=3, answered_s=4),
    ],
    tasks=KEYED_TASKS,
    bodies=[
        Body(id="a", attempt=2, pid=10, started_s=5, ended_s=6, returned=True),
        Body(id="b", attempt=1, pid=11, started_s=7, ended_s=8, returned=True),
    ],
    attempts=[Attempt(id="a", attempt=1, kind=3, started_s=4, ended_s=4.5)],
    outcomes=[
        Outcome(id="a", attempt=2, started_s=5, ended_s=6),
        Outcome(id="b", attempt=1, started_s=7, ended_s=8),
    ],
    counted=[Counted(key="k", count=2)],
)
FIRST_KEYED, SECOND_KEYED = KEYED.outcomes


def test_a_sound_history_passes() -> None:
    check(SOUND)
    check(KEYED)
    check(History())


def test_a_file_has_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    whole = replace(
        SOUND, waiting=["w"], running=["r"], cancels=[Cancelling(id="t", state="running")], final=False
    )
    count = write_events(path, whole.events)
    assert len(path.read_text().splitlines()) == count
    again = History.of(read_events(path), final=False)
    assert list(again.events) == list(whole.events)
    assert (again.faulted, again.frozen, again.kills) == (frozenset({1}), frozenset(), 1)


def test_what_a_node_met_is_known_from_the_faults() -> None:
    cut = Fault(kind="cut", began_s=1, ended_s=2, incarnation=3, pid=30)
    broker = Fault(kind="cut off from RabbitMQ", began_s=1, ended_s=2, incarnation=4, pid=40)
    found = History.of([KILL, FREEZE, cut, broker])
    assert (found.faulted, found.frozen, found.kills) == (frozenset({1, 3}), frozenset({10, 30}), 1)


@pytest.mark.parametrize(
    "line", ['{"event": "body"}', '{"event": "x"}', "[]", '{"event": "waits", "id": "a", "x": 1}']
)
def test_a_line_that_is_none_of_ours_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"event": "waits", "id": "a"}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match="line 2"):
        list(read_events(path))


def test_files_are_checked_by_hand(tmp_path: Path) -> None:
    sound, broken = tmp_path / "sound.jsonl", tmp_path / "broken.jsonl"
    write_events(sound, SOUND.events)
    write_events(broken, replace(SOUND, outcomes=[]).events)
    for path, code, said in ((sound, 0, "sound: all"), (broken, 1, "WRONG a task is in one place")):
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.check", path], capture_output=True, text=True, check=False
        )
        assert (done.returncode, said in done.stdout) == (code, True), done


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
        replace(
            KEYED,
            counted=[],
            tasks=[replace(task, actor_key=None) for task in KEYED_TASKS],
            outcomes=[replace(FIRST_KEYED, ended_s=9), SECOND_KEYED],
        ),  # nothing orders them
        replace(
            KEYED,
            tasks=[replace(KEYED_TASKS[0], delayed=True), KEYED_TASKS[1]],
            bodies=[],
            outcomes=[replace(FIRST_KEYED, started_s=9, ended_s=10), SECOND_KEYED],
        ),  # it was due later
        replace(
            SOUND,
            attempts=[replace(CRASHED, incarnation=1, ended_s=19)],
            faults=[KILL, Fault(kind="PostgreSQL freezes", began_s=11, ended_s=12)],
        ),  # nobody could take over
        replace(SOUND, cancels=[Cancelling(id="t", state="running")]),  # too late, and said so
        replace(
            KEYED, outcomes=[replace(one, started_s=5, ended_s=9) for one in KEYED.outcomes]
        ),  # of one turn
        replace(
            SOUND,
            views=[
                Viewed(number=1, members=SEATS[:2]),
                Viewed(number=2, members=(replace(SEATS[0], standing="unreachable"), SEATS[1])),
            ],
            installs=[],
        ),
        replace(
            SOUND,
            attempts=[replace(CRASHED, incarnation=1, ended_s=19)],
            members=[SOUND.members[0], replace(SOUND.members[1], started_s=11)],
        ),  # nobody was there
        replace(
            SOUND,
            attempts=[replace(CRASHED, incarnation=1, ended_s=19)],
            members=[
                replace(SOUND.members[0], started_s=1, ended_s=19),
                replace(SOUND.members[1], started_s=11),
            ],
        ),  # but for itself
    ],
)
def test_what_may_happen_passes(sound: History) -> None:
    check(sound)


ONLY_THEIRS = "only slots of who leaves or joins move"
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
        replace(SOUND, submissions=[ASKED, replace(AGAIN, status=422)]),
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
        replace(
            SOUND,
            tasks=[replace(TASK, max_attempts=1)],
            bodies=[],
            attempts=[CRASHED, *(Attempt(id="t", attempt=n, kind=0) for n in (2, 3))],
            outcomes=[Outcome(id="t", attempt=4, crashes=1, failures=2)],
        ),
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
    "who was told that it is cancelled finds it cancelled": [
        replace(SOUND, cancels=[Cancelling(id="t", state="cancelled")]),
        replace(SOUND, cancels=[Cancelling(id="u", state="cancelled")]),
    ],
    "attempts of an actor key do not overlap on record": [
        replace(KEYED, outcomes=[replace(FIRST_KEYED, ended_s=7.5), SECOND_KEYED]),
        replace(KEYED, attempts=[replace(KEYED.attempts[0], ended_s=5.5)]),
        replace(
            KEYED, outcomes=[replace(one, started_s=5, incarnation=n) for n, one in enumerate(KEYED.outcomes)]
        ),
    ],
    "an actor's state is what its successful messages made it": [
        replace(KEYED, counted=[Counted(key="k", count=3)]),
        replace(KEYED, counted=[Counted(key="k", count=1)]),
    ],
    "bodies of an actor key do not overlap": [
        replace(KEYED, bodies=[replace(KEYED.bodies[0], ended_s=7.5), KEYED.bodies[1]]),
    ],
    "an actor key's tasks end in the order of submission": [
        replace(
            KEYED,
            bodies=[],
            attempts=[],
            outcomes=[replace(FIRST_KEYED, attempt=1, started_s=9, ended_s=10), SECOND_KEYED],
        ),
    ],
    "who was answered first is first in the order of submission": [
        replace(KEYED, tasks=[replace(KEYED_TASKS[0], seq=2), KEYED_TASKS[1]]),
    ],
    "views are one order, without gaps, and nobody goes back": [
        replace(SOUND, views=[VIEWS[0], VIEWS[2]], installs=[]),
        replace(SOUND, views=[*VIEWS, VIEWS[2]]),
        replace(SOUND, installs=[INSTALLS[2], INSTALLS[0]]),
        replace(SOUND, installs=[replace(INSTALLS[0], view=4)]),
    ],
    "who is gone does not come back": [
        replace(
            SOUND, views=[VIEWS[1], replace(VIEWS[0], number=3), replace(VIEWS[1], number=4)], installs=[]
        ),
    ],
    "one view, one slot table": [
        replace(SOUND, installs=[INSTALLS[2], replace(INSTALLS[3], table_hash="0")]),
        replace(SOUND, installs=[replace(INSTALLS[2], table_hash="0")]),
        replace(SOUND, views=[], installs=[INSTALLS[2], replace(INSTALLS[3], table_hash="0")]),
    ],
    "what a killed node ran is taken over in time": [
        replace(SOUND, attempts=[replace(CRASHED, incarnation=1, ended_s=19)]),
        replace(
            SOUND, attempts=[replace(CRASHED, incarnation=1, ended_s=19)], faults=[replace(KILL, kind="die")]
        ),
    ],
    "all ends soon after the last fault": [
        replace(SOUND, outcomes=[replace(DONE, ended_s=12 + HEALED_WITHIN_S)]),
    ],
    "memory is bounded": [
        replace(SOUND, memory=[Memory(incarnation=1, mib=501), Memory(incarnation=1, mib=90)])
    ],
}


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {*BROKEN, ONLY_THEIRS} == set(RULES)


@pytest.mark.parametrize("move_most", [False, True])
def test_a_ring_that_moves_more_than_it_must_is_found(
    monkeypatch: pytest.MonkeyPatch, move_most: bool
) -> None:
    """The tables of the ring are right, so they are made wrong."""

    def wrong(nodes: dict[str, float]) -> tuple[str, ...]:
        names = sorted(nodes)
        if move_most:  # to the joiner, but all of it
            return (names[-1],) * 4096
        return tuple(names[slot % len(names)] for slot in range(4096))

    monkeypatch.setattr(history, "build_table", wrong)
    history._table_of.cache_clear()
    try:
        found = violations(replace(SOUND, installs=[]))
    finally:
        history._table_of.cache_clear()
    assert any(line.startswith(f"{ONLY_THEIRS}: ") for line in found), found
    assert any("is the most" in line for line in found) or not move_most, found


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
