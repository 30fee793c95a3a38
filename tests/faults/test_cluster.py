"""Three nodes with PostgreSQL, RabbitMQ and etcd of their own, under load: what befalls one node or one service.

Each test ends with the whole history checked: nothing lost, no stale commit, nobody declared dead without a fault.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import aio_pika
import pytest

from runtime.adapters.rabbitmq.topology import control_queue, work_queue
from runtime.core.ring import build_table, moved
from runtime.core.slots import SLOTS
from tests.faults.services import services
from tests.faults.trio import LEASE_S, Trio, Trios, elapsed, pause, trios
from tests.support.history import DEAD, MOVED_SLACK
from tests.support.processes import wait_until

ACTIVE, LEFT = 1, 8  # lease.state
EXIT_DEAD: Final = 75
SLACK_S: Final = 1.0  # for two busy cores
TAKEN_OVER_S: Final = LEASE_S + 2.0 + SLACK_S
REBALANCED_S: Final = 5.0 + SLACK_S
BACK_S: Final = 20.0
REFUSED_S: Final = 2.8  # 2 s, and some for two busy cores
WORK: Final = 15  # tasks accepted that show that work goes on

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def made() -> Iterator[Trios]:
    with services() as all_three, trios(all_three) as made:
        yield made


@pytest.fixture
def trio(made: Trios) -> Trio:
    return made.get()


# -- one node -----------------------------------------------------------------------------------------


def test_what_a_killed_node_ran_runs_elsewhere_within_its_lease_and_2_s(trio: Trio) -> None:
    with trio.load(trio.a, trio.c) as load:
        bodies = trio.hold("killed")
        lost = trio.on(trio.b, bodies)
        dead = trio.b.incarnation
        trio.b.kill()
        killed_s = time.monotonic()
        taken_s = trio.taken_over_s(killed_s, lost, TAKEN_OVER_S + 10)
        assert taken_s <= TAKEN_OVER_S, f"{len(lost)} tasks were taken over after {taken_s:.1f} s"
        assert trio.state(dead) == DEAD
        load.wait_accepted(WORK)
        trio.stage.release("killed")
    trio.check()
    assert {trio.rig.outcome(body.id)["attempt"] for body in lost} == {2}
    others = [body for body in bodies if body not in lost]
    assert {trio.rig.outcome(body.id)["attempt"] for body in others} == {1}, "nobody else was disturbed"


def test_a_frozen_node_that_wakes_after_its_lease_commits_nothing_and_ends(trio: Trio) -> None:
    with trio.load(trio.a, trio.c):
        lost = trio.on(trio.b, trio.hold("frozen"))
        trio.b.freeze()
        frozen_s = time.monotonic()
        for body in lost:
            trio.stage.tell(body)  # they return the moment it wakes
        taken_s = trio.taken_over_s(frozen_s, lost, TAKEN_OVER_S + 10)
        trio.b.thaw()
        trio.b.died(EXIT_DEAD)
        assert taken_s <= TAKEN_OVER_S, f"{len(lost)} tasks were taken over after {taken_s:.1f} s"
        assert [trio.rig.outcome(body.id) for body in lost] == [None] * len(lost), "the zombie committed"
        trio.stage.release("frozen")
    trio.check()
    assert {trio.rig.outcome(body.id)["attempt"] for body in lost} == {2}


def test_a_node_that_is_not_heard_loses_its_slots_and_nothing_else(trio: Trio) -> None:
    """It stands still for less than its lease. No row of what waits is written for that: rows carry slots, not nodes."""
    with trio.load(trio.a, trio.b) as load, many_that_wait(trio) as fingerprint:
        held = trio.on(trio.c, trio.hold("stopped"))
        before, view = fingerprint(), trio.a.ring()["view"]
        trio.c.freeze()
        stopped_s = time.monotonic()
        trio.wait_slots([trio.a, trio.b], {"a", "b"})
        rebalanced_s = elapsed(stopped_s)
        load.wait_accepted(WORK)
        trio.c.thaw()
        trio.wait_slots(trio.nodes, {"a", "b", "c"})
        assert rebalanced_s <= REBALANCED_S, f"rebalanced after {rebalanced_s:.1f} s"
        assert trio.state(trio.c.incarnation) == ACTIVE, "unreachable is not dead"
        assert trio.a.ring()["view"] >= view + 2
        assert fingerprint() == before, "rows that wait were written or locked"
        trio.stage.release("stopped")
    trio.check()
    assert {trio.rig.outcome(body.id)["attempt"] for body in held} == {1}, "its work was its own"


@contextmanager
def many_that_wait(trio: Trio) -> Iterator[Callable[[], tuple[int, int]]]:
    """50,000 rows that are due and that nobody takes, for no node bears their tag; their number and a sum over where each
    stands and which transactions wrote or locked it."""
    sql = trio.rig.sql
    sql(
        "INSERT INTO noria.band (lane, keyed, handler, tenant, requires)"
        " VALUES (1, false, 'huge', 'default', '{nobody}') ON CONFLICT DO NOTHING"
    )
    [band] = sql("SELECT id FROM noria.band WHERE handler = 'huge'")
    sql(
        "INSERT INTO noria.waiting (id, due, seq, band, attempt, slot) SELECT gen_random_uuid(), clock_timestamp(), n,"
        " $1, 1, n % 4096 FROM generate_series(1, 50000) n", band["id"]
    )  # fmt: skip
    look = (
        "SELECT count(*) AS rows, sum(hashtext(ctid::text || ' ' || xmin::text || ' ' || xmax::text)::bigint) AS sum"
        " FROM noria.waiting WHERE band = $1"
    )

    def fingerprint() -> tuple[int, int]:
        [row] = sql(look, band["id"])
        return row["rows"], int(row["sum"])

    try:
        yield fingerprint
    finally:
        sql("DELETE FROM noria.waiting WHERE band = $1", band["id"])


def test_a_node_cut_off_from_rabbitmq_only_works_on_and_comes_back(trio: Trio) -> None:
    with trio.load() as load:
        held = trio.on(trio.c, trio.hold("cut off"))
        cut = trio.rig.befall("a node is cut off from RabbitMQ")
        trio.c.to_rabbitmq.cut()
        trio.wait_slots([trio.a, trio.b], {"a", "b"})
        load.wait_accepted(WORK)
        trio.stage.release("cut off")
        for body in held:
            trio.stage.wait_end(body)
        through_it = trio.c.accepted("act", name="through it")  # it still accepts
        assert trio.a.view(through_it, wait_s=10)["state"] == "succeeded"
        trio.c.to_rabbitmq.mend()
        cut.over()
        trio.wait_slots(
            trio.nodes, {"a", "b", "c"}, BACK_S + 20
        )  # it has to notice that its old connection is dead
        assert trio.state(trio.c.incarnation) == ACTIVE
    trio.check()
    assert {trio.rig.outcome(body.id)["attempt"] for body in held} == {1}


def test_a_node_cut_off_from_postgresql_only_refuses_and_is_taken_over(trio: Trio) -> None:
    c = trio.rig.node("d", wired=True, LEASE_S=f"{LEASE_S:g}")
    try:
        trio.wait_slots([*trio.nodes, c], {"a", "b", "c", "d"})
        with trio.load(trio.a, trio.b):
            lost = trio.on(c, trio.hold("no record", 40))
            cut = trio.rig.befall("cut", c)
            c.to_record.cut()
            cut_s = time.monotonic()
            refused = c.post("quick", key="refused")
            assert (refused.status, refused.took_s < REFUSED_S) == (503, True), refused
            taken_s = trio.taken_over_s(cut_s, lost, TAKEN_OVER_S + 10)
            assert taken_s <= TAKEN_OVER_S, f"{len(lost)} tasks were taken over after {taken_s:.1f} s"
            c.to_record.mend()
            cut.over()
            c.died(EXIT_DEAD)
            trio.stage.release("no record")
        trio.check()
    finally:
        trio.rig.nodes.remove(c)
        c.close()
        c.close()


# -- the ring -----------------------------------------------------------------------------------------


def test_a_join_moves_only_slots_to_the_joiner_and_a_drain_repeats_nothing(trio: Trio) -> None:
    with trio.load() as load, many_that_wait(trio) as fingerprint:
        held = trio.hold("while joining")
        waited = fingerprint()
        joiner = trio.rig.node("e", LEASE_S=f"{LEASE_S:g}")
        trio.wait_slots([*trio.nodes, joiner], {"a", "b", "c", "e"})
        load.wait_accepted(WORK)
        before, after = (build_table(dict.fromkeys(names, 1.0)) for names in ("abc", "abce"))
        changed = moved(before, after)
        assert trio.a.slots()["e"] == len(changed), "the joiner has what moved, and nothing else moved"
        assert len(changed) / SLOTS <= (1 + MOVED_SLACK) / 4
        assert fingerprint() == waited, "a view writes nothing for what waits"
        trio.stage.release("while joining")
        joiner.ask_to_drain()
        assert joiner.process.wait_exit(30) == 0, joiner.process.output
        trio.wait_slots(trio.nodes, {"a", "b", "c"})
        assert trio.state(joiner.incarnation) == LEFT
        load.wait_accepted(WORK)
    trio.rig.nodes.remove(joiner)
    joiner.close()
    history = trio.check()
    assert {trio.rig.outcome(body.id)["attempt"] for body in held} == {1}, "slots moved, work did not"
    repeated = [one for one in history.attempts if one.incarnation == joiner.incarnation and one.kind != 3]
    assert [one for one in repeated if one.kind not in {0, 1}] == [], "a drain burns nothing"


# -- one service --------------------------------------------------------------------------------------


def test_rabbitmq_is_killed_under_load_and_comes_back(trio: Trio) -> None:
    rabbitmq = trio.services.rabbitmq
    assert rabbitmq is not None
    numbers = [node.incarnation for node in trio.nodes]
    with trio.load() as load:
        load.wait_accepted(WORK)
        held = trio.hold("no rabbitmq")
        away = trio.rig.befall("RabbitMQ is killed")
        rabbitmq.kill()
        load.wait_accepted(3 * WORK)
        fresh = trio.b.accepted("act", name="without it")
        assert trio.c.view(fresh, wait_s=10)["state"] == "succeeded"
        trio.stage.release("no rabbitmq")
    rabbitmq.start()  # without the load: it starts slowly on two busy cores
    away.over()
    with trio.load() as load:
        wait_reachable(trio)
        load.wait_accepted(WORK)
    trio.check()
    assert [node.incarnation for node in trio.nodes] == numbers
    assert {trio.rig.outcome(body.id)["attempt"] for body in held} == {1}


def wait_reachable(trio: Trio) -> None:
    """Until what each node sends to itself arrives, on both lanes: so both have their consumers."""
    wait_until(
        lambda: all(node.metric("noria_broker_reachable") == 1 for node in trio.nodes), BACK_S,
        lambda: f"{[node.metric('noria_broker_reachable') for node in trio.nodes]}",
    )  # fmt: skip


@pytest.mark.parametrize("fault", ["stands still", "is out of memory"])
def test_rabbitmq_takes_nothing_for_longer_than_a_lease(trio: Trio, fault: str) -> None:
    rabbitmq = trio.services.rabbitmq
    assert rabbitmq is not None
    with trio.load() as load:
        held = trio.hold(fault)
        noted = trio.rig.befall(f"RabbitMQ {fault}")
        began_s = time.monotonic()
        if fault == "stands still":
            rabbitmq.freeze()
        else:
            rabbitmq.alarm(True)
        load.wait_accepted(3 * WORK)
        pause(LEASE_S + 1 - elapsed(began_s))
        load.wait_accepted(WORK)
        rabbitmq.heal()
        noted.over()
        assert {trio.state(node.incarnation) for node in trio.nodes} == {ACTIVE}
        trio.stage.release(fault)
        wait_reachable(trio)
        trio.wait_slots(trio.nodes, {"a", "b", "c"})
        load.wait_accepted(WORK)
    trio.check()
    assert {trio.rig.outcome(body.id)["attempt"] for body in held} == {1}


def test_bad_messages_on_the_wire_are_put_aside_and_the_consumers_live(trio: Trio) -> None:
    rabbitmq = trio.services.rabbitmq
    assert rabbitmq is not None

    async def send() -> None:
        async with await aio_pika.connect(rabbitmq.url) as connection, connection.channel() as channel:
            for lane in (work_queue, control_queue):
                for body in (b"", b"\xc1", b"not ours" * 100):
                    message = aio_pika.Message(body)
                    await channel.default_exchange.publish(message, lane(trio.a.incarnation))

    asyncio.run(send())
    refused = 'noria_dead_messages_total{actor="broker",reason="undecodable"}'
    wait_until(lambda: trio.a.metric(refused) == 6, 10, lambda: f"{trio.a.metric(refused)} were counted")
    assert rabbitmq.queues()["noria.undecodable"][0] == 3, "those of the lane that is acknowledged"
    done = [trio.b.accepted("act", key=f"after-{n}", name="after") for n in range(20)]
    assert {trio.a.view(task_id, wait_s=10)["state"] for task_id in done} == {"succeeded"}
    trio.check()


def test_etcd_is_killed_under_load_and_the_view_stands_still(trio: Trio) -> None:
    """And what a node ran that dies meanwhile is still taken over: that is the record's."""
    etcd = trio.services.etcd
    assert etcd is not None
    [server] = etcd.members
    with trio.load(trio.a, trio.c) as load:
        lost = trio.on(trio.b, trio.hold("no etcd"))
        view = trio.a.ring()["view"]
        away = trio.rig.befall("etcd is killed")
        server.kill()
        load.wait_accepted(WORK)
        trio.b.kill()
        killed_s = time.monotonic()
        taken_s = trio.taken_over_s(killed_s, lost, TAKEN_OVER_S + 10)
        assert taken_s <= TAKEN_OVER_S, f"{len(lost)} tasks were taken over after {taken_s:.1f} s"
        assert trio.a.ring()["view"] == view, "nobody can agree on another"
        load.wait_accepted(WORK)
        server.start()
        etcd.wait_ready()
        away.over()
        trio.stage.release("no etcd")
        trio.wait_slots([trio.a, trio.c], {"a", "c"})
    trio.check()


def test_postgresql_restarts_under_load(trio: Trio) -> None:
    with trio.load() as load:
        held = trio.hold("restart")
        for how in (signal.SIGINT, signal.SIGQUIT):  # fast, then immediate: crash recovery
            away = trio.rig.befall("PostgreSQL restarts")
            trio.rig.record.stop(how)
            trio.rig.record.start()
            away.over()
            load.wait_accepted(WORK)
        trio.stage.release("restart")
    trio.check()
    assert {trio.state(node.incarnation) for node in trio.nodes} == {ACTIVE}
    assert {trio.rig.outcome(body.id)["attempt"] for body in held} == {1}
