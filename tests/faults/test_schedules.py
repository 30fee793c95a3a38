"""Schedules on real nodes that are killed: every fire time makes exactly one task, whoever dies, and whenever."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from tests.faults.rig import Node, Rig
from tests.support.processes import wait_until

EVERY_SECOND: Final = {
    "cron": "* * * * * *",
    "catch_up": "all",
    "catch_up_max": 1000,
    "task": {"handler": "act", "payload": {"name": "beat"}},
}
SECOND: Final = timedelta(seconds=1)


def put(node: Node) -> None:
    answer = node.ask("PUT", "/v1/schedules/beat", EVERY_SECOND)
    assert answer.status == 200, answer


def fires(rig: Rig) -> list[datetime]:
    """The fire times of its tasks, as their keys tell them."""
    rows = rig.sql("SELECT idempotency_key AS key FROM noria.task WHERE created_by = 'schedule:beat'")
    return sorted(datetime.fromisoformat(row["key"].removeprefix("schedule:beat:")) for row in rows)


def fires_more(rig: Rig, count: int, timeout_s: float = 30) -> None:
    """Until so many more have been stored."""
    enough = len(fires(rig)) + count
    wait_until(lambda: len(fires(rig)) >= enough, timeout_s, lambda: f"fires: {len(fires(rig))} of {enough}")


def expect_each_once(rig: Rig, node: Node) -> None:
    """Paused, so that it stands still: no second is left out, none was fired twice, and all its tasks succeeded."""
    assert node.ask("POST", "/v1/schedules/beat/pause").status == 200
    found = fires(rig)
    assert found == [found[0] + n * SECOND for n in range(len(found))]
    shown: Any = node.ask("GET", "/v1/schedules/beat").body
    assert (shown["fired"], shown["missed"], shown["skipped"]) == (len(found), 0, 0)
    rig.wait_final()
    [row] = rig.sql("SELECT count(*) AS count FROM noria.outcome WHERE status = 0")
    assert row["count"] == len(found)


@pytest.mark.timeout(300)
def test_nodes_are_killed_and_every_second_is_fired_once(rig: Rig) -> None:
    one, other = rig.two_nodes("a", "b")
    put(one)
    for victim in (one, other):
        fires_more(rig, 2)
        victim.kill()
        fires_more(rig, 2)
        victim.start()
    one.kill()
    other.kill()
    gone_s = time.monotonic()
    wait_until(lambda: time.monotonic() > gone_s + 3, 10, lambda: "time stands still")
    rig.start_all()
    fires_more(rig, 2)
    expect_each_once(rig, one)


@pytest.mark.timeout(300)
def test_all_nodes_are_killed_in_the_midst_of_a_fire(rig: Rig) -> None:
    """Before its commit: nothing of it is there. After it: all of it is, and nobody does it again."""
    one, other = rig.two_nodes("a", "b")
    put(one)
    fires_more(rig, 1)
    with rig.record.locked(rig.database, "noria.task"):
        rig.record.wait_held(
            rig.database, "accept", "relation"
        )  # the schedule has moved, its task is not stored
        one.kill()
        other.kill()
        rig.record.end_backends(rig.database)
    before = fires(rig)
    rig.start_all()
    fires_more(rig, 1)
    assert fires(rig)[: len(before)] == before
    with rig.record.unanswered():
        rig.record.wait_held(rig.database, "accept", "SyncRep")
        one.kill()
        other.kill()
        rig.record.end_backends(rig.database)
    rig.start_all()
    fires_more(rig, 1)
    expect_each_once(rig, one)
