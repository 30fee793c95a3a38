"""The contract of the port Broker, on memory and on RabbitMQ."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from runtime import codec
from runtime.core.messages import (
    ITEMS_MAX,
    CancelRequested,
    Credit,
    Finished,
    Heartbeat,
    Message,
    Watch,
)
from runtime.errors import Unavailable
from runtime.ports import Event
from tests.contract.broker_world import BrokerWorld, nobody, offer
from tests.support.memory_node import until

TASK = UUID(int=7)
MESSAGES: list[Message] = [
    Watch(1, (TASK,)),
    Finished((TASK,)),
    Credit(1, (5, 0, 2)),
    CancelRequested(TASK, 3),
    Heartbeat(incarnation=1, view=2, sequence=3, lag_ms=0.5, table_hash="ab", credits=(1,), running=4),
]


async def test_offers_arrive_once_and_in_order(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    sent = [offer(n * 10, items=10, sender=a.incarnation) for n in range(200)]
    for one in sent:
        await a.broker.offer(b.incarnation, one)
    assert await b.got_offers(200) == sent
    await a.broker.tell(b.incarnation, MESSAGES[0])
    await b.got_messages(1)
    assert b.offers == sent
    assert a.offers == []


async def test_an_offer_to_oneself_arrives(broker_world: BrokerWorld) -> None:
    a = await broker_world.member()
    await a.broker.offer(a.incarnation, offer(1))
    assert await a.got_offers(1) == [offer(1)]


async def test_the_largest_offer_arrives(broker_world: BrokerWorld) -> None:
    a = await broker_world.member()
    await a.broker.offer(a.incarnation, offer(0, items=ITEMS_MAX))
    assert await a.got_offers(1) == [offer(0, items=ITEMS_MAX)]


async def test_a_larger_one_is_a_mistake_of_the_sender(broker_world: BrokerWorld) -> None:
    a = await broker_world.member()
    with pytest.raises(ValueError, match="at most 4096"):
        await a.broker.offer(a.incarnation, offer(0, items=ITEMS_MAX + 1))


async def test_many_at_once_all_arrive(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    await asyncio.gather(*(a.broker.offer(b.incarnation, offer(n)) for n in range(500)))
    assert set(await b.got_offers(500)) == {offer(n) for n in range(500)}


async def test_nobody_takes_what_has_no_inbox(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    await b.leave()
    for to in (nobody(), b.incarnation):
        with pytest.raises(Unavailable, match=f"{to}.*no such"):
            await a.broker.offer(to, offer(1))
        with pytest.raises(Unavailable, match=f"{to}.*no such"):
            await a.broker.tell(to, MESSAGES[0])


async def test_who_has_left_sends_and_receives_nothing(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    await b.leave()
    await a.broker.broadcast(MESSAGES[0])
    await a.got_messages(1)
    assert b.messages == []
    for sending in (
        b.broker.offer(a.incarnation, offer(1)),
        b.broker.tell(a.incarnation, MESSAGES[0]),
        b.broker.broadcast(MESSAGES[0]),
        b.broker.publish([event("a", "succeeded")]),
    ):
        with pytest.raises(Unavailable):
            await sending
    assert not b.broker.reachable


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_one_is_told(broker_world: BrokerWorld, message: Message) -> None:
    a, b, c = [await broker_world.member() for _ in range(3)]
    await a.broker.tell(b.incarnation, message)
    assert await b.got_messages(1) == [message]
    await a.broker.broadcast(MESSAGES[0])
    for other in (a, c):
        assert await other.got_messages(1) == [MESSAGES[0]]


async def test_all_are_told_and_the_sender_too(broker_world: BrokerWorld) -> None:
    members = [await broker_world.member() for _ in range(3)]
    for message in MESSAGES:
        await members[0].broker.broadcast(message)
    for member in members:
        assert await member.got_messages(len(MESSAGES)) == MESSAGES


async def test_a_full_inbox_refuses_and_acks_make_room(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    b.acks = False
    taken = await a.fill(b)
    assert len(b.deliveries) < len(taken) / 2  # what is delivered and not acknowledged is bounded too
    b.acks = True
    for delivery in list(b.deliveries):
        delivery.ack()
    assert await b.got_offers(len(taken)) == taken
    await a.broker.offer(b.incarnation, offer(0))
    await b.got_offers(len(taken) + 1)


async def test_messages_overtake_offers(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    b.acks = False
    taken = await a.fill(b)
    await a.broker.tell(b.incarnation, MESSAGES[0])
    await a.broker.broadcast(MESSAGES[1])
    assert await b.got_messages(2) == MESSAGES[:2]
    assert len(b.deliveries) < len(taken)


async def test_an_ack_counts_once_and_in_any_order(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    b.acks = False
    for n in range(20):
        await a.broker.offer(b.incarnation, offer(n))
    await b.got_offers(20)
    for delivery in list(reversed(b.deliveries)) * 2:
        delivery.ack()
    taken = await a.fill(b)
    b.acks = True
    for delivery in list(b.deliveries):
        delivery.ack()
    assert (await b.got_offers(20 + len(taken)))[20:] == taken


async def test_an_ack_after_leaving_is_harmless(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    b.acks = False
    await a.broker.offer(b.incarnation, offer(1))
    await b.got_offers(1)
    await b.leave()
    b.deliveries[0].ack()


@pytest.mark.parametrize("work", [True, False], ids=["work", "control"])
async def test_what_cannot_be_read_is_set_aside(broker_world: BrokerWorld, *, work: bool) -> None:
    a = await broker_world.member()
    bad = [b"", b"hello", codec.encode(offer(1))[:-3], b"\x94\x02\x01\x01\x90"]
    for body in bad:
        await broker_world.send_bytes(a, body, work=work)
    await a.broker.offer(a.incarnation, offer(1))
    await a.broker.tell(a.incarnation, MESSAGES[0])
    assert await a.got_offers(1) == [offer(1)]
    assert await a.got_messages(1) == [MESSAGES[0]]
    if work:
        for _ in range(100):
            if len(await broker_world.undecodable()) >= len(bad):
                break
        assert await broker_world.undecodable() == bad


async def test_what_comes_to_the_other_inbox_is_understood_too(broker_world: BrokerWorld) -> None:
    a = await broker_world.member()
    await broker_world.send_bytes(a, codec.encode(MESSAGES[0]), work=True)
    await broker_world.send_bytes(a, codec.encode(offer(1)), work=False)
    assert await a.got_messages(1) == [MESSAGES[0]]
    assert await a.got_offers(1) == [offer(1)]


def event(handler: str, state: str, number: int = 0) -> Event:
    return Event(f"{UUID(int=number)}:1:{state}", handler, state, {"handler": handler, "number": number})


async def test_events_reach_other_services(broker_world: BrokerWorld) -> None:
    a = await broker_world.member()
    sent = [event(f"h{n % 3}", state, n) for n in range(30) for state in ("succeeded", "failed")]
    await a.broker.publish(sent)
    await a.broker.publish([])
    found: list[dict[str, object]] = []
    for _ in range(100):
        found += await broker_world.events()
        if len(found) >= len(sent):
            break
    expected = [{**one.body, "event_id": one.id} for one in sent]
    assert sorted(found, key=str) == sorted(expected, key=str)


async def test_an_event_that_is_no_json_is_a_mistake_of_the_sender(broker_world: BrokerWorld) -> None:
    a = await broker_world.member()
    with pytest.raises(TypeError):
        await a.broker.publish([Event("x:1:failed", "h", "failed", {"body": object()})])
    assert await broker_world.events() == []


async def test_a_member_is_reachable_and_a_witness(broker_world: BrokerWorld) -> None:
    a = await broker_world.member()
    await until(lambda: a.broker.reachable)
    assert a.broker.witness


async def test_who_does_not_receive_yet_holds_up_nothing(broker_world: BrokerWorld) -> None:
    a, b = await broker_world.member(), await broker_world.member()
    seen: list[Message] = []
    b.acks = False
    await a.fill(b)
    b.broker.receive(lambda delivery: delivery.ack(), seen.append)
    for delivery in list(b.deliveries):
        delivery.ack()
    await a.broker.tell(b.incarnation, MESSAGES[0])
    await until(lambda: seen == [MESSAGES[0]])
    assert b.messages == []
