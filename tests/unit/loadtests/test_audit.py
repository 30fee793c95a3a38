"""The audit passes a sound run with a kill in it, and fails on the smallest change that must not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loadtests.audit import findings
from loadtests.driver import Mark, Played
from loadtests.journal import Entry
from loadtests.record import End, Record, Task
from loadtests.scenarios import SCENARIOS
from tests.support.history import BURNS_CRASH, DEAD, FAILED, Attempt, Member, Outcome

PLAIN = SCENARIOS[0]
FAULTY = next(scenario for scenario in SCENARIOS if scenario.faults)


class World:
    """Twenty notes; and an order whose node was killed, whose caller got no answer at first."""

    def __init__(self) -> None:
        self.notes = [
            Entry(i, 0.01, 0, "load.note", [f"n{i}"], 202, ids=[f"note-{i}"], new=[True]) for i in range(20)
        ]
        broken = Entry(30.0, 0.01, 1, "load.order", ["o"])
        told = Entry(30.2, 0.01, 0, "load.order", ["o"], 200, ids=["order"], new=[False])
        others = [
            Entry(31.0 + i, 0.01, 0, "load.order", [f"o{i}"], 202, ids=[f"order-{i}"], new=[True])
            for i in range(20)
        ]
        cut = Entry(60.0, 0.01, 0, "load.order", ["late"], cut=True)
        self.orders = [broken, told, *others, cut]
        self.marks = [Mark(30.0, "node b is killed"), Mark(40.0, "node d has joined")]
        self.drained_s: float | None = 1.0
        names = [f"note-{i}" for i in range(20)], ["order", *(f"order-{i}" for i in range(20))]
        tasks = [Task(f"note-{i}", f"n{i}", "load.note", "medium", i) for i in range(20)]
        tasks += [Task("order", "o", "load.order", "medium", 30.0)]
        tasks += [Task(f"order-{i}", f"o{i}", "load.order", "medium", 31.0 + i) for i in range(20)]
        tasks += [
            Task(f"receipt of {one}", None, "load.receipt", "medium", 50.0, order_id=one) for one in names[1]
        ]
        self.record = Record(
            tasks={task.id: task for task in tasks},
            outcomes=[Outcome(id=task.id, attempt=1, result_attempt=1) for task in tasks],
            ends={task.id: End(task.created_s + 1, "a") for task in tasks},
            attempts=[Attempt(id="order", attempt=1, kind=BURNS_CRASH)],
            members=[Member(incarnation=1, node="a", state=1), Member(incarnation=2, node="b", state=DEAD)],
        )
        self.outcome("order", attempt=2, result_attempt=2, crashes=1)
        self.killed = ["b"]
        self.ended: list[str] = []

    def outcome(self, task_id: str, **changes: int) -> None:
        self.record.outcomes = [
            replace(one, **changes) if one.id == task_id else one for one in self.record.outcomes
        ]

    def findings(self) -> list[str]:
        played = [
            Played(PLAIN, 1, 20.0, entries=self.notes, drained_s=self.drained_s),
            Played(FAULTY, 1, 20.0, entries=self.orders, marks=self.marks, drained_s=1.0),
        ]
        return findings(played, self.record, self.killed, self.ended)


def test_a_sound_run_passes() -> None:
    assert World().findings() == []


def test_a_task_whose_caller_never_heard_of_it_passes() -> None:
    world = World()
    world.record.tasks["late"] = Task("late", "late", "load.note", "medium", 60.0)
    world.record.outcomes.append(Outcome(id="late", attempt=1, result_attempt=1))
    assert world.findings() == []


def lost(world: World) -> None:
    del world.record.tasks["note-3"]
    world.record.outcomes = [one for one in world.record.outcomes if one.id != "note-3"]


def without_outcome(world: World) -> None:
    world.record.outcomes = [one for one in world.record.outcomes if one.id != "note-3"]
    world.record.running = ["note-3"]


def two_outcomes(world: World) -> None:
    world.record.outcomes.append(Outcome(id="note-3", attempt=1, result_attempt=1))


def two_ids(world: World) -> None:
    world.notes[4] = replace(world.notes[4], keys=["n3"])


def stale_outcome(world: World) -> None:
    world.outcome("order", attempt=1, result_attempt=1)


def another_result(world: World) -> None:
    world.outcome("order", result_attempt=1)


def nobody_asked(world: World) -> None:
    world.record.tasks["x"] = Task("x", "x", "load.note", "medium", 1.0)
    world.record.outcomes.append(Outcome(id="x", attempt=1, result_attempt=1))


def two_receipts(world: World) -> None:
    world.record.tasks["again"] = Task("again", None, "load.receipt", "medium", 51.0, order_id="order")
    world.record.outcomes.append(Outcome(id="again", attempt=1, result_attempt=1))


def no_receipt(world: World) -> None:
    del world.record.tasks["receipt of order"]
    world.record.outcomes = [one for one in world.record.outcomes if one.id != "receipt of order"]


def foreign_receipt(world: World) -> None:
    world.record.tasks["receipt of order"] = replace(
        world.record.tasks["receipt of order"], order_id="nothing"
    )


def dead_letter(world: World) -> None:
    world.outcome("note-3", status=FAILED, failures=1)


def false_death(world: World) -> None:
    world.record.members.append(Member(incarnation=3, node="c", state=DEAD))


def node_gone(world: World) -> None:
    world.ended.append("node c ended with 70")


def internal_error(world: World) -> None:
    world.orders[0] = replace(world.orders[0], status=500)


def no_retry_after(world: World) -> None:
    world.orders[0] = replace(world.orders[0], status=503)


def unanswered_without_a_kill(world: World) -> None:
    world.notes.append(Entry(20.0, 0.01, 0, "load.note", ["n3"]))


def too_many_refused(world: World) -> None:
    world.orders += [replace(world.orders[0], status=503, retry_after=True)] * 2


def nothing_accepted(world: World) -> None:
    world.notes = [replace(one, status=503, ids=None, new=None, retry_after=True) for one in world.notes]


def no_join(world: World) -> None:
    world.marks.pop()


def not_drained(world: World) -> None:
    world.drained_s = None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lost, "every 2xx is on record: note-3"),
        (without_outcome, "note-3 is still running"),
        (two_outcomes, "note-3 is in ['outcome', 'outcome']"),
        (two_ids, "'n3' was answered with 2 tasks"),
        (stale_outcome, "attempt 1 committed after attempts [1]"),
        (another_result, "with the result of 1"),
        (nobody_asked, "nobody was told so"),
        (two_receipts, "order has 2"),
        (no_receipt, "order has 0"),
        (foreign_receipt, "nothing is no order on record"),
        (dead_letter, "note-3 (load.note) did not"),
        (false_death, "incarnation 3 of c was without a fault"),
        (node_gone, "node c ended with 70"),
        (internal_error, "1 requests were answered 500"),
        (no_retry_after, "without Retry-After"),
        (unanswered_without_a_kill, "1 requests were not answered, though"),
        (too_many_refused, "3 of 24 requests were not accepted"),
        (nothing_accepted, "nothing was accepted"),
        (no_join, "only 1 of 2 faults"),
        (not_drained, "work was left"),
    ],
)
def test_what_must_not_be_is_found(change: Callable[[World], None], words: str) -> None:
    world = World()
    change(world)
    found = world.findings()
    assert any(words in line for line in found), found


def test_one_refusal_in_twenty_is_allowed() -> None:
    world = World()
    world.notes.append(Entry(20.0, 0.01, 0, "load.note", ["n3"], 503, retry_after=True))
    assert world.findings() == []
