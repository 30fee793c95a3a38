"""PostgreSQL is restarted, crashes or freezes under load: answers stay honest, nobody dies, nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from tests.faults.load import Load
from tests.faults.rig import LEASE_S

if TYPE_CHECKING:
    from tests.faults.rig import Node, Rig

FROZEN_S: Final = 15.0
ANSWERED_S: Final = 2.0
SLACK_S: Final = 0.8  # for two busy cores


def hold_bodies(rig: Rig, node: Node, name: str, count: int) -> list[str]:
    """Tasks whose bodies run now, until `name` is released."""
    rig.stage.hold(name)
    ids = [node.accepted("act", key=f"{name}-{number}", name=name) for number in range(count)]
    for task_id in ids:
        rig.stage.wait_id(task_id)
    return ids


def expect_alive(rig: Rig, *nodes: Node) -> None:
    """The same processes, under the same incarnations, none declared dead."""
    for node in nodes:
        assert node.process.process.poll() is None, node.process.output
    members = rig.sql("SELECT incarnation, state FROM noria.lease ORDER BY incarnation")
    assert [(row["incarnation"], row["state"]) for row in members] == sorted(
        (node.incarnation, 1) for node in nodes
    )


def expect_first_attempts(rig: Rig, ids: list[str]) -> None:
    """They went on through the fault, and committed when it was over."""
    for task_id in ids:
        outcome = rig.outcome(task_id)
        assert (outcome["status"], outcome["attempt"], outcome["crashes"]) == (0, 1, 0)


@pytest.mark.timeout(240)
def test_restarts_under_load(rig: Rig) -> None:
    nodes = rig.two_nodes("a", "b")  # each could declare the other dead
    with Load(*nodes) as load:
        load.wait_accepted(15)
        ids = hold_bodies(rig, nodes[0], "through-restarts", 5)
        for how in (signal.SIGINT, signal.SIGQUIT):  # fast, then immediate: crash recovery
            rig.record.stop(how)
            rig.record.start()
            load.wait_accepted(15)
        rig.stage.release("through-restarts")
    rig.check()
    expect_first_attempts(rig, ids)
    expect_alive(rig, *nodes)


@pytest.mark.timeout(240)
def test_away_for_longer_than_a_lease(rig: Rig) -> None:
    nodes = rig.two_nodes("a", "b")
    ids = hold_bodies(rig, nodes[0], "through-absence", 5)
    rig.record.stop(signal.SIGQUIT)
    began_s = time.monotonic()
    refusals = []
    while time.monotonic() < began_s + LEASE_S * 1.5:
        refusals += [node.post("quick", key="while-away") for node in nodes]
        threading.Event().wait(0.02)  # a load, not a benchmark
    said = nodes[0].process.lines_read
    rig.stage.release("through-absence")
    nodes[0].process.wait_line("outcomes wait for the record", after=said)
    rig.record.start()
    assert {answer.status for answer in refusals} == {503}
    assert all("retry-after" in answer.headers for answer in refusals)
    assert max(answer.took_s for answer in refusals) < ANSWERED_S + SLACK_S
    assert sorted(answer.took_s for answer in refusals)[len(refusals) // 2] < 0.2, "known to be away: at once"
    for node in nodes:
        node.wait_ready()
    rig.check()
    expect_first_attempts(rig, ids)
    expect_alive(rig, *nodes)


@pytest.mark.timeout(240)
def test_frozen_under_load(rig: Rig) -> None:
    nodes = rig.two_nodes("a", "b")
    with Load(*nodes) as load:
        load.wait_accepted(15)
        ids = hold_bodies(rig, nodes[0], "through-freeze", 5)
        rig.record.freeze()
        before = len(load.answers)
        thaw_s = time.monotonic() + FROZEN_S
        with ThreadPoolExecutor(20) as clients:
            # two flushes hold what came first, all others wait behind them
            queued = []
            for number in range(10):
                queued.append(clients.submit(nodes[0].post, "quick", key=f"behind-{number}"))
                threading.Event().wait(0.03)  # one after the other, or one flush takes them all
            waits = [clients.submit(node.ask, "GET", f"/v1/tasks/{ids[0]}?wait=5") for node in nodes]
            alive = [node.ask("GET", "/livez").status for node in nodes]
            ready = [clients.submit(node.ask, "GET", "/readyz") for node in nodes]
            assert alive == [200, 200]
            refused = [answer.result() for answer in queued + ready + waits]
        rig.stage.release("through-freeze")
        load.wait_answers(until_s=thaw_s)
        met = refused + load.answers[before + 3 :]  # the first of each client may have been sent before
        rig.record.thaw()
        load.wait_accepted(15)
    assert {answer.status for answer in met} == {503}, met
    assert max(answer.took_s for answer in met) < ANSWERED_S + SLACK_S, max(a.took_s for a in met)
    rig.check()
    expect_first_attempts(rig, ids)
    expect_alive(rig, *nodes)
