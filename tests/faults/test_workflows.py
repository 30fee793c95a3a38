"""Fan-outs and joins on real nodes that are killed: no child is lost, none is there twice, every join runs once."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from tests.faults.rig import Rig
from tests.support.history import violations
from tests.support.processes import wait_until

FANS: Final = 6
PARTS: Final = 25
WORDS: Final = ("nothing is on record that nobody asked",)


def ended(rig: Rig) -> int:
    [row] = rig.sql("SELECT count(*) AS count FROM noria.outcome")
    return int(row["count"])


def expect_whole(rig: Rig) -> None:
    """Every part and every join is there once, has succeeded, and nothing of it waits or is left to be told."""
    rig.wait_final(60)
    rows = rig.sql(
        "SELECT b.handler, t.name, t.workflow_id, cardinality(t.parents) AS parents, o.status "
        "FROM noria.task t JOIN noria.band b ON b.id = t.band LEFT JOIN noria.outcome o ON o.id = t.id"
    )
    assert Counter(row["handler"] for row in rows) == {"fan": FANS, "act": FANS * PARTS, "gather": FANS}
    assert {row["status"] for row in rows} == {0}
    children = [row for row in rows if row["workflow_id"] is not None]
    assert len({(row["workflow_id"], row["name"]) for row in children}) == len(children) == FANS * (PARTS + 1)
    assert {row["parents"] for row in children if row["handler"] == "gather"} == {PARTS}
    for table in ("waiting", "running", "parent_end"):
        [row] = rig.sql(f"SELECT count(*) AS count FROM noria.{table}")
        assert row["count"] == 0, table
    [row] = rig.sql("SELECT count(*) AS count FROM noria.dependence WHERE NOT done")
    assert row["count"] == 0
    found = violations(rig.history())
    assert [line for line in found if not line.startswith(WORDS)] == []


@pytest.mark.timeout(150)
def test_nodes_are_killed_amid_fan_outs_and_joins(rig: Rig) -> None:
    one, other = rig.two_nodes("a", "b")
    for n in range(FANS):
        (one, other)[n % 2].accepted("fan", key=f"fan-{n}", name=f"f{n}", count=PARTS)
    for victim, at in ((one, FANS), (other, FANS * PARTS // 2), (one, FANS * PARTS - 5)):
        wait_until(lambda at=at: ended(rig) >= at, 40, lambda at=at: f"{ended(rig)} of {at} have ended")
        victim.kill()
        victim.start()
    expect_whole(rig)


@pytest.mark.timeout(150)
def test_all_nodes_are_killed_while_ends_are_passed_on(rig: Rig) -> None:
    """Before that commits, nobody has heard of it; after, everybody has, and nobody hears of it again."""
    one, other = rig.two_nodes("a", "b")
    rig.stage.hold(*(f"f{n}-{PARTS - 1}" for n in range(FANS)))
    for n in range(FANS):
        (one, other)[n % 2].accepted("fan", key=f"fan-{n}", name=f"f{n}", count=PARTS)
    done = FANS * PARTS
    wait_until(lambda: ended(rig) >= done, 40, lambda: f"{ended(rig)} of {done} have ended")
    with rig.record.locked(rig.database, "noria.dependence"):
        rig.stage.release(*(f"f{n}-{PARTS - 1}" for n in range(FANS)))
        rig.record.wait_held(rig.database, "read", "relation")
        one.kill()
        other.kill()
        rig.record.end_backends(rig.database)
    rig.start_all()
    expect_whole(rig)
