"""What other programs see of us in RabbitMQ: queues, properties of messages, dead letters, events."""

from __future__ import annotations

import json
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from runtime import codec
from runtime.adapters.rabbitmq import echo, link, topology
from runtime.adapters.rabbitmq.echo import Echo
from runtime.ports import Event
from tests.contract.broker_world import RabbitWorld, nobody, offer
from tests.support.memory_node import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.rabbitmq_server import RabbitServer


@pytest.fixture
async def plain(amqp_url: str) -> AsyncIterator[RabbitWorld]:
    """On the server that may be anybody's."""
    async with AsyncExitStack() as stack:
        yield RabbitWorld(amqp_url, stack)


async def test_queues_are_bounded_and_go_away(world: RabbitWorld, server: RabbitServer) -> None:
    member = await world.member()
    listed = server.ctl(
        "list_queues", "name", "durable", "auto_delete", "exclusive", "arguments", "--formatter", "json"
    )
    found: dict[str, dict[str, Any]] = {queue.pop("name"): queue for queue in json.loads(listed)}
    for queue in found.values():
        queue["arguments"] = {name: value for name, _type, value in queue["arguments"]}
    work = found[topology.work_queue(member.incarnation)]
    control = found[topology.control_queue(member.incarnation)]
    for queue in (work, control, found[topology.UNDECODABLE], found[topology.DEAD]):
        assert (queue["durable"], queue["auto_delete"], queue["exclusive"]) == (True, False, False)
        assert queue["arguments"]["x-queue-type"] == "classic"
    assert work["arguments"] == {
        "x-queue-type": "classic",
        "x-expires": 600_000,
        "x-max-length": 1000,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "noria.undecodable",
    }
    assert control["arguments"]["x-expires"] == 60_000
    assert control["arguments"]["x-max-length"] == 1000
    assert found[topology.UNDECODABLE]["arguments"]["x-max-length"] == 1000
    assert found[topology.DEAD]["arguments"]["x-max-length"] == 100_000
    await member.leave()
    assert set(server.queues()) & {topology.work_queue(member.incarnation)} == set()
    assert set(server.queues()) & {topology.control_queue(member.incarnation)} == set()


async def test_an_offer_is_bare_and_not_written_to_disk(plain: RabbitWorld) -> None:
    member = await plain.member()
    to = nobody()
    queue = await (await plain.channel()).declare_queue(topology.work_queue(to), exclusive=True)
    await member.broker.offer(to, offer(1, items=3))
    message = await queue.get()
    assert message.body == codec.encode(offer(1, items=3))
    assert message.delivery_mode == aio_pika.DeliveryMode.NOT_PERSISTENT


async def test_what_cannot_be_read_is_kept_counted_and_named_once(
    plain: RabbitWorld, caplog: pytest.LogCaptureFixture
) -> None:
    member = await plain.member()
    with caplog.at_level(logging.WARNING, "runtime.adapters.rabbitmq.broker"):
        for n in range(5):
            await plain.send_bytes(member, b"nonsense %d" % n, work=True)
            await plain.send_bytes(member, b"rubbish %d" % n, work=False)
        await until(lambda: plain.telemetry.counts["dead_messages_total", "undecodable"] == 10)
    assert caplog.text.count("none of ours") == 1
    queue = await (await plain.channel()).get_queue(topology.UNDECODABLE)
    kept: list[aio_pika.abc.AbstractIncomingMessage] = []
    async with queue.iterator(no_ack=True) as messages:
        async for message in messages:
            kept.append(message)
            if len(kept) == 5:
                break
    assert [message.body for message in kept] == [b"nonsense %d" % n for n in range(5)]
    death: Any = kept[0].headers["x-first-death-queue"]
    assert death == topology.work_queue(member.incarnation)
    await member.broker.offer(member.incarnation, offer(1))
    assert await member.got_offers(1) == [offer(1)]


