"""What passes offers between nodes, without the nodes: their views, credit and capacity, one record, messages in memory.

A `Spot` is one node's part of it; what it tells its executor and router stands in lists. Time stands still until it is
set, and what a spot begins ends before `settled` returns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from actors import Context, handler
from actors.authoring.registry import Kind, Registry
from actors.bands import Bands
from actors.cluster import Cluster
from actors.executor.capacity import Capacity
from actors.executor.offers import Offers
from actors.router.offering import Offering, Ready
from runtime.adapters.memory.broker import MemoryBroker, MemoryExchange
from runtime.adapters.memory.store import MemoryStore
from runtime.core.messages import Credit, Message
from runtime.core.task import BandKey, Lane, NewTask
from runtime.core.view import Member, View
from tests.support.factories import new_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from uuid import UUID

    from actors.executor.messages import Claimed
    from runtime.core.task import Claim
    from runtime.ports import Delivery

LEASE_S: Final = 1000.0
ROOM: Final = 10  # async bodies of a spot; 4 threads, 1 process


@handler("quick")
async def quick(ctx: Context) -> None: ...


@handler("threaded")
def threaded(ctx: Context) -> None: ...


class Spot:
    """`here`: bands, `mail`: keys that its own executor is told of. `heard`: messages that are no offers. `claimed`: what came of
    offers; `started` are the claims in it."""

    def __init__(self, spots: Spots, incarnation: int, registry: Registry) -> None:
        self.spots = spots
        self.incarnation = incarnation
        self.cluster = Cluster(incarnation, registry.names)
        self.capacity = Capacity({Kind.ASYNC: ROOM, Kind.THREAD: 4, Kind.PROCESS: 1})
        self.broker = MemoryBroker(spots.exchange, incarnation)
        self.bands = Bands(spots.store)
        self.here: list[set[int]] = []
        self.mail: list[tuple[UUID, int]] = []
        self.heard: list[Message] = []
        self.claimed: list[Claimed] = []
        self.counted: Counter[str] = Counter()
        self.deliveries: list[Delivery] = []
        world: Any = SimpleNamespace(
            store=spots.store, registry=registry, bands=self.bands, capacity=self.capacity, cluster=self.cluster,
            broker=self.broker, incarnation=incarnation, serves=lambda band: registry.get(band.handler),
            clock=SimpleNamespace(now_s=lambda: spots.now_s), telemetry=SimpleNamespace(count=self._count),
        )  # fmt: skip
        self.offering = Offering(
            world,
            spots.begin,
            lambda bands: self.here.append(set(bands)),
            self.mail.extend,
        )
        self.offers = Offers(world, spots.begin, self.claimed.append)
        self.broker.receive(self._on_offer, self._on_message)

    @property
    def started(self) -> list[Claim]:
        return [claim for answer in self.claimed for claim in answer.claims]

    def run(self) -> None:
        """As the executor does: hear of what was claimed and start it."""
        for answer in self.claimed:
            self.offers.claimed(answer)
            self.capacity.take(answer.kind, len(answer.claims))
        self.claimed.clear()

    def credit_of(self, other: Spot) -> list[int]:
        return self.cluster.peer(other.incarnation).credits

    def told(self) -> list[Message]:
        """What it heard since the last time."""
        heard, self.heard = self.heard, []
        return heard

    def _count(self, name: str, value: int = 1) -> None:
        self.counted[name] += value

    def _on_offer(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.offers.put(delivery)

    def _on_message(self, message: Message) -> None:
        self.heard.append(message)
        if isinstance(message, Credit) and message.incarnation != self.incarnation:
            self.credit_of(self.spots[message.incarnation])[:] = message.credits


class Spots(dict[int, Spot]):
    """Members of one view, by incarnation."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.exchange = MemoryExchange()
        self.store = MemoryStore(lambda: datetime.now(UTC))
        self._begun: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._begun.add(asyncio.ensure_future(work))

    async def settled(self) -> None:
        """Until nothing is under way any more, what messages begin included."""
        for _ in range(3):  # a message takes one turn of the loop to its receiver
            while self._begun:
                await self._begun.pop()
            await asyncio.sleep(0)

    async def waiting(self, owner: Spot, count: int, *, name: str = "quick") -> list[Ready]:
        """So many new tasks wait in slots of that spot, as the router of any other one knows them."""
        [band] = await self.store.intern([BandKey(name, Lane.MEDIUM)])
        for spot in self.values():
            await spot.bands.refresh()
        slot = next(s for s in range(4096) if owner.cluster.owner(band, s) == owner.incarnation)
        tasks: list[NewTask] = [new_task(band.id, slot=slot) for _ in range(count)]
        await self.store.accept([[one] for one in tasks])
        return [Ready(one.id, 1, band.id, slot) for one in tasks]


@asynccontextmanager
async def spots(*handlers: tuple[Any, ...]) -> AsyncIterator[Spots]:
    """One spot for each tuple of handlers, all active in one view."""
    made = Spots()
    registries = [Registry(*members) for members in handlers]
    for number, registry in enumerate(registries):
        incarnation = await made.store.join(f"n{number}", LEASE_S, {})
        await made.store.set_state(incarnation, "active")
        made[incarnation] = Spot(made, incarnation, registry)
    members = tuple(Member(node=f"n{n}", incarnation=n) for n in made)
    names = {n: frozenset(r.names) for n, r in zip(made, registries, strict=True)}
    for spot in made.values():
        spot.cluster.install(View(number=1, members=members), names)
    yield made
    await made.settled()
    for spot in made.values():
        spot.broker.close()
