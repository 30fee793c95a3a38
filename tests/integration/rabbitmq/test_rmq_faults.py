"""What breaks at RabbitMQ is noticed, said, and over once it is over: no message needs a person to flow again."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest

from runtime.adapters.rabbitmq import echo, link, topology
from runtime.adapters.rabbitmq.session import Session
from runtime.core.messages import Credit
from runtime.errors import Unavailable
from runtime.ports import Event
from tests.contract.broker_world import RabbitMember, RabbitWorld, nobody, offer, rabbit_world
from tests.support.memory_node import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runtime.adapters.rabbitmq.link import Link
    from tests.support.rabbitmq_server import RabbitServer

BACK_S = 20.0


async def talk(a: RabbitMember, b: RabbitMember) -> None:
    """Both hear each other on both ways."""
    for one, other in ((a, b), (b, a)):
        offers, messages = len(other.deliveries), len(other.messages)
        await one.broker.offer(other.incarnation, offer(1, sender=one.incarnation))
        await one.broker.tell(other.incarnation, Credit(one.incarnation, (1,)))
        await until(lambda: len(other.deliveries) > offers and len(other.messages) > messages)  # noqa: B023


async def two(world: RabbitWorld) -> tuple[RabbitMember, RabbitMember]:
    a, b = await world.start(), await world.start()
    await reachable(a, b)
    return a, b


async def reachable(*members: RabbitMember) -> None:
    await until(lambda: all(member.broker.reachable for member in members), BACK_S)


async def cut_off(*members: RabbitMember, within_s: float = BACK_S) -> None:
    await until(lambda: not any(member.broker.reachable for member in members), within_s)


def links(*members: RabbitMember) -> list[Link]:
    return [one for member in members for one in (member.broker._work, member.broker._control)]


def generations(*members: RabbitMember) -> list[int]:
    return [one.generation for one in links(*members)]


async def refused_within(sending: Awaitable[None], seconds: float) -> str:
    started_s = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        await sending
    assert time.monotonic() - started_s < seconds
    return str(refused.value)


def count_calls(patch: pytest.MonkeyPatch, owner: type, name: str) -> Callable[[], int]:
    """How often this property is looked at from now on."""
    number = 0

    def counting(self: object, read: property = getattr(owner, name)) -> object:  # noqa: B008
        nonlocal number
        number += 1
        return read.__get__(self)

    patch.setattr(owner, name, property(counting))
    return lambda: number


async def _stop_app(server: RabbitServer) -> None:
    await asyncio.to_thread(server.stop_app)


async def _kill(server: RabbitServer) -> None:
    await asyncio.to_thread(server.kill)


@pytest.mark.parametrize("stop", [_stop_app, _kill], ids=["stop_app", "kill -9"])
async def test_it_goes_and_comes_back(
    world: RabbitWorld, server: RabbitServer, stop: Callable[[RabbitServer], Awaitable[None]]
) -> None:
    a, b = await two(world)
    await talk(a, b)
    await stop(server)
    await cut_off(a, b)
    assert "offer to 5" in await refused_within(a.broker.offer(5, offer(1)), 0.5)
    assert "Credit to 5" in await refused_within(a.broker.tell(5, Credit(1, ())), 0.5)
    assert "Credit to all" in await refused_within(a.broker.broadcast(Credit(1, ())), 0.5)
    await asyncio.to_thread(server.heal)
    await reachable(a, b)
    await talk(a, b)
    assert world.telemetry.gauges["broker_reachable"][-1] == 1


async def test_what_was_not_acknowledged_comes_again_and_old_acks_mean_nothing(
    world: RabbitWorld, server: RabbitServer
) -> None:
    a, b = await two(world)
    b.acks = False
    sent = [offer(n) for n in range(50)]
    for one in sent:
        await a.broker.offer(b.incarnation, one)
    await b.got_offers(50)
    old = list(b.deliveries)
    await asyncio.to_thread(server.close_all_connections)
    await until(lambda: min(generations(a, b)) == 2, BACK_S)
    await until(lambda: len(b.deliveries) >= 100)
    assert b.offers[50:100] == sent
    for delivery in old:
        delivery.ack()
    for delivery in b.deliveries[50:]:
        delivery.ack()
    b.acks = True
    await reachable(a, b)
    await talk(a, b)
    assert len(b.deliveries) == 101
    assert generations(a, b) == [2, 2, 2, 2]  # an ack of a tag that RabbitMQ does not know closes the channel


async def test_it_is_away_at_first(world: RabbitWorld, server: RabbitServer) -> None:
    await asyncio.to_thread(server.kill)
    started_s = time.monotonic()
    a, b = await world.start(), await world.start()
    assert time.monotonic() - started_s < 0.5
    await refused_within(a.broker.offer(b.incarnation, offer(1)), 0.5)
    await asyncio.to_thread(server.start)
    await reachable(a, b)
    await talk(a, b)


async def test_an_alarm_blocks_sending_and_nobody_reconnects(
    world: RabbitWorld, server: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await two(world)
    await asyncio.to_thread(server.alarm, True)
    await cut_off(a, b)
    await until(lambda: all(one._session and one._session.blocked for one in links(a, b)))
    for sending in (
        a.broker.offer(b.incarnation, offer(1)),
        a.broker.tell(b.incarnation, Credit(1, ())),
        a.broker.broadcast(Credit(1, ())),
    ):
        assert "alarm" in await refused_within(sending, 0.5)
    with monkeypatch.context() as patch:  # long enough to be called deaf
        patch.setattr(echo, "BACK_WITHIN_S", 0.1)
        patch.setattr(link, "_LOOK_S", 0.05)
        looks = count_calls(patch, Session, "blocked")
        await until(lambda: looks() > 100)
    assert generations(a, b) == [1, 1, 1, 1]
    await asyncio.to_thread(server.alarm, False)
    await reachable(a, b)
    await talk(a, b)
    assert generations(a, b) == [1, 1, 1, 1]


async def test_it_is_frozen(world: RabbitWorld, server: RabbitServer) -> None:
    a, b = await two(world)
    server.freeze()
    await refused_within(a.broker.offer(b.incarnation, offer(1)), 2.5)
    await refused_within(a.broker.broadcast(Credit(1, ())), 2.5)
    await cut_off(a, b, within_s=8)
    await until(lambda: all(one._session is None for one in links(a, b)))
    await refused_within(a.broker.offer(b.incarnation, offer(1)), 0.5)
    server.thaw()
    await reachable(a, b)
    await talk(a, b)


async def test_leaving_takes_seconds_when_it_is_frozen(world: RabbitWorld, server: RabbitServer) -> None:
    a, b = await two(world)
    server.freeze()
    started_s = time.monotonic()
    await asyncio.gather(a.leave(), b.leave())
    assert time.monotonic() - started_s < 6


@pytest.mark.parametrize("queue", [topology.work_queue, topology.control_queue], ids=["work", "control"])
async def test_a_queue_is_deleted(
    world: RabbitWorld, server: RabbitServer, queue: Callable[[int], str]
) -> None:
    a, b = await two(world)
    await asyncio.to_thread(server.delete_queue, queue(b.incarnation))
    await until(lambda: sum(generations(b)) == 3, 2)
    await reachable(a, b)
    await talk(a, b)


async def test_the_exchange_of_all_members_is_deleted(world: RabbitWorld) -> None:
    """Whoever sends next makes it anew, but the others' queues are bound to it no longer, and nothing tells them."""
    a, b = await two(world)
    await (await world.channel()).exchange_delete(topology.MEMBERS)
    await refused_within(a.broker.broadcast(Credit(a.incarnation, ())), 0.5)
    await until(lambda: min(links(a)[1].generation, links(b)[1].generation) == 2, BACK_S)
    await reachable(a, b)
    await a.broker.broadcast(Credit(a.incarnation, ()))
    await b.broker.broadcast(Credit(b.incarnation, ()))
    for member in (a, b):
        await member.got_messages(2)