async def test_events_are_grouped_by_routing_key(plain: RabbitWorld) -> None:
    member = await plain.member()
    channel = await plain.channel()
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(topology.EVENTS, "task.*.scrape")
    ids = ["a:1:succeeded", "b:2:succeeded", "c:1:failed"]
    events = [Event(one, "scrape", one.rsplit(":", 1)[1], {"id": one[0]}) for one in ids]
    await member.broker.publish([*events, Event("d:1:failed", "other", "failed", {"id": "d"})])
    first, second = sorted([await queue.get(), await queue.get()], key=lambda m: str(m.message_id))
    assert await queue.get(fail=False) is None
    assert (first.routing_key, first.message_id) == ("task.succeeded.scrape", ids[0])
    assert json.loads(first.body) == [{"id": "a", "event_id": ids[0]}, {"id": "b", "event_id": ids[1]}]
    assert (second.routing_key, second.message_id) == ("task.failed.scrape", ids[2])
    for message in (first, second):
        assert message.content_type == "application/json"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    dead = await channel.get_queue(topology.DEAD)
    kept = [await dead.get(no_ack=True), await dead.get(no_ack=True)]
    assert {str(message.routing_key) for message in kept} == {"task.failed.scrape", "task.failed.other"}
    assert await dead.get(fail=False) is None


async def test_the_longest_handler_name_has_a_routing_key(plain: RabbitWorld) -> None:
    member = await plain.member()
    await member.broker.publish([Event("a:1:failed", "h" * 255, "failed", {"handler": "h" * 255})])
    dead = await (await plain.channel()).get_queue(topology.DEAD)
    message = await dead.get(no_ack=True)
    assert message.routing_key == ("task.failed." + "h" * 255)[:255]


async def test_a_queue_that_an_operator_made_otherwise_is_used_as_it_is(world: RabbitWorld) -> None:
    channel = await world.channel()
    await channel.queue_delete(topology.DEAD)
    await channel.declare_queue(topology.DEAD, durable=True, arguments={"x-max-length": 5})
    member = await world.member()
    await member.broker.publish([Event("a:1:failed", "h", "failed", {})])
    assert (await (await channel.get_queue(topology.DEAD)).get(no_ack=True)).message_id == "a:1:failed"
    await channel.queue_delete(topology.DEAD)


async def test_reachable_is_a_gauge(plain: RabbitWorld) -> None:
    member = await plain.start()
    await until(lambda: member.broker.reachable)
    await member.leave()
    assert plain.telemetry.gauges["broker_reachable"] == [0, 1, 0]


async def test_who_has_no_room_for_a_canary_is_not_deaf(
    plain: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims may be slow, and then offers wait for their acks: a new connection would only repeat them."""
    a = await plain.member()
    a.acks = False
    for n in range(topology.PREFETCH):
        await a.broker.offer(a.incarnation, offer(n))
    await a.got_offers(topology.PREFETCH)
    overdue: list[bool] = []

    def deaf(self: Echo, now_s: float, ask: Any = Echo.deaf) -> bool:
        verdict = bool(ask(self, now_s))
        if self._out_s is not None and now_s - self._out_s > echo.BACK_WITHIN_S:
            overdue.append(verdict)
        return verdict

    with monkeypatch.context() as patch:
        patch.setattr(Echo, "deaf", deaf)
        patch.setattr(echo, "EVERY_S", 0.1)
        patch.setattr(echo, "BACK_WITHIN_S", 0.3)
        patch.setattr(link, "_LOOK_S", 0.05)
        await until(lambda: len(overdue) >= 10)
        assert not any(overdue)
        assert a.broker.reachable
        for delivery in a.deliveries:
            delivery.ack()
    session = a.broker._work._session
    assert session is not None
    await until(lambda: session.echo._out_s is None)
    assert a.broker._work.generation == 1


async def test_events_need_no_listener(plain: RabbitWorld) -> None:
    member = await plain.start()
    await until(lambda: member.broker.reachable)
    await member.broker.publish([Event("a:1:succeeded", "h", "succeeded", {})])
