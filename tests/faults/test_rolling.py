"""Nodes that leave in order, one after the other under load: nothing runs twice, nothing is burnt, nobody is let down.

With RabbitMQ and without; by a signal, and by an operator's request to another node.
"""

from __future__ import annotations

import signal
import sys
from typing import Final

import pytest

from tests.faults.callers import Callers, Request
from tests.faults.rig import Node, Rig
from tests.faults.stage import Appearance
from tests.support.processes import spawned, wait_until

RELEASED: Final = 3  # attempt.kind
LEFT: Final = 8  # lease.state
WORK: Final = 15  # tasks accepted that show that work goes on
HELD: Final = 12
GONE_S: Final = 15.0  # a node whose work has ended leaves at once; two busy cores are slow
REQUESTS: Final = (Request("act"), Request("act_in_thread"), Request("act"), Request("act_in_process"))

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def nodes(rig: Rig) -> list[Node]:
    made = [rig.node(name, start=False, DRAIN_S="60") for name in "abc"]
    rig.start_all()
    wait_owners(made, {"a", "b", "c"})
    return made


def wait_owners(asked: list[Node], names: set[str]) -> None:
    """Until all of those asked see that these own slots, and nobody else."""

    def agreed() -> bool:
        return all({name for name, slots in node.slots().items() if slots} == names for node in asked)

    wait_until(agreed, 20, lambda: f"owners {names}: {[node.ring() for node in asked]}")


def in_hand(rig: Rig, nodes: list[Node], name: str) -> list[Appearance]:
    """Bodies that run somewhere, and end when `name` is released."""
    rig.stage.hold(name)
    ids = [nodes[number % len(nodes)].accepted("act", name=name) for number in range(HELD)]
    return [rig.stage.wait_id(task_id) for task_id in ids]


def by_signal(node: Node, _others: list[Node]) -> None:
    node.process.signal(signal.SIGTERM)


def by_request(node: Node, others: list[Node]) -> None:
    answer = others[0].ask("POST", f"/v1/cluster/nodes/{node.name}/drain")
    assert answer.status == 202, answer


@pytest.mark.parametrize("rig", ["PostgreSQL only", "RabbitMQ"], indirect=True)
def test_a_rolling_restart_repeats_nothing_burns_nothing_and_fails_nobody(
    rig: Rig, nodes: list[Node]
) -> None:
    held: list[Appearance] = []
    with Callers(rig, nodes, REQUESTS) as callers:
        for node, leave in zip(nodes, (by_signal, by_request, by_signal), strict=True):
            callers.wait_accepted(WORK)
            held += in_hand(rig, nodes, f"in hand when {node.name} leaves")
            with callers.without(node):
                leave(node, [other for other in nodes if other is not node])
                node.process.wait_line("draining for at most")
                callers.wait_accepted(WORK)  # the others go on
                rig.stage.release(f"in hand when {node.name} leaves")
                assert node.process.wait_exit(GONE_S) == 0, node.process.output
                node.start()
            wait_owners(nodes, {"a", "b", "c"})
        callers.wait_accepted(WORK)
    assert burnt(rig) == []
    rig.check()
    assert callers.failed() == []
    bodies = [body.id for body in rig.stage.seen()]
    assert len(bodies) == len(set(bodies)), "a body ran twice"
    assert {rig.outcome(body.id)["attempt"] for body in held} == {1}, (
        "what ran when its node left ended there"
    )
    left = rig.sql("SELECT state FROM noria.lease WHERE state <> 1")
    assert [row["state"] for row in left] == [LEFT] * 3


def burnt(rig: Rig) -> list[tuple[int, str]]:
    """(kind, error) of attempts that a budget counts."""
    rows = rig.sql("SELECT kind, error::text AS error FROM noria.attempt WHERE kind <> $1", RELEASED)
    return [(row["kind"], row["error"]) for row in rows]


def test_noria_drain_follows_another_node_until_it_has_left(rig: Rig, nodes: list[Node]) -> None:
    a, b, c = nodes
    bodies = in_hand(rig, nodes, "in hand")
    url = f"http://127.0.0.1:{a.port}"
    with (
        Callers(rig, [a, c], REQUESTS) as callers,
        spawned(sys.executable, "-m", "node.cli", "--url", url, "drain", "b", "--wait") as drain,
    ):
        b.process.wait_line("draining for at most")
        callers.wait_accepted(WORK)
        rig.stage.release("in hand")
        assert b.process.wait_exit(GONE_S) == 0, b.process.output
        assert drain.wait_exit(GONE_S) == 0, drain.output
    wait_owners([a, c], {"a", "c"})
    rig.check()
    assert callers.failed() == []
    assert {rig.outcome(body.id)["attempt"] for body in bodies} == {1}
