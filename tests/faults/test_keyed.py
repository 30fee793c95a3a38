"""Keyed actors while nodes are killed, frozen and cut off: each state is the fold of the messages that committed."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.faults.rig import HANDLERS, LEASE_S, Node, Rig
from tests.support.history import violations
from tests.support.processes import wait_until

EXIT_DEAD: Final = 75
ACTORS: Final = f"{HANDLERS},{Path(__file__).with_name('keyed_handlers.py')}"
KEYS: Final = ("a", "b", "c", "d")
MESSAGES: Final = 60  # per key


def two_nodes(rig: Rig) -> tuple[Node, Node]:
    one, other = (rig.node(name, start=False, HANDLERS=ACTORS) for name in ("one", "other"))
    rig.start_all()
    return one, other


def entries(rig: Rig, key: str) -> list[int]:
    rows = rig.sql("SELECT state FROM noria.actor WHERE type = 'ledger' AND key = $1", key)
    return list(json.loads(rows[0]["state"])["entries"]) if rows and rows[0]["state"] else []


def send_in_order(nodes: tuple[Node, Node], key: str) -> None:
    """Each message is sent when the one before was answered; what got no answer is repeated, to the other node."""
    for n in range(MESSAGES):
        until_s = time.monotonic() + 30
        turn = n
        while True:
            answer = nodes[turn % 2].post(
                "ledger.copy", key=f"{key}-{n}", n=n, to="all", _actor_key=key, timeout_s=3
            )
            if answer.status in {200, 202}:
                break
            assert answer.status in {None, 503}, answer
            assert time.monotonic() < until_s, f"{key}-{n} is not accepted"
            turn += 1


@pytest.mark.timeout(300)
def test_a_state_is_the_fold_of_its_messages_whatever_is_killed(rig: Rig) -> None:
    nodes = two_nodes(rig)
    with ThreadPoolExecutor(len(KEYS)) as pool:
        sending = [pool.submit(send_in_order, nodes, key) for key in KEYS]
        for victim, at in ((nodes[0], 8), (nodes[1], 25), (nodes[0], 45)):
            wait_until(
                lambda at=at: all(len(entries(rig, key)) >= at for key in KEYS), 40, f"{at} of each key"
            )
            victim.kill()
            victim.start()
        for sent in sending:
            sent.result(60)
    rig.wait_final(40)
    assert {key: entries(rig, key) for key in KEYS} == {key: list(range(MESSAGES)) for key in KEYS}
    assert sorted(entries(rig, "all")) == sorted(n for n in range(MESSAGES) for _ in KEYS)
    found = violations(rig.history())
    assert [line for line in found if not line.startswith("nothing is on record that nobody asked")] == []


@pytest.mark.timeout(180)
def test_a_zombie_owner_commits_no_state(rig: Rig) -> None:
    """The other node has the key, and the same message in hand, when the owner wakes and returns."""
    nodes = two_nodes(rig)
    rig.stage.hold("held")
    first = nodes[0].accepted("ledger.append", key="first", n=1, name="held", _actor_key="z")
    second = nodes[0].accepted("ledger.append", key="second", n=2, _actor_key="z")
    early = rig.stage.wait_id(first, attempt=1)
    owner, other = nodes if nodes[0].process.pid == early.pid else reversed(nodes)
    owner.freeze()
    rig.stage.tell(early)
    late = rig.stage.wait_id(first, attempt=2, timeout_s=LEASE_S + 5)
    assert late.pid == other.process.pid
    owner.thaw()
    owner.died(EXIT_DEAD)
    assert entries(rig, "z") == [], "the zombie committed"
    rig.stage.tell(late)
    rig.wait_final()
    assert entries(rig, "z") == [1, 2]
    outcomes = [rig.outcome(task_id) for task_id in (first, second)]
    assert [outcome["incarnation"] for outcome in outcomes] == [other.incarnation] * 2
    assert outcomes[0]["attempt"] == 2
    rig.check()


@pytest.mark.timeout(180)
def test_a_body_stops_before_its_key_is_taken_over(rig: Rig) -> None:
    """The owner is cut off from PostgreSQL and lives: its lease runs out while its body waits."""
    one = rig.node("one", HANDLERS=ACTORS, wired=True)
    rig.stage.hold("held")
    first = one.accepted("ledger.append", key="first", n=1, name="held", _actor_key="c")
    early = rig.stage.wait_id(first, attempt=1)
    other = rig.node("other", HANDLERS=ACTORS)
    cut = rig.befall("cut", one)
    one.to_record.cut()
    late = rig.stage.wait_id(first, attempt=2, timeout_s=LEASE_S + 8)
    assert late.pid == other.process.pid
    rig.stage.wait_end(early)
    assert early.ended_s is not None
    assert early.ended_s < late.started_s, "both bodies ran"
    one.to_record.mend()
    cut.over()
    rig.stage.tell(late)
    rig.wait_final()
    assert entries(rig, "c") == [1]
    assert rig.outcome(first)["incarnation"] == other.incarnation
