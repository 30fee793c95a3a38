"""kill -9 amid a batch: each of its tasks runs again, and ends once; one that kills its process is called alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.faults.rig import Rig
from tests.faults.stage import DIE

HANDLERS: Final = str(Path(__file__).with_name("batch_handlers.py"))


@pytest.mark.timeout(180)
def test_tasks_of_a_call_and_tasks_that_gather_outlive_their_node(rig: Rig) -> None:
    node = rig.node(LEASE_S="1", HANDLERS=HANDLERS)
    rig.stage.hold("held")
    called = [node.accepted("act_together", key=f"held-{n}", name="held") for n in range(3)]
    bodies = [rig.stage.wait_id(task_id) for task_id in called]
    gathers = node.accepted("act_together", key="gathers", name="free")
    assert node.view(gathers)["state"] == "running"
    rig.stage.tell(bodies[1], DIE)
    node.died(-9)
    rig.stage.release("held")
    node.start()
    late = [node.accepted("act_together", name="free") for _ in range(2)]  # six: two full batches
    rig.check()
    for task_id in [*called, gathers]:
        outcome = rig.outcome(task_id)
        assert (outcome["status"], outcome["attempt"], outcome["crashes"]) == (0, 2, 1)
    assert {rig.outcome(task_id)["attempt"] for task_id in late} == {1}


@pytest.mark.timeout(180)
def test_who_kills_the_process_is_found_among_those_called_with_it(rig: Rig) -> None:
    node = rig.node(LEASE_S="1", HANDLERS=HANDLERS)
    rig.stage.hold("neighbour")
    rig.stage.always("poison", DIE)
    neighbours = [node.accepted("act_together", name="neighbour") for _ in range(2)]
    poison = node.accepted("act_together", name="poison")
    for _ in range(2):  # with all of them
        node.died(-9)
        node.start()
    rig.stage.release("neighbour")
    node.died(-9)  # alone
    node.start()
    rig.check()
    assert (rig.outcome(poison)["status"], rig.outcome(poison)["crashes"]) == (1, 3)
    assert [rig.outcome(task_id)["status"] for task_id in neighbours] == [0, 0]
