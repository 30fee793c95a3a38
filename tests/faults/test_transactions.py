"""kill -9 of a node between every two steps of a handler's transaction: what it wrote is there once, with its outcome."""

from __future__ import annotations

from typing import Final

import pytest

from tests.faults.rig import Node, Rig

TABLE: Final = "CREATE TABLE effect (task uuid NOT NULL, attempt integer NOT NULL)"


def begin(rig: Rig, node: Node, *names: str) -> dict[str, str]:
    """Bodies that have written, and wait on the stage with their transaction open; ids by name."""
    rig.stage.hold(*names)
    ids = {name: node.accepted("writes", name=name) for name in names}
    for task_id in ids.values():
        rig.stage.wait_id(task_id)
    return ids


def expect(rig: Rig, ids: dict[str, str], attempt: int) -> None:
    """Each succeeded in this attempt; its effect is that of this attempt, once; and so is its child."""
    rig.wait_final()
    for name, task_id in ids.items():
        effects = rig.sql("SELECT attempt FROM effect WHERE task = $1::text::uuid", task_id)
        outcome = rig.outcome(task_id)
        assert (name, outcome["status"], outcome["attempt"]) == (name, 0, attempt)
        assert (name, [row["attempt"] for row in effects]) == (name, [attempt])
    [row] = rig.sql("SELECT count(*) AS count FROM noria.task WHERE created_by = '' OR created_by IS NULL")
    assert row["count"] == rig.sql("SELECT count(*) AS count FROM effect")[0]["count"], "a child each"


@pytest.mark.timeout(120)
def test_a_node_is_killed_between_every_two_steps(rig: Rig) -> None:
    rig.sql(TABLE)
    node = rig.node()

    written = begin(rig, node, "written")  # the transaction is open, the body goes on
    node.kill()
    rig.stage.release("written")
    node.start()
    expect(rig, written, 2)

    returned = begin(rig, node, "returned")  # the fence waits for its lock
    with rig.record.locked(rig.database, "noria.running"):
        rig.stage.release("returned")
        rig.record.wait_held(rig.database, "handlers", "relation")
        node.kill()
        rig.record.end_backends(rig.database)
    node.start()
    expect(rig, returned, 2)

    fenced = begin(rig, node, "fenced")  # the outcome is written, its child is not
    with rig.record.locked(rig.database, "noria.task"):
        rig.stage.release("fenced")
        rig.record.wait_held(rig.database, "handlers", "relation")
        node.kill()
        rig.record.end_backends(rig.database)
    node.start()
    expect(rig, fenced, 2)

    committed = begin(rig, node, "committed")  # on record, and nobody was told
    with rig.record.unanswered():
        rig.stage.release("committed")
        rig.record.wait_held(rig.database, "handlers", "SyncRep")
        node.kill()
    node.start()
    expect(rig, committed, 1)


@pytest.mark.timeout(120)
def test_an_answer_that_is_lost_is_looked_for(rig: Rig) -> None:
    """The node lives, the connection dies: before the commit it runs again, after the commit it does not."""
    rig.sql(TABLE)
    node = rig.node()

    before = begin(rig, node, "before")
    with rig.record.locked(rig.database, "noria.task"):
        rig.stage.release("before")
        rig.record.end(rig.record.wait_held(rig.database, "handlers", "relation"))
    expect(rig, before, 2)
    assert rig.sql("SELECT kind FROM noria.attempt WHERE kind <> 3") == [], "released: it burnt nothing"

    after = begin(rig, node, "after")
    with rig.record.unanswered():
        rig.stage.release("after")
        rig.record.end(rig.record.wait_held(rig.database, "handlers", "SyncRep"))
    expect(rig, after, 1)
    assert node.view(after["after"])["result"] == 1
    assert node.metric('noria_handler_transactions_total{end="lost"}') == 2
    assert node.metric("noria_fenced_commits_total") in {None, 0}
