"""A deploy that rolls over three nodes under load: new handlers, changed arguments, changed defaults.

While both versions run, callers post requests of both at any node. What a node cannot bind it leaves to others: nothing
fails, nothing is burnt, and no node tries twice.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from runtime.adapters.postgres.migrate import NEWEST_SCHEMA, Migration, apply, known
from tests.faults.callers import ACCEPTED, Callers, Request, post
from tests.faults.rig import Node, Rig
from tests.support.processes import wait_until

HERE: Final = Path(__file__).parent
V1, V2 = str(HERE / "deploy_v1.py"), str(HERE / "deploy_v2.py")
FOR_BOTH: Final = (Request("order"), Request("ship"))
FOR_V1: Final = (
    Request("invoice", {"cents": 5}, versioned=True),
    Request("ship", {"note": "fragile"}, versioned=True),
)
OF_V1: Final = ('%"note"%', '%"cents":5}')  # what their payloads look like, and no others
FOR_V2: Final = (
    Request("order", {"gift": True}),
    Request("invoice", {"cents": 5, "currency": "EUR"}),
    Request("refund"),
)
RELEASED: Final = 3  # attempt.kind
USAGE: Final = 2  # exit code of a node that cannot work with its settings
WORK: Final = 30
TAIL: Final = 20  # tasks that one version only can bind, due at the same moment
TAIL_S: Final = 3.0
BUSY_S: Final = 3.0  # what two cores may take longer that several test runs share

pytestmark = pytest.mark.timeout(240)


def replaced(rig: Rig, callers: Callers, old: Node) -> Node:
    """The node leaves, and comes back with the second version: same name, other port."""
    with callers.without(old):
        old.process.signal(signal.SIGTERM)
        assert old.process.wait_exit(30) == 0, old.process.output
        new = rig.node(old.name, HANDLERS=V2)
        callers.nodes[callers.nodes.index(old)] = new
    return new


def open_of(rig: Rig, payload: str) -> list[str]:
    """Tasks without an outcome whose payload looks like this (SQL LIKE)."""
    ask = (
        "SELECT t.id::text AS id FROM noria.task t LEFT JOIN noria.outcome o ON o.id = t.id"
        " WHERE o.id IS NULL AND convert_from(t.payload, 'UTF8') LIKE $1"
    )
    return [row["id"] for row in rig.sql(ask, payload)]


def wait_none_open(rig: Rig, payload: str, timeout_s: float = 60) -> None:
    wait_until(lambda: not open_of(rig, payload), timeout_s, lambda: f"open: {open_of(rig, payload)}")


def tail(rig: Rig, node: Node, request: Request, mark: str) -> float:
    """Tasks that only some nodes can bind, given to this one and found by whoever looks first once they are due: how
    many seconds passed from then until the last had ended."""
    ids = []
    for number in range(TAIL):
        payload = {"name": f"{mark}-{number}", **request.payload}
        body = {
            "handler": request.handler,
            "payload": payload,
            "idempotency_key": f"{mark}-{number}",
            "delay_s": 2,
        }
        asked_s = time.time()
        answer, why = post(node, body)
        assert answer.status in ACCEPTED, f"{answer} {why}"
        rig.note(str(body.pop("idempotency_key")), mark, answer, asked_s)
        ids.append(answer.id)
    wait_none_open(rig, f"%{mark}-%", 90)
    [row] = rig.sql(
        "SELECT extract(epoch FROM max(o.finished_at) - max(t.run_at))::float8 AS tail_s FROM noria.task t"
        " JOIN noria.outcome o ON o.id = t.id WHERE t.id = ANY($1::text[]::uuid[])",
        ids,
    )
    return float(row["tail_s"])


@pytest.mark.parametrize("rig", ["PostgreSQL only", "RabbitMQ"], indirect=True)
def test_a_deploy_under_load_fails_nothing_and_no_node_tries_twice(rig: Rig) -> None:
    old = [rig.node(name, start=False, HANDLERS=V1) for name in "abc"]
    rig.start_all()
    tails: dict[str, float] = {}
    with Callers(rig, old, [*FOR_BOTH, *FOR_V1]) as callers:
        callers.wait_accepted(WORK)
        new = replaced(rig, callers, old[0])
        callers.requests = (*FOR_BOTH, *FOR_V1, *FOR_V2)  # at any node, from the first moment
        callers.wait_accepted(WORK)
        tails["one of three nodes has v2"] = tail(rig, new, FOR_V2[1], "two")
        replaced(rig, callers, old[1])
        callers.wait_accepted(WORK)
        tails["one of three nodes has v1"] = tail(rig, old[2], FOR_V1[0], "one")
        callers.requests = (*FOR_BOTH, *FOR_V2)
        callers.wait_accepted(WORK)
        for like in OF_V1:  # who takes the last v1 away sees first that nothing waits for it
            wait_none_open(rig, like)
        replaced(rig, callers, old[2])
        callers.wait_accepted(WORK)
    rig.check()
    assert callers.failed() == []
    assert {row["kind"] for row in rig.sql("SELECT kind FROM noria.attempt")} == {RELEASED}
    outcomes = rig.sql("SELECT status, failures, crashes, count(*) AS n FROM noria.outcome GROUP BY 1, 2, 3")
    assert [(row["status"], row["failures"], row["crashes"]) for row in outcomes] == [(0, 0, 0)]
    twice = (
        "SELECT id FROM noria.attempt WHERE error IS NOT NULL GROUP BY id, incarnation HAVING count(*) > 1"
    )
    assert rig.sql(twice) == [], "a node tries once; what it hands back as it leaves has no error"
    bodies = [body.id for body in rig.stage.seen()]
    assert len(bodies) == len(set(bodies)), "a body ran twice"
    assert max(tails.values()) <= TAIL_S + BUSY_S, tails


def migrated(rig: Rig, *more: Migration) -> None:
    """The record as a later release leaves it."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves the thread's loop alone
        runner.run(apply(rig.dsn, (*known(), *more)))


def test_nodes_work_with_the_schema_of_a_later_release_unless_it_says_that_they_must_not(rig: Rig) -> None:
    running = rig.node("a")
    later = Migration(NEWEST_SCHEMA + 1, "later", "ALTER TABLE noria.task ADD COLUMN later integer;")
    migrated(rig, later)  # while a node runs
    started = rig.node("b")
    for node in (running, started):
        node.accepted("act", name=node.name)
    rig.check()
    last = NEWEST_SCHEMA + 2
    breaking = Migration(last, "breaking", f"-- needs: {last}\nALTER TABLE noria.task DROP COLUMN later;")
    migrated(rig, later, breaking)
    refused = rig.node("c", start=False)
    refused.start(wait=False)
    assert refused.process.wait_exit(30) == USAGE
    assert f"needs one that knows migration {last}; this one knows {NEWEST_SCHEMA}" in refused.process.output
    assert "Traceback" not in refused.process.output


def test_nodes_that_start_at_once_on_an_empty_database_migrate_it_once(rig: Rig) -> None:
    for name in "abc":
        rig.node(name, start=False)
    rig.start_all()
    for node in rig.nodes:
        node.accepted("act", name=node.name)
    rig.check()
    rows = rig.sql("SELECT version FROM noria.migration ORDER BY version")
    assert [row["version"] for row in rows] == [migration.version for migration in known()]
