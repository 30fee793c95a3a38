"""SIGTERM: what ends in time is finished, the rest is handed back, and no budget is burnt."""

from __future__ import annotations

import signal
import time
from typing import Final

import pytest

from tests.faults.rig import Rig
from tests.support.history import check

RELEASED: Final = 3  # attempt.kind
DRAIN_S: Final = 2.0


@pytest.mark.timeout(180)
def test_drain_finishes_what_ends_in_time_and_hands_back_the_rest(rig: Rig) -> None:
    node = rig.node(CONCURRENCY="6", THREADS="1", DRAIN_S=f"{DRAIN_S:g}")
    rig.stage.hold("ends", "goes-on", "stuck-thread")
    ends = [node.accepted("act", name="ends") for _ in range(3)]
    handed_back = [node.accepted("act", name="goes-on") for _ in range(3)]
    handed_back.append(node.accepted("act_in_thread", name="stuck-thread"))  # a thread cannot be stopped
    for task_id in ends + handed_back:
        rig.stage.wait_id(task_id)
    queued = [node.accepted("act", name="queued") for _ in range(5)]  # no room for them
    asked_s = time.monotonic()
    node.process.signal(signal.SIGTERM)
    node.process.wait_line("draining for at most")
    assert node.ask("GET", "/readyz").status == 503
    rig.stage.release("ends")
    code = node.process.wait_exit(DRAIN_S + 8)
    took_s = time.monotonic() - asked_s
    assert code == 0, node.process.output
    assert DRAIN_S <= took_s <= DRAIN_S + 4, f"drained in {took_s:.1f} s"
    assert [rig.outcome(task_id)["attempt"] for task_id in ends] == [1, 1, 1]
    waiting = {
        row["id"]: row for row in rig.sql("SELECT id::text, attempt, failures, crashes FROM noria.waiting")
    }
    assert set(waiting) == {*handed_back, *queued}
    assert {(row["failures"], row["crashes"]) for row in waiting.values()} == {(0, 0)}
    assert [waiting[task_id]["attempt"] for task_id in handed_back] == [2, 2, 2, 2]
    assert rig.stage.seen("queued") == [], "claimed ahead or not, they had not begun"
    assert rig.sql("SELECT id FROM noria.running") == []
    kinds = rig.sql("SELECT DISTINCT kind FROM noria.attempt")
    assert [row["kind"] for row in kinds] == [RELEASED]
    [member] = rig.sql("SELECT state FROM noria.lease WHERE incarnation = $1", node.incarnation)
    assert member["state"] == 8, "it has left, it has not died"
    rig.stage.release("goes-on", "stuck-thread")
    node.start()
    rig.check()
    for task_id in handed_back + queued:
        outcome = rig.outcome(task_id)
        assert (outcome["status"], outcome["failures"], outcome["crashes"]) == (0, 0, 0)


@pytest.mark.timeout(180)
def test_a_second_signal_ends_at_once(rig: Rig) -> None:
    node = rig.node(DRAIN_S="60")
    rig.stage.hold("endless")
    task_id = node.accepted("act", name="endless")
    rig.stage.wait_id(task_id)
    node.process.signal(signal.SIGTERM)
    node.process.wait_line("draining for at most")
    node.process.signal(signal.SIGTERM)
    asked_s = time.monotonic()
    node.died(130, timeout_s=5)
    assert time.monotonic() - asked_s < 1
    check(rig.history(final=False))
    [left] = rig.sql("SELECT id::text, attempt FROM noria.running")
    assert tuple(left) == (task_id, 1), "others take it over when the lease has run out"