async def test_the_exchange_of_events_is_deleted(world: RabbitWorld) -> None:
    a, _ = await two(world)
    failed = Event("x:1:failed", "h", "failed", {})
    channel = await world.channel()
    await channel.exchange_delete(topology.EVENTS)
    await refused_within(a.broker.publish([failed]), 0.5)
    await until(lambda: links(a)[1].generation == 2, BACK_S)
    dead = await channel.get_queue(topology.DEAD)
    await dead.purge()
    await reachable(a)
    await a.broker.publish([failed])
    assert b"x:1:failed" in (await dead.get()).body


@pytest.mark.parametrize("which", [0, 1], ids=["work", "control"])
async def test_a_deaf_consumer_is_replaced(world: RabbitWorld, which: int) -> None:
    a, b = await two(world)
    deaf = links(b)[which]
    assert deaf._session is not None
    await deaf._session._consuming.basic_cancel(deaf._session._consumer)  # in silence
    await cut_off(b, within_s=8)
    await until(lambda: deaf.generation == 2, 5)
    await reachable(a, b)
    await talk(a, b)


async def test_no_password_is_ever_logged(server: RabbitServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("guest:guest", "guest:hush-hush")
    async with rabbit_world(url) as world:
        member = await world.start()
        await until(lambda: "ACCESS_REFUSED" in caplog.text)
        await refused_within(member.broker.offer(nobody(), offer(1)), 0.5)
        await until(lambda: caplog.text.count("Connecting to") >= 6)  # it goes on trying
        assert not member.broker.reachable
    assert "hush" not in caplog.text
