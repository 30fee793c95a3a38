"""Offers that arrived from other members: kept until there is room, claimed in batches, acknowledged, and the credit
for the next ones.

Law: an offer is acknowledged when its claim has committed, before anything runs, or when it is given up: nothing is
held at the broker during work. What is given up waits in the record, where a pull finds it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from actors.authoring.registry import Kind
from actors.executor.messages import Claimed
from actors.world import World
from runtime.core import decisions
from runtime.core.messages import Credit
from runtime.core.task import Claim, Settlement
from runtime.errors import Unavailable
from runtime.ports import Delivery

log = logging.getLogger(__name__)

_KINDS: Final = tuple(Kind)
_WAITING_MAX: Final = 4_000  # ids; more than all credit that is ever granted
_GIVE_UP_S: Final = 5.0  # a full node: somebody else should find them
_BATCH_MAX: Final = 500


@dataclass(slots=True, eq=False)
class _Waiting:
    delivery: Delivery
    since_s: float
    next: int = 0  # index of its first item that is not claimed yet


class Offers:
    """`detach` runs a coroutine beside the executor; `tell` sends to it."""

    def __init__(
        self,
        world: World,
        detach: Callable[[Coroutine[Any, Any, None]], None],
        tell: Callable[[Claimed], object],
    ) -> None:
        self._world = world
        self._detach = detach
        self._tell = tell
        self._waiting: dict[Kind, deque[_Waiting]] = {kind: deque() for kind in Kind}
        self._count = 0
        self._claiming: set[Kind] = set()
        self._granted: tuple[int, ...] = ()
        self._received = dict.fromkeys(Kind, 0)  # since the last grant

    # -- in -----------------------------------------------------------------------------------------

    def put(self, delivery: Delivery) -> None:
        offer = delivery.offer
        if offer.kind >= len(_KINDS):
            delivery.ack()
            return
        kind = _KINDS[offer.kind]
        self._received[kind] += len(offer.items)
        if self._count + len(offer.items) > _WAITING_MAX:
            delivery.ack()
            return
        self._waiting[kind].append(_Waiting(delivery, self._world.clock.now_s()))
        self._count += len(offer.items)
        self.claim(kind)

    def claim(self, kind: Kind) -> None:
        """Claim as much as there is room for, in one statement; one at a time."""
        if not self._waiting[kind] or kind in self._claiming:
            return
        room = min(_BATCH_MAX, self._world.capacity.room(kind))
        if room <= 0:
            return
        items, done = self._take(kind, room)
        self._claiming.add(kind)
        self._world.capacity.take(kind, len(items))
        self._detach(self._claim(kind, items, done))

    def claimed(self, answer: Claimed) -> None:
        """The executor has heard of it, and starts what came: what was taken for it is free until then."""
        self._claiming.discard(answer.kind)
        capacity = self._world.capacity
        capacity.give_back(answer.kind, answer.asked - len(answer.claims))
        self._regrant()
        capacity.give_back(answer.kind, len(answer.claims))

    def tick(self) -> None:
        """Give up what has waited too long, and tell the others when the credit has changed much."""
        now_s = self._world.clock.now_s()
        for kind, waiting in self._waiting.items():
            while waiting and (self._world.capacity.closed or now_s - waiting[0].since_s > _GIVE_UP_S):
                self._drop(kind)
            self.claim(kind)
        self._regrant()

    def close(self) -> None:
        """Give up everything."""
        for kind, waiting in self._waiting.items():
            while waiting:
                self._drop(kind)

    # -- claiming -----------------------------------------------------------------------------------

    def _take(self, kind: Kind, room: int) -> tuple[list[tuple[UUID, int]], list[Delivery]]:
        items: list[tuple[UUID, int]] = []
        done: list[Delivery] = []
        waiting = self._waiting[kind]
        while waiting and len(items) < room:
            first = waiting[0]
            part = first.delivery.offer.items[first.next : first.next + room - len(items)]
            items += part
            first.next += len(part)
            if first.next == len(first.delivery.offer.items):
                done.append(waiting.popleft().delivery)
        self._count -= len(items)
        return items, done

    async def _claim(self, kind: Kind, items: list[tuple[UUID, int]], done: list[Delivery]) -> None:
        world = self._world
        claims: list[Claim] = []
        failed = False
        try:
            claims = await self._served(await world.store.claim(items, world.incarnation))
        except Unavailable as away:
            log.warning("claiming %d offers: the record is away: %s", len(items), away)
            failed = True
        for delivery in done:
            delivery.ack()
        self._tell(Claimed(kind, len(items), tuple(claims), failed))

    async def _served(self, claims: list[Claim]) -> list[Claim]:
        """Those that this node may run. Others (the sender went by an older view, a pause is on) are handed back.

        Where the record is away meanwhile, nothing is known of any: all are left to the audit.
        """
        world = self._world
        if any(world.bands.get(claim.band) is None for claim in claims):
            await world.bands.refresh()
        mine: list[Claim] = []
        foreign: list[Claim] = []
        for claim in claims:
            band = world.bands.get(claim.band)
            fits = (
                band is not None
                and world.serves(band) is not None
                and not world.capacity.paused.holds(band)
                and band.handler not in world.capacity.limits
            )
            (mine if fits else foreign).append(claim)
        if foreign:
            await world.store.settle(
                [Settlement(c.id, c.attempt, world.incarnation, decisions.after_release(c)) for c in foreign]
            )
        return mine

    def _drop(self, kind: Kind) -> None:
        gone = self._waiting[kind].popleft()
        self._count -= len(gone.delivery.offer.items) - gone.next
        gone.delivery.ack()

    # -- credit -------------------------------------------------------------------------------------

    def grant(self) -> tuple[int, ...]:
        """What every other member may send from now on; whoever calls this tells them."""
        others = len(self._world.cluster.view.active) - 1
        self._granted = self._world.capacity.credits(max(0, others))
        self._received = dict.fromkeys(Kind, 0)
        return self._granted

    def _regrant(self) -> None:
        broker, others = self._world.broker, len(self._world.cluster.view.active) - 1
        if broker is None or not broker.reachable or others <= 0:
            return  # who does not hear takes no offers
        now = self._world.capacity.credits(others)
        if _open(now) != _open(self._granted) or self._is_stale(now, others):
            self._detach(self._tell_credit(self.grant()))

    def _is_stale(self, now: tuple[int, ...], others: int) -> bool:
        """Whether the others have less than half of what they could have: it was spent, or there is more room."""
        for kind, credit, granted in zip(_KINDS, now, self._granted, strict=False):
            left = granted * others - self._received[kind]
            if credit and left * 2 < credit * others:
                return True
        return False

    async def _tell_credit(self, credits_now: tuple[int, ...]) -> None:
        assert self._world.broker is not None, "only asked for with one"
        try:
            await self._world.broker.broadcast(Credit(self._world.incarnation, credits_now))
        except Unavailable as away:
            log.debug("credit is not told: %s", away)


def _open(credits_now: tuple[int, ...]) -> list[int]:
    return [kind for kind, credit in enumerate(credits_now) if credit]
