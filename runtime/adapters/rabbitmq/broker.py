"""The port Broker on RabbitMQ: two links, so that a flood of offers holds up no heartbeat.

RabbitMQ slows down, blocks and closes by connection. Offers in and out go over `work`; heartbeats, everything
else between nodes, and events over `control`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiormq import spec
from yarl import URL

from runtime import codec
from runtime.adapters.rabbitmq import topology
from runtime.adapters.rabbitmq.events import event_messages
from runtime.adapters.rabbitmq.link import Link
from runtime.core.messages import Canary, Message, Offer
from runtime.errors import UndecodableMessage
from runtime.ports import Delivery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from runtime.adapters.rabbitmq.events import EventMessage
    from runtime.ports import Event, Telemetry

_LOG_EVERY_S: Final = 60.0
_SHOWN_BYTES: Final = 64
_PERSISTENT: Final = 2
_log = logging.getLogger(__name__)


class RabbitBroker:
    """Made by `open_broker`."""

    witness = True

    def __init__(self, url: URL, incarnation: int, telemetry: Telemetry, jitter: Callable[[], float]) -> None:
        self.reachable = False
        self._telemetry = telemetry
        self._on_offer: Callable[[Delivery], None] = _give_back
        self._on_message: Callable[[Message], None] = _forget
        self._logged_s = float("-inf")
        self._work = Link(url, incarnation, topology.WORK, self._take_work, jitter, self._show)
        self._control = Link(url, incarnation, topology.CONTROL, self._take_control, jitter, self._show)

    def receive(self, on_offer: Callable[[Delivery], None], on_message: Callable[[Message], None]) -> None:
        self._on_offer, self._on_message = on_offer, on_message

    async def offer(self, to: int, offer: Offer) -> None:
        await self._work.publish(f"offer to {to}", codec.encode(offer), topology.work_queue(to))

    async def tell(self, to: int, message: Message) -> None:
        what = f"{type(message).__name__} to {to}"
        await self._control.publish(what, codec.encode(message), topology.control_queue(to))

    async def broadcast(self, message: Message) -> None:
        what = f"{type(message).__name__} to all"
        await self._control.publish(what, codec.encode(message), "", exchange=topology.MEMBERS)

    async def publish(self, events: Sequence[Event]) -> None:
        """One message for each (state, handler), at once; they may overtake each other."""
        sending = (self._publish(message) for message in event_messages(events))
        for outcome in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def start(self) -> None:
        self._telemetry.gauge("broker_reachable", 0)
        self._work.start()
        self._control.start()

    async def close(self) -> None:
        await asyncio.gather(self._work.close(), self._control.close())

    async def _publish(self, message: EventMessage) -> None:
        await self._control.publish(
            f"events {message.routing_key}",
            message.body,
            message.routing_key,
            exchange=topology.EVENTS,
            mandatory=False,  # nobody has to listen
            properties=spec.Basic.Properties(
                delivery_mode=_PERSISTENT, message_id=message.message_id, content_type="application/json"
            ),
        )

    def _take_work(self, body: bytes, ack: Callable[[], None]) -> bool:
        return self._take(self._work, body, ack)

    def _take_control(self, body: bytes, ack: Callable[[], None]) -> bool:
        return self._take(self._control, body, ack)

    def _take(self, link: Link, body: bytes, ack: Callable[[], None]) -> bool:
        try:
            message = codec.decode(body)
        except UndecodableMessage as error:
            self._refuse(body, error)
            return False
        if isinstance(message, Offer):
            self._on_offer(Delivery(message, ack))
            return True
        ack()
        if isinstance(message, Canary):
            link.returned(message)
        else:
            self._on_message(message)
        return True

    def _refuse(self, body: bytes, error: UndecodableMessage) -> None:
        self._telemetry.count("dead_messages_total", reason="undecodable", actor="broker")
        now_s = asyncio.get_running_loop().time()
        if now_s - self._logged_s >= _LOG_EVERY_S:  # whoever sends one sends many
            self._logged_s = now_s
            _log.warning("a message that is none of ours: %s: %s", error, body[:_SHOWN_BYTES].hex())

    def _show(self) -> None:
        reachable = self._work.sound and self._control.sound
        if reachable != self.reachable:
            self.reachable = reachable
            self._telemetry.gauge("broker_reachable", int(reachable))


@asynccontextmanager
async def open_broker(
    url: str, incarnation: int, telemetry: Telemetry, jitter: Callable[[], float]
) -> AsyncIterator[RabbitBroker]:
    """A broker that connects in the background and stays for this block; `reachable` tells when it is there.

    RabbitMQ may be away. `jitter` is uniform in [0, 1). On leaving, this incarnation's queues are deleted where
    that is possible within seconds; else they expire.
    """
    broker = RabbitBroker(URL(url), incarnation, telemetry, jitter)
    broker.start()
    try:
        yield broker
    finally:
        await broker.close()


def _give_back(delivery: Delivery) -> None:
    """Nobody receives yet: what is offered stays in the record."""
    delivery.ack()


def _forget(message: Message) -> None:
    """Nobody receives yet."""
