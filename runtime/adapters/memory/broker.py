"""Messages in memory: for tests and simulation. Only the running event loop is used: no clock, thread or chance.

Everything passes through the codec, so nobody shares an object. Disorder comes from outside: the exchange hands
every copy of every message to its `route`, which may deliver it at once, later, twice or never.

    def route(sender, to, body, deliver):
        if chance.random() < 0.9:
            asyncio.get_running_loop().call_later(chance.random(), deliver)
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

import orjson

from runtime import codec
from runtime.core.messages import Message, Offer
from runtime.errors import Unavailable, UndecodableMessage
from runtime.ports import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.ports import Event

    Route = Callable[[int | None, int, bytes, Callable[[], None]], None]

PREFETCH: Final = 100  # offers delivered and not yet acknowledged
WORK_MAX: Final = 1000  # offers that wait beyond those: further ones are refused
CONTROL_MAX: Final = 1000  # other messages for a member that is cut off: the oldest go
_KEPT_MAX: Final = 10_000  # events and undecodable messages, for tests to look at


def at_once(sender: int | None, to: int, body: bytes, deliver: Callable[[], None]) -> None:
    """The route of a network without faults."""
    asyncio.get_running_loop().call_soon(deliver)


class MemoryExchange:
    """What the members of one cluster share."""

    def __init__(self, route: Route = at_once) -> None:
        self.route = route
        self.members: dict[int, MemoryBroker] = {}
        self.events: deque[Event] = deque(maxlen=_KEPT_MAX)  # what other services get
        self.undecodable: deque[bytes] = deque(maxlen=_KEPT_MAX)

    def send(self, sender: int | None, to: int, body: bytes, *, work: bool) -> None:
        """Into the work inbox of `to`, else to what overtakes it; `sender` None is somebody who is no member.

        Raises Unavailable.
        """
        member = self.members.get(to)
        if member is None:
            raise Unavailable(f"message to {to}: there is no such inbox")
        if work and member.full:
            raise Unavailable(f"offer to {to}: the inbox is full")
        self.route(sender, to, body, partial(member.arrive, body, work=work))


class MemoryBroker:
    """The port Broker of one incarnation, which is a member until `close`."""

    witness = True

    def __init__(self, exchange: MemoryExchange, incarnation: int) -> None:
        self.reachable = True
        self._exchange = exchange
        self._incarnation = incarnation
        self._on_offer: Callable[[Delivery], None] = _give_back
        self._on_message: Callable[[Message], None] = _forget
        self._work: deque[bytes] = deque()
        self._control: deque[bytes] = deque(maxlen=CONTROL_MAX)
        self._unsettled: dict[int, bytes] = {}
        self._tags = count(1)
        self._handing_on = False
        exchange.members[incarnation] = self

    @property
    def full(self) -> bool:
        return len(self._work) >= WORK_MAX

    def receive(self, on_offer: Callable[[Delivery], None], on_message: Callable[[Message], None]) -> None:
        self._on_offer, self._on_message = on_offer, on_message

    async def offer(self, to: int, offer: Offer) -> None:
        await self._send(to, codec.encode(offer), work=True)

    async def tell(self, to: int, message: Message) -> None:
        await self._send(to, codec.encode(message), work=False)

    async def broadcast(self, message: Message) -> None:
        body = codec.encode(message)
        self._check()
        for to in sorted(self._exchange.members):
            self._exchange.send(self._incarnation, to, body, work=False)
        await asyncio.sleep(0)

    async def publish(self, events: Sequence[Event]) -> None:
        self._check()
        for event in events:
            orjson.dumps({**event.body})  # refuses what no other service could read
        self._exchange.events.extend(events)
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Lose the connection: sending fails; what comes waits, and what was not acknowledged comes again."""
        self.reachable = False
        self._work.extendleft(reversed(self._unsettled.values()))
        self._unsettled.clear()

    def heal(self) -> None:
        self.reachable = True
        self._hand_on()

    def close(self) -> None:
        """Leave; what is in the inbox is gone."""
        self._exchange.members.pop(self._incarnation, None)
        self.cut()
        self._work.clear()
        self._control.clear()

    def arrive(self, body: bytes, *, work: bool) -> None:
        """Called by the exchange, once for each delivery."""
        if self._exchange.members.get(self._incarnation) is not self:
            return
        if not work:
            self._control.append(body)
        elif not self.full:
            self._work.append(body)
        self._hand_on()

    async def _send(self, to: int, body: bytes, *, work: bool) -> None:
        self._check()
        self._exchange.send(self._incarnation, to, body, work=work)
        await asyncio.sleep(0)  # so that sending never starves what arrives

    def _check(self) -> None:
        if not self.reachable:
            raise Unavailable(f"incarnation {self._incarnation} is cut off from its broker")

    def _hand_on(self) -> None:
        """Give all that may be given to the receiver, whose acks (from inside too) make room for more."""
        if self._handing_on:
            return
        self._handing_on = True
        try:
            while self.reachable and (self._control or (self._work and len(self._unsettled) < PREFETCH)):
                if self._control:
                    self._hand_one(self._control.popleft())
                else:
                    self._hand_one(self._work.popleft())
        finally:
            self._handing_on = False

    def _hand_one(self, body: bytes) -> None:
        try:
            message = codec.decode(body)
        except UndecodableMessage:
            self._exchange.undecodable.append(body)
            return
        if isinstance(message, Offer):
            tag = next(self._tags)
            self._unsettled[tag] = body
            self._on_offer(Delivery(message, partial(self._settle, tag)))
        else:
            self._on_message(message)

    def _settle(self, tag: int) -> None:
        if self._unsettled.pop(tag, None) is not None:  # else it was settled, or has come again since
            self._hand_on()


def _give_back(delivery: Delivery) -> None:
    """Nobody receives yet: what is offered stays in the record."""
    delivery.ack()


def _forget(message: Message) -> None:
    """Nobody receives yet."""
