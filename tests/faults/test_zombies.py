"""A node is stopped for longer than its lease and wakes up while another has taken over: it commits nothing."""

from __future__ import annotations

import threading
import time
from typing import Final

import pytest

from tests.faults.rig import LEASE_S, Rig

EXIT_DEAD: Final = 75
_MARGIN_S: Final = 0.5


@pytest.mark.timeout(180)
def test_a_zombie_commits_nothing_and_ends(rig: Rig) -> None:
    """The second node has the same work in hand when the first one wakes and returns."""
    first, second = rig.two_nodes("first", "second")
    rig.stage.hold("taken-over")
    ids = [first.accepted("act", key=f"taken-{n}", name="taken-over") for n in range(5)]
    ids.append(first.accepted("act_in_thread", key="taken-thread", name="taken-over"))
    early = [rig.stage.wait_id(task_id, attempt=1) for task_id in ids]
    first.freeze()
    frozen_s = time.monotonic()
    for body in early:
        rig.stage.tell(body)  # the zombie's bodies return the moment it wakes
    late = [rig.stage.wait_id(task_id, attempt=2) for task_id in ids]
    taken_s = time.monotonic() - frozen_s
    threading.Event().wait(max(0.0, 3 * LEASE_S - taken_s))  # the length of the fault
    first.thaw()
    first.died(EXIT_DEAD)
    assert [rig.outcome(task_id) for task_id in ids] == [None] * len(ids), "the zombie committed"
    for body in late:
        rig.stage.tell(body)
    rig.check()
    for task_id in ids:
        outcome = rig.outcome(task_id)
        assert (outcome["attempt"], outcome["incarnation"], outcome["crashes"]) == (2, second.incarnation, 1)
    assert taken_s <= LEASE_S + 2 + _MARGIN_S, f"taken over after {taken_s:.2f} s"
    assert "declared dead" in first.process.output
    first.start()  # and it comes back as a new one
    assert first.incarnation > second.incarnation
    assert first.view(first.accepted("act", name="back"), wait_s=10)["state"] == "succeeded"
    rig.check()
