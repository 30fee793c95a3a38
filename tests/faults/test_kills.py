"""kill -9 of a node: nothing that was answered 2xx is lost, nothing is committed twice."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.faults.load import Load
from tests.faults.rig import LEASE_S, Answer, Node, Rig
from tests.faults.stage import DIE

RECOVERY_S = LEASE_S + 2.0  # after the new incarnation's own start: it must be unbroken for one lease


@contextmanager
def posting(node: Node, key: str, name: str) -> Iterator[Future[Answer]]:
    """A request whose answer may never come."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(node.post, "act", key=key, name=name)


def repeat(node: Node, key: str, name: str) -> Answer:
    """What a client does that got no answer: the same again."""
    answer = node.post("act", key=key, name=name)
    assert answer.status in {200, 202}, answer
    return answer


# -- every phase --------------------------------------------------------------------------------------


def before_accept_commits(rig: Rig, node: Node) -> Callable[[], None]:
    """The insert is held, and never committed: nothing of it may be seen."""
    with (
        rig.record.locked(rig.database, "noria.task"),
        posting(node, "before-accept", "before-accept") as lost,
    ):
        rig.record.wait_held(rig.database, "accept", "relation")
        node.kill()
        assert lost.result(5).status is None
        rig.record.end_backends(rig.database)
    node.start()
    answer = repeat(node, "before-accept", "before-accept")
    assert (answer.status, answer.body["duplicate"]) == (202, False)
    return lambda: expect(rig, answer.id, attempts=1, bodies=[1])


def after_accept_committed(rig: Rig, node: Node) -> Callable[[], None]:
    """Stored, born running, and the client was never told."""
    with rig.record.unanswered(), posting(node, "after-accept", "after-accept") as lost:
        rig.record.wait_held(rig.database, "accept", "SyncRep")
        node.kill()
        assert lost.result(5).status is None
    node.start()
    answer = repeat(node, "after-accept", "after-accept")
    assert (answer.status, answer.body["duplicate"]) == (200, True)
    return lambda: expect(rig, answer.id, attempts=2, bodies=[2])


def after_claim_committed(rig: Rig, node: Node) -> Callable[[], None]:
    """On record as running, and its body never began."""
    task_id = node.accepted("act", key="after-claim", name="after-claim", _delay_s=0.5)
    with rig.record.unanswered():
        rig.record.wait_held(rig.database, "claim", "SyncRep")
        node.kill()
    node.start()
    return lambda: expect(rig, task_id, attempts=2, bodies=[2])


def while_the_body_runs(rig: Rig, node: Node) -> Callable[[], None]:
    rig.stage.hold("in-body")
    task_id = node.accepted("act", key="in-body", name="in-body")
    rig.stage.wait("in-body")
    node.kill()
    rig.stage.release("in-body")
    node.start()
    return lambda: expect(rig, task_id, attempts=2, bodies=[1, 2])


def by_its_own_hand(rig: Rig, node: Node) -> Callable[[], None]:
    """A handler kills its own process, as the kernel's memory killer would."""
    rig.stage.hold("suicide")
    task_id = node.accepted("act", key="suicide", name="suicide")
    rig.stage.tell(rig.stage.wait("suicide"), DIE)
    node.died(-9)
    rig.stage.release("suicide")
    node.start()
    return lambda: expect(rig, task_id, attempts=2, bodies=[1, 2])


def before_settle_commits(rig: Rig, node: Node) -> Callable[[], None]:
    """The body has returned, its outcome is held and never committed: it runs again."""
    rig.stage.hold("before-settle")
    task_id = node.accepted("act", key="before-settle", name="before-settle")
    body = rig.stage.wait("before-settle", attempt=1)
    with rig.record.locked(rig.database, "noria.outcome"):
        rig.stage.tell(body)
        rig.record.wait_held(rig.database, "settle", "relation")
        node.kill()
        rig.record.end_backends(rig.database)
    rig.stage.release("before-settle")
    node.start()
    return lambda: expect(rig, task_id, attempts=2, bodies=[1, 2])


def after_settle_committed(rig: Rig, node: Node) -> Callable[[], None]:
    """The outcome is on record, and its node never knew: it must not run again."""
    rig.stage.hold("after-settle")
    task_id = node.accepted("act", key="after-settle", name="after-settle")
    body = rig.stage.wait("after-settle", attempt=1)
    with rig.record.unanswered():
        rig.stage.tell(body)
        rig.record.wait_held(rig.database, "settle", "SyncRep")
        node.kill()
    rig.stage.release("after-settle")
    node.start()
    return lambda: expect(rig, task_id, attempts=1, bodies=[1])


PHASES = (
    before_accept_commits,
    after_accept_committed,
    after_claim_committed,
    while_the_body_runs,
    by_its_own_hand,
    before_settle_commits,
    after_settle_committed,
)


def expect(rig: Rig, task_id: str, *, attempts: int, bodies: list[int]) -> None:
    outcome = rig.outcome(task_id)
    assert (outcome["status"], outcome["attempt"], outcome["crashes"]) == (0, attempts, attempts - 1)
    assert [body.attempt for body in rig.stage.seen() if body.id == task_id] == bodies


@pytest.mark.timeout(120)
def test_a_node_is_killed_in_every_phase_and_comes_back(rig: Rig) -> None:
    node = rig.node()
    expectations = [phase(rig, node) for phase in PHASES]
    rig.check()
    for phase, holds in zip(PHASES, expectations, strict=True):
        try:
            holds()
        except AssertionError as wrong:
            raise AssertionError(f"killed {phase.__name__}: {wrong}") from wrong


@pytest.mark.timeout(60)
def test_work_goes_on_a_lease_after_the_restart(rig: Rig) -> None:
    node = rig.node()
    rig.stage.hold("slow")
    ids = [node.accepted("act", name="slow") for _ in range(20)]
    for task_id in ids:
        rig.stage.wait_id(task_id)
    node.kill()
    rig.stage.release("slow")
    node.start()
    rig.check()
    [joined] = rig.sql("SELECT started_at FROM noria.lease WHERE incarnation = $1", node.incarnation)
    starts = rig.sql("SELECT started_at - $1 AS after, attempt FROM noria.outcome", joined["started_at"])
    assert {row["attempt"] for row in starts} == {2}
    late_s = max(row["after"].total_seconds() for row in starts)
    assert late_s <= RECOVERY_S, f"work went on {late_s:.2f} s after the restart"


@pytest.mark.timeout(120)
def test_kills_at_any_time_under_load(rig: Rig) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    node = rig.node()
    with Load(node) as load:
        for _ in range(3):
            load.wait_accepted(15)
            threading.Event().wait(chance.uniform(0, 0.3))  # the moment of the fault, not a wait for anything
            node.kill()
            node.start()
        load.wait_accepted(15)
    try:
        rig.check()
        for submission in random.Random(seed).sample([s for s in rig.submissions if s.accepted], 20):
            asked = json.loads(submission.request)
            again = node.post(asked["handler"], key=submission.key, **asked["payload"])
            assert (again.status, again.id, again.body["duplicate"]) == (200, submission.id, True)
        rig.check()
    except AssertionError as wrong:
        raise AssertionError(f"seed {seed}: {wrong}") from wrong
