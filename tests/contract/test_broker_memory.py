"""What only the memory broker has: a route that does what networks do, members that are cut off, no chance."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from runtime.adapters.memory import MemoryBroker, MemoryExchange
from runtime.core.messages import CancelRequested, Credit
from runtime.errors import Unavailable
from runtime.kernel.virtual import run as run_simulated
from tests.contract.broker_world import Member, offer

if TYPE_CHECKING:
    from collections.abc import Callable


def member(exchange: MemoryExchange, incarnation: int) -> Member:
    broker = MemoryBroker(exchange, incarnation)

    async def leave() -> None:
        broker.close()

    return Member(incarnation, broker, leave)


def story(seed: int) -> list[str]:
    """A disorderly exchange of messages, as text: the same for the same seed."""
    told: list[str] = []

    async def main() -> None:
        chance = random.Random(seed)
        loop = asyncio.get_running_loop()

        def route(sender: int | None, to: int, body: bytes, deliver: Callable[[], None]) -> None:
            for _ in range(chance.choice([0, 1, 1, 2])):
                loop.call_later(chance.random() * 100, deliver)

        exchange = MemoryExchange(route)
        members = [MemoryBroker(exchange, n) for n in range(3)]
        for n, broker in enumerate(members):
            broker.receive(
                lambda delivery, n=n: told.append(f"{loop.time()} {n} {delivery.offer}"),
                lambda message, n=n: told.append(f"{loop.time()} {n} {message}"),
            )
        for n in range(50):
            await members[n % 3].offer((n + 1) % 3, offer(n))
            await members[n % 3].broadcast(Credit(n, (n,)))
        await asyncio.sleep(200)

    run_simulated(main)
    return told


def test_a_route_loses_doubles_delays_and_reorders_and_repeats_itself() -> None:
    told = story(1)
    assert told == story(1)
    assert told != story(2)
    contents = [line.split(" ", 1)[1] for line in told]
    assert len(set(contents)) < 200  # of 50 offers and 150 copies of messages some were lost
    assert len(contents) > len(set(contents))  # and some came twice
    to_one = [
        int(line.split("credits=(")[1].split(",")[0]) for line in contents if line.startswith("1 Credit")
    ]
    assert to_one != sorted(to_one)


async def test_a_member_that_is_cut_off_sends_nothing_and_gets_all_later() -> None:
    exchange = MemoryExchange()
    a, b = member(exchange, 1), member(exchange, 2)
    assert isinstance(b.broker, MemoryBroker)
    b.broker.cut()
    assert not b.broker.reachable
    with pytest.raises(Unavailable, match="2 is cut off"):
        await b.broker.offer(1, offer(1))
    with pytest.raises(Unavailable, match="2 is cut off"):
        await b.broker.broadcast(Credit(1, ()))
    await a.broker.offer(2, offer(1))
    for n in range(1001):
        await a.broker.tell(2, Credit(n, ()))
    assert (b.offers, b.messages) == ([], [])
    b.broker.heal()
    assert b.offers == [offer(1)]
    assert b.messages == [Credit(n, ()) for n in range(1, 1001)]  # the oldest went


async def test_what_was_not_acknowledged_comes_again_in_order() -> None:
    exchange = MemoryExchange()
    a, b = member(exchange, 1), member(exchange, 2)
    assert isinstance(b.broker, MemoryBroker)
    b.acks = False
    for n in range(150):
        await a.broker.offer(2, offer(n))
    before = await b.got_offers(100)
    b.deliveries[1].ack()
    assert b.offers == [*before, offer(100)]
    old = list(b.deliveries)
    b.broker.cut()
    b.deliveries.clear()
    b.broker.heal()
    again = [offer(n) for n in range(150) if n != 1]
    assert b.offers == again[:100]
    for delivery in old:
        delivery.ack()  # of before: means nothing now
    assert b.offers == again[:100]
    for delivery in b.deliveries[:49]:
        delivery.ack()
    assert b.offers == again


async def test_an_inbox_takes_no_more_than_it_has_room_for_from_a_slow_route() -> None:
    held: list[Callable[[], None]] = []
    exchange = MemoryExchange(lambda _sender, _to, _body, deliver: held.append(deliver))
    a, b = member(exchange, 1), member(exchange, 2)
    b.acks = False
    for n in range(1500):
        await a.broker.offer(2, offer(n))
    for deliver in held:
        deliver()
    b.acks = True
    for delivery in list(b.deliveries):
        delivery.ack()
    assert b.offers == [offer(n) for n in range(1100)]  # 100 delivered, 1000 waited, 400 were lost


async def test_what_is_under_way_to_a_member_that_leaves_is_lost() -> None:
    held: list[Callable[[], None]] = []
    exchange = MemoryExchange(lambda _sender, _to, _body, deliver: held.append(deliver))
    a, b = member(exchange, 1), member(exchange, 2)
    await a.broker.offer(2, offer(1))
    await a.broker.tell(2, CancelRequested(offer(1).items[0][0], 1))
    await b.leave()
    successor = member(exchange, 2)
    for deliver in held:
        deliver()
    assert b.deliveries == b.messages == successor.deliveries == successor.messages == []
