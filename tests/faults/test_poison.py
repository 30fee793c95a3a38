"""A task that takes its process down every time: it goes, its neighbours stay."""

from __future__ import annotations

from typing import Final

import pytest

from tests.faults.rig import Rig
from tests.faults.stage import DIE, EXIT

MAX_CRASHES: Final = 3


@pytest.mark.timeout(240)
def test_a_poison_task_becomes_a_dead_letter_and_its_neighbours_succeed(rig: Rig) -> None:
    node = rig.node(LEASE_S="1")
    rig.stage.hold("neighbour", "poison")
    neighbours = [node.accepted("act", key=f"neighbour-{n}", name="neighbour") for n in range(10)]
    poison = node.accepted("act", key="poison", name="poison")
    for task_id in neighbours:
        rig.stage.wait_id(task_id)
    rig.stage.tell(rig.stage.wait_id(poison), DIE)  # as the kernel's memory killer would
    rig.stage.always("poison", EXIT)
    rig.stage.release("neighbour")
    for code in (-9, 3):
        node.died(code)
        node.start()
        neighbours.append(node.accepted("act", name="neighbour"))
    node.died(3)
    node.start()
    rig.check()
    outcome = rig.outcome(poison)
    assert (outcome["status"], outcome["crashes"], outcome["failures"]) == (1, MAX_CRASHES, 0)
    assert [body.attempt for body in rig.stage.seen("poison")] == [1, 2, 3]
    view = node.view(poison)
    assert view["error"]["type"] == "NodeCrashed"
    assert "nothing beside it" in view["error"]["message"]
    [last] = rig.sql("SELECT count(*) AS dead FROM noria.outcome WHERE status = 1")
    assert last["dead"] == 1
    for task_id in neighbours:
        assert rig.outcome(task_id)["status"] == 0


@pytest.mark.timeout(180)
def test_a_process_of_a_handler_that_dies_takes_nobody_with_it(rig: Rig) -> None:
    node = rig.node()
    rig.stage.hold("neighbour")
    neighbour = node.accepted("act", name="neighbour")
    rig.stage.wait_id(neighbour)
    rig.stage.always("poison", EXIT)
    poison = node.accepted("act_in_process", name="poison")
    view = node.view(poison, wait_s=30)
    rig.stage.release("neighbour")
    assert (view["state"], view["crashes"], view["error"]["type"]) == (
        "failed",
        MAX_CRASHES,
        "ProcessCrashed",
    )
    assert "exited with code 3" in view["error"]["message"]
    assert {attempt["kind"] for attempt in node.attempts(poison)[:-1]} == {"crashed"}
    rig.befall("a process of a handler dies", processes=MAX_CRASHES).over()
    rig.check()
    assert rig.outcome(neighbour)["attempt"] == 1
