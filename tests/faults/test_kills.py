"""kill -9 of a node: nothing that was answered 2xx is lost, nothing is committed twice."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import pytest

from tests.faults.load import Load
from tests.faults.rig import LEASE_S, Answer, Node, Rig

RECOVERY_S: Final = LEASE_S + 2.0
URGENT: Final = "high"  # a band of its own, without a backlog: what is accepted there is born running
Expected = tuple[str, int, list[int]]  # id, attempts in the end, attempts whose body ran


@contextmanager
def posting(node: Node, key: str) -> Iterator[Future[Answer]]:
    """A request whose answer never comes."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(node.post, "act", key=key, name=key, _priority=URGENT)


@pytest.mark.timeout(240)
def test_a_node_is_killed_in_every_phase_and_comes_back(rig: Rig) -> None:
    node = rig.node()
    before = kill_before_commits(rig, node)
    rig.check()  # or repair would settle too, and be taken for the settlement that is waited for
    after = kill_after_commits(rig, node)
    rig.check()
    for phase, (task_id, attempts, bodies) in {**before, **after}.items():
        outcome = rig.outcome(task_id)
        seen = [body.attempt for body in rig.stage.seen(phase)]
        assert (phase, outcome["status"], outcome["attempt"], seen) == (phase, 0, attempts, bodies)
    expect_prompt(rig, node, [after["after claim"][0], after["after accept"][0]])


def kill_before_commits(rig: Rig, node: Node) -> dict[str, Expected]:
    """One body runs, one has returned, one task is being inserted; none of it is ever committed."""
    rig.stage.hold("in body", "before settle")
    in_body = node.accepted("act", key="in body", name="in body")
    before_settle = node.accepted("act", key="before settle", name="before settle")
    rig.stage.wait_id(in_body)
    body = rig.stage.wait_id(before_settle)
    with (
        rig.record.locked(rig.database, "noria.task", "noria.outcome"),
        posting(node, "before accept") as lost,
    ):
        rig.stage.tell(body)
        rig.record.wait_held(rig.database, "accept", "relation")
        rig.record.wait_held(rig.database, "settle", "relation")
        node.kill()
        assert lost.result(5).status is None
        rig.record.end_backends(rig.database)
    rig.stage.release("in body", "before settle")
    node.start()
    repeated = node.post("act", key="before accept", name="before accept", _priority=URGENT)
    assert (repeated.status, repeated.body["duplicate"]) == (202, False), "nothing of it was stored"
    return {
        "in body": (in_body, 2, [1, 2]),
        "before settle": (before_settle, 2, [1, 2]),
        "before accept": (repeated.id, 1, [1]),
    }


def kill_after_commits(rig: Rig, node: Node) -> dict[str, Expected]:
    """An outcome, a claim and an accepted task are on record, and their node never knew."""
    rig.stage.hold("after settle")
    after_settle = node.accepted("act", key="after settle", name="after settle")
    body = rig.stage.wait_id(after_settle)
    after_claim = node.accepted("act", key="after claim", name="after claim", _delay_s=1.5)
    with rig.record.unanswered():
        with posting(
            node, "after accept"
        ) as lost:  # before anything is behind, or it would not be born running
            rig.record.wait_held(rig.database, "accept", "SyncRep")
            rig.stage.tell(body)
            rig.record.wait_held(rig.database, "claim", "SyncRep")
            rig.record.wait_held(rig.database, "settle", "SyncRep")
            node.kill()
            assert lost.result(5).status is None
    rig.stage.release("after settle")
    node.start()
    repeated = node.post("act", key="after accept", name="after accept", _priority=URGENT)
    assert (repeated.status, repeated.body["duplicate"]) == (200, True), "it was stored, and born running"
    return {
        "after settle": (after_settle, 1, [1]),
        "after claim": (after_claim, 2, [2]),
        "after accept": (repeated.id, 2, [2]),
    }


def expect_prompt(rig: Rig, node: Node, ids: list[str]) -> None:
    """What the last incarnation took over began soon after its start: it must be unbroken for one lease."""
    ask = (
        "SELECT extract(epoch FROM o.started_at - l.started_at)::float8 AS late_s FROM noria.outcome o, noria.lease l"
        " WHERE o.id = ANY($1::text[]::uuid[]) AND l.incarnation = $2"
    )
    late = [row["late_s"] for row in rig.sql(ask, ids, node.incarnation)]
    assert len(late) == len(ids)
    assert 0 < max(late) <= RECOVERY_S, f"work went on {late} s after the restart"


@pytest.mark.timeout(240)
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
            handler, payload = asked.pop("handler"), asked.pop("payload")
            options = {f"_{name}": value for name, value in asked.items()}
            again = node.post(handler, key=submission.key, **payload, **options)
            assert (again.status, again.id, again.body["duplicate"]) == (200, submission.id, True)
        rig.check()
    except AssertionError as wrong:
        raise AssertionError(f"seed {seed}: {wrong}") from wrong
