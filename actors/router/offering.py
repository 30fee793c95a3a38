"""Tells owners what waits for them: offers within their credit, a hint beyond it.

Law: a hint that is lost costs time only. What cannot be offered now, this node's executor hears of, and takes if it
has room: an idle node is better than a far one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from actors.authoring.registry import Kind
from actors.world import World
from runtime.core.keyed import actor_of
from runtime.core.messages import ITEMS_MAX, Offer, Waiting
from runtime.core.task import NewTask
from runtime.errors import Unavailable

log = logging.getLogger(__name__)

_KINDS: Final = {kind.value: number for number, kind in enumerate(Kind)}
_SENDING_MAX: Final = 100  # messages under way; beyond, owners find their rows themselves


@dataclass(frozen=True, slots=True)
class Ready:
    """A task that waits and is due."""

    id: UUID
    attempt: int
    band: int
    slot: int
    prefers: tuple[str, ...] = ()
    actor: UUID | None = None  # whose message it is: it waits for its turn with the owner of the key


def ready(task: NewTask) -> Ready:
    """A task that was just accepted."""
    return Ready(task.id, 1, task.band, task.slot, task.prefers, actor_of(task))


@dataclass(slots=True)
class _Parcel:
    """For one owner and kind of body."""

    items: list[tuple[UUID, int]] = field(default_factory=list)
    bands: set[int] = field(default_factory=set)


class Offering:
    """`here` is told which bands have rows for this node to look for, `mail` which keys have messages."""

    def __init__(
        self,
        world: World,
        detach: Callable[[Coroutine[Any, Any, None]], None],
        here: Callable[[frozenset[int]], object],
        mail: Callable[[tuple[tuple[UUID, int], ...]], object],
    ) -> None:
        self._world = world
        self._detach = detach
        self._here = here
        self._mail = mail
        self._sending = 0

    def route(self, tasks: Iterable[Ready]) -> None:
        """Each to its owner; what belongs here or nowhere is looked for here."""
        here: set[int] = set()
        parcels: dict[tuple[int, int], _Parcel] = {}
        keys: dict[UUID, int] = {}
        afar: dict[int, set[int]] = {}
        cluster, bands = self._world.cluster, self._world.bands
        for task in tasks:
            band = bands[task.band]
            prefers = task.prefers if task.actor is None else ()
            owner = None if cluster.alone else cluster.owner(band, task.slot, prefers)
            mine = owner is None or owner == cluster.incarnation
            if task.actor is not None:
                if mine:
                    keys[task.actor] = task.band
                elif owner is not None:
                    afar.setdefault(owner, set()).add(task.band)
            elif owner is None or mine:
                here.add(task.band)
            elif band.handler in self._world.capacity.limits:  # an offer says who begins it; a limit, when
                afar.setdefault(owner, set()).add(task.band)
            else:
                parcel = parcels.setdefault((owner, self._kind(band.handler)), _Parcel())
                parcel.items.append((task.id, task.attempt))
                parcel.bands.add(task.band)
        for (owner, kind), parcel in parcels.items():
            if not self._send(owner, kind, parcel):
                here |= parcel.bands
        for owner, mail in afar.items():
            self._hint_soon(owner, tuple(mail))
        if keys:
            self._mail(tuple(keys.items()))
        if here:
            self._here(frozenset(here))

    def _send(self, owner: int, kind: int, parcel: _Parcel) -> bool:
        """False: not everything was offered, somebody else may take the rest."""
        broker, cluster = self._world.broker, self._world.cluster
        if broker is None or not broker.reachable or self._sending >= _SENDING_MAX:
            return False
        count = cluster.spend(owner, kind, min(len(parcel.items), ITEMS_MAX))
        bands = tuple(parcel.bands)
        if count:
            offer = Offer(cluster.view.number, cluster.incarnation, tuple(parcel.items[:count]), kind)
            self._sending += 1
            self._detach(self._offer(owner, offer, frozenset(bands)))
        if count == len(parcel.items):
            return True
        self._hint_soon(owner, bands)
        return False

    def _hint_soon(self, owner: int, bands: tuple[int, ...]) -> None:
        """What is not told, the owner finds itself."""
        broker = self._world.broker
        if broker is not None and broker.reachable and self._sending < _SENDING_MAX:
            self._sending += 1
            self._detach(self._hint(owner, Waiting(bands)))

    async def _offer(self, owner: int, offer: Offer, bands: frozenset[int]) -> None:
        assert self._world.broker is not None, "only sent with one"
        try:
            await self._world.broker.offer(owner, offer)
            self._world.telemetry.count("offer_messages_total")
            self._world.telemetry.count("tasks_offered_total", len(offer.items))
        except Unavailable as refused:
            log.debug("%d offers to incarnation %d are lost: %s", len(offer.items), owner, refused)
            self._world.cluster.peer(owner).credits = []  # until it is heard again
            self._here(bands)
        finally:
            self._sending -= 1

    async def _hint(self, owner: int, waiting: Waiting) -> None:
        assert self._world.broker is not None, "only sent with one"
        try:
            await self._world.broker.tell(owner, waiting)
        except Unavailable as refused:
            log.debug("a hint to incarnation %d is lost: %s", owner, refused)
        finally:
            self._sending -= 1

    def _kind(self, handler: str) -> int:
        """Of body, as this node knows it; a handler that it has not loaded is most likely async."""
        known = self._world.registry.get(handler)
        return 0 if known is None else _KINDS[known.kind.value]
