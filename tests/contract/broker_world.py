"""Members of one cluster that talk through a Broker: in memory, or through a real RabbitMQ."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

import aio_pika
import orjson

from runtime.adapters.memory import MemoryBroker, MemoryExchange
from runtime.adapters.rabbitmq import RabbitBroker, open_broker, topology
from runtime.core.messages import Message, Offer
from runtime.errors import Unavailable
from tests.support.memory_node import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from runtime.ports import Broker, Delivery

# Not those of other test runs that may use the same server.
_INCARNATIONS: Final = count(os.getpid() * 100_000)


def nobody() -> int:
    """An incarnation that has no inbox."""
    return next(_INCARNATIONS)


def offer(first: int, items: int = 1, sender: int = 1) -> Offer:
    return Offer(1, sender, tuple((UUID(int=first + n), 1) for n in range(items)))


class RecordingTelemetry:
    """Adds up what was counted, and keeps the newest of what was measured."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()  # by name and reason
        self.gauges: dict[str, list[float]] = {}

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        self.counts[name, labels.get("reason", "")] += int(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.gauges.setdefault(name, []).append(value)

    def clear(self, name: str) -> None:
        self.gauges.pop(name, None)

    def observe(self, name: str, values: Sequence[float], **labels: str) -> None: ...


class Member:
    """One incarnation and what it received. With `acks` off, offers stay in `deliveries` unacknowledged."""

    def __init__(self, incarnation: int, broker: Broker, leave: Callable[[], Awaitable[None]]) -> None:
        self.incarnation = incarnation
        self.broker = broker
        self.leave = leave
        self.acks = True
        self.deliveries: list[Delivery] = []
        self.messages: list[Message] = []
        broker.receive(self._on_offer, self.messages.append)

    @property
    def offers(self) -> list[Offer]:
        return [delivery.offer for delivery in self.deliveries]

    async def got_offers(self, number: int) -> list[Offer]:
        """The first so many, once they are there."""
        await until(lambda: len(self.deliveries) >= number)
        return self.offers[:number]

    async def got_messages(self, number: int) -> list[Message]:
        await until(lambda: len(self.messages) >= number)
        return self.messages[:number]

    async def fill(self, to: Member) -> list[Offer]:
        """Offer to `to`, which acknowledges nothing, until its inbox is full; what it accepted."""
        taken: list[Offer] = []
        while len(taken) < 5000:
            try:
                await self.broker.offer(to.incarnation, offer(len(taken), sender=self.incarnation))
            except Unavailable as error:
                assert "full" in str(error)  # noqa: PT017 - the loop needs it
                return taken
            taken.append(offer(len(taken), sender=self.incarnation))
        raise AssertionError(f"{len(taken)} offers wait, and there is no end")

    def _on_offer(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.acks:
            delivery.ack()


class BrokerWorld(Protocol):
    async def member(self) -> Member:
        """A new member that is reachable."""
        ...

    async def send_bytes(self, to: Member, body: bytes, *, work: bool) -> None:
        """What some other program may send."""
        ...

    async def undecodable(self) -> list[bytes]:
        """What was set aside in this world so far."""
        ...

    async def events(self) -> list[dict[str, Any]]:
        """What other services got since the last call, with `event_id`."""
        ...


class MemoryBrokerWorld:
    def __init__(self) -> None:
        self.exchange = MemoryExchange()

    async def member(self) -> Member:
        incarnation = next(_INCARNATIONS)
        broker = MemoryBroker(self.exchange, incarnation)

        async def leave() -> None:
            broker.close()

        return Member(incarnation, broker, leave)

    async def send_bytes(self, to: Member, body: bytes, *, work: bool) -> None:
        self.exchange.send(None, to.incarnation, body, work=work)

    async def undecodable(self) -> list[bytes]:
        return list(self.exchange.undecodable)

    async def events(self) -> list[dict[str, Any]]:
        events = [{**event.body, "event_id": event.id} for event in self.exchange.events]
        self.exchange.events.clear()
        return events


class RabbitMember(Member):
    broker: RabbitBroker


class RabbitWorld:
    """Everything on one server."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.telemetry = RecordingTelemetry()
        self._stack = stack
        self._channel: aio_pika.abc.AbstractChannel | None = None
        self._set_aside: list[bytes] = []
        self._events: aio_pika.abc.AbstractQueue | None = None

    async def start(self) -> RabbitMember:
        """A new member that may not be reachable yet."""
        own = await self._stack.enter_async_context(AsyncExitStack())
        incarnation = next(_INCARNATIONS)
        broker = await own.enter_async_context(
            open_broker(self.url, incarnation, self.telemetry, random.random)
        )
        return RabbitMember(incarnation, broker, own.aclose)

    async def member(self) -> RabbitMember:
        member = await self.start()
        await until(lambda: member.broker.reachable)
        if self._events is None:
            await self._listen()
        return member

    async def channel(self) -> aio_pika.abc.AbstractChannel:
        """A plain one, as other services have it."""
        if self._channel is None:
            connection = await self._stack.enter_async_context(await aio_pika.connect(self.url))
            self._channel = await connection.channel(on_return_raises=True)
        return self._channel

    async def send_bytes(self, to: Member, body: bytes, *, work: bool) -> None:
        name = topology.work_queue if work else topology.control_queue
        exchange = (await self.channel()).default_exchange
        await exchange.publish(aio_pika.Message(body), name(to.incarnation))

    async def undecodable(self) -> list[bytes]:
        """Only what came through the work inbox: nothing is kept of the other."""
        queue = await (await self.channel()).get_queue(topology.UNDECODABLE)
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            self._set_aside.append(message.body)
        return self._set_aside

    async def events(self) -> list[dict[str, Any]]:
        assert self._events is not None
        found: list[dict[str, Any]] = []
        while (message := await self._events.get(fail=False, no_ack=True)) is not None:
            found += orjson.loads(message.body)
        return found

    async def _listen(self) -> None:
        """As a service that wants all events; and forget what other tests have left."""
        channel = await self.channel()
        self._events = await channel.declare_queue(exclusive=True)
        await self._events.bind(topology.EVENTS, "task.#")
        for name in (topology.UNDECODABLE, topology.DEAD):
            await (await channel.get_queue(name)).purge()


@asynccontextmanager
async def rabbit_world(url: str) -> AsyncIterator[RabbitWorld]:
    async with AsyncExitStack() as stack:
        yield RabbitWorld(url, stack)
