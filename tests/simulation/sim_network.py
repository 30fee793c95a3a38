"""Messages between the nodes of a world: lost, doubled, late, out of order, and connections that nobody hears break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runtime.adapters.memory.broker import MemoryBroker, MemoryExchange
from runtime.core.messages import Message, Offer
from runtime.core.view import Standing
from runtime.errors import Unavailable
from runtime.ports import Delivery
from tests.simulation.sim_loop import process

if TYPE_CHECKING:
    from contextvars import Context
    from random import Random

    from tests.simulation.sim_history import History
    from tests.simulation.sim_views import Views

SENDING_S: Final = 2.0  # after which a node gives a message up
_GIVEN_UP_S: Final = 5.0  # how long an offer may wait for room


class Network:
    def __init__(self, random: Random, history: History, views: Views) -> None:
        self.exchange = MemoryExchange(self._route)
        self.history = history
        self.views = views
        self.away = False
        self._random = random
        self._context = process("net")
        self._loss = random.choice((0.0, 0.05, 0.3))
        self._double = random.choice((0.0, 0.05, 0.3))
        self._late = random.choice((0.0, 0.02))
        self._delay_s = random.choice((0.0, 0.001, 0.05))

    def end(self) -> None:
        self._loss = self._double = self._late = 0.0

    def go_away(self) -> None:
        """For all; who joins meanwhile finds nothing either."""
        self.away = True
        for member in self._members():
            member.lose()

    def come_back(self, *, loses: bool) -> None:
        self.away = False
        for member in self._members():
            if loses:
                member.forget()
            member.find()

    def _members(self) -> list[WatchedBroker]:
        return [member for member in self.exchange.members.values() if isinstance(member, WatchedBroker)]

    def _route(self, sender: int | None, to: int, body: bytes, deliver: Callable[[], None]) -> None:
        random, counts = self._random, self.history.counts
        counts["messages sent"] += 1
        if random.random() < self._loss:
            counts["messages lost"] += 1
            return
        copies = 1 + (random.random() < self._double)
        counts["messages doubled"] += copies - 1
        for _ in range(copies):
            delay_s = random.expovariate(1 / self._delay_s) if self._delay_s else 0.0
            if random.random() < self._late:
                counts["messages late"] += 1
                delay_s += random.uniform(0, 8)
            land = partial(self._land, to, deliver)
            asyncio.get_running_loop().call_later(delay_s, land, context=self._context)

    def _land(self, to: int, deliver: Callable[[], None]) -> None:
        member = self.exchange.members.get(to)
        if isinstance(member, WatchedBroker) and not self.away:
            member.land(deliver)


class WatchedBroker(MemoryBroker):
    """One incarnation's. `silent`: nothing passes, in either direction; `deaf`: nothing comes in; nobody has noticed."""

    def __init__(
        self,
        network: Network,
        incarnation: int,
        context: Context,
        asked: set[Any],
        is_closed: Callable[[], bool],
        goes_by: Callable[[], tuple[int, float]],
    ) -> None:
        super().__init__(network.exchange, incarnation)
        self.silent = 0
        self.deaf = 0
        self.lost = int(network.away)  # faults at work that it has noticed
        self.reachable = not network.away
        self.dead = False
        self._network = network
        self._context = context
        self._asked = asked
        self._is_closed = is_closed
        self._goes_by = goes_by  # (number of its view, since when)
        self._held: list[Callable[[], None]] = []

    def land(self, deliver: Callable[[], None]) -> None:
        """It has arrived at the broker; it goes on to the process unless nothing passes."""
        if self.silent or self.deaf:
            self._held.append(deliver)
        else:
            asyncio.get_running_loop().call_soon(deliver, context=self._context)

    def lose(self) -> None:
        """The process notices that its connection is gone."""
        self.lost += 1
        self._later(self.cut)

    def find(self) -> None:
        """Whatever was wrong is over."""
        self.lost -= 1
        if not self.lost and not self.dead:
            self._later(self.heal)

    def pass_on(self) -> None:
        if not self.silent and not self.deaf:
            held, self._held = self._held, []
            for deliver in held:
                self._later(deliver)

    def forget(self) -> None:
        """The broker has lost what was in its queues."""
        self._held.clear()
        self._work.clear()
        self._control.clear()

    def _later(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback, context=self._context)

    # -- the port -----------------------------------------------------------------------------------

    def receive(self, on_offer: Callable[[Delivery], None], on_message: Callable[[Message], None]) -> None:
        def watched(delivery: Delivery) -> None:
            arrived_s = self._network.history.now_s()
            on_offer(Delivery(delivery.offer, partial(self._acked, delivery, arrived_s)))

        super().receive(watched, on_message)

    async def offer(self, to: int, offer: Offer) -> None:
        self._check_offer(to, offer)
        self._network.history.counts["offers"] += len(offer.items)
        await super().offer(to, offer)

    async def broadcast(self, message: Message) -> None:
        await self._stall()
        await super().broadcast(message)

    async def _send(self, to: int, body: bytes, *, work: bool) -> None:
        await self._stall()
        await super()._send(to, body, work=work)

    async def _stall(self) -> None:
        if self.silent:
            await asyncio.sleep(SENDING_S)
            raise Unavailable("no confirmation")

    # -- promises -----------------------------------------------------------------------------------

    def _check_offer(self, to: int, offer: Offer) -> None:
        history, view = self._network.history, self._network.views.all[offer.view]
        member = view.find(to)
        if member is None or member.standing is not Standing.ACTIVE:
            history.fail(f"an offer went to incarnation {to}, in view {view.number} it is {member}")
        number, since_s = self._goes_by()
        if offer.view < number and history.now_s() - since_s > 0.01:
            history.fail(
                f"an offer went out by view {offer.view}, its sender has gone by {number} since {since_s}"
            )

    def _acked(self, delivery: Delivery, arrived_s: float) -> None:
        history = self._network.history
        given_up = self.dead or self._is_closed() or history.now_s() - arrived_s > _GIVEN_UP_S
        if not given_up and not self._asked.issuperset(delivery.offer.items):
            history.fail(
                f"incarnation {self._incarnation} has acknowledged {delivery.offer} before its claim"
            )
        delivery.ack()
