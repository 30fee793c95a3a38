"""Fair choice: how many rows a node with free capacity takes from which band.

Law: 8 : 4 : 1 between the lanes, by stride scheduling (Waldspurger 1995; deficit round robin row by row, so
that it also holds for a capacity of 1); inside a lane tenants take turns by their weights (in a round, a tenant
of weight 3 has three), inside a tenant its bands. Nobody knows which bands hold rows until they are asked, so a
band is *wet* (its last ask came back full, or somebody woke it) or *dry*. The wet share the capacity; one row in
eight goes to the dry, to find out. So no capacity is kept for the absent, and what waits is found at the latest
when 8 x 13 x (weights of the tenants of its lane) x (bands of its tenant) rows have been chosen. A tenant whose
rows are known of never waits longer than one round of its lane: the weights of the others that have some.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.core.task import Lane

K = TypeVar("K")
V = TypeVar("V")

STRIDES: Final = (1, 2, 8)  # by Lane; the inverse of 8 : 4 : 1
USUAL_WEIGHT: Final = 1  # of a tenant that nobody gave another
WEIGHT_MAX: Final = 100  # nobody waits for longer rounds
PROBE_EVERY: Final = 8  # rows; more find work sooner, fewer waste less of a busy node's asking


@dataclass(slots=True)
class _Place:
    band: int
    lane: Lane
    tenant: str
    wet: bool = True
    woken: bool = False  # since it was last asked


@dataclass(slots=True)
class _Tenant:
    """Of one lane of one wheel. `used`: turns that it has had in this round."""

    weight: int
    used: int = 0
    bands: OrderedDict[int, _Place] = field(default_factory=OrderedDict)


def check_weight(weight: int) -> None:
    """Raises InvalidInput."""
    if not 1 <= weight <= WEIGHT_MAX:
        fault = f"{weight} is no weight: allowed are whole numbers from 1 to {WEIGHT_MAX}"
        raise InvalidInput(f"weight: {fault}", (("#/weight", fault),))


class Lanes:
    """What one node may serve, and whose turn it is. The cost depends on the rows chosen, not on the bands or tenants.

        lanes.serve((band.id, band.lane, band.tenant) for band in loaded_and_not_paused)
        for band, limit in lanes.choose(free):
            lanes.returned(band, limit, got=len(take(band, limit)))

    Every ask is followed by `returned`. Where one came back short, choosing again uses what it left over.
    """

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._wet = _Wheel({})
        self._dry = _Wheel({})
        self._probe_due = 0  # rows chosen since the last probe

    def serve(self, bands: Iterable[tuple[int, Lane, str]]) -> None:
        """From now on serve these (band id, lane, tenant), and no others. Those that stay keep their turn."""
        wanted = {band: (lane, tenant) for band, lane, tenant in bands}
        for band in self._places.keys() - wanted.keys():
            place = self._places.pop(band)
            self._wheel_of(place).remove(place)
        for band, (lane, tenant) in wanted.items():
            if band not in self._places:
                self._places[band] = place = _Place(band, lane, tenant)
                self._wet.add(place)

    def weigh(self, weights: Mapping[str, int]) -> None:
        """From now on tenants have these weights, 1 to WEIGHT_MAX; who is not named has 1. Nobody loses a turn."""
        for wheel in (self._wet, self._dry):
            wheel.weigh(weights)

    def choose(self, rows: int) -> list[tuple[int, int]]:
        """(band id, limit) with limits of 1 or more that add up to `rows`; empty when nothing is served."""
        if not self._places or rows < 1:
            return []
        probes = self._probes(rows)
        return [*self._dry.turns(probes), *self._wet.turns(rows - probes)]

    def returned(self, band: int, asked: int, got: int) -> None:
        """What an ask came to. Short: the band is dry, and its lane gets back what it could not use."""
        place = self._places.get(band)
        if place is None:
            return
        if got >= asked or place.woken:
            self._move(place, wet=True)
        elif place.wet:
            # All but one row: an ask is never free, or false wakes could starve a lower lane.
            self._wet.refund(place.lane, asked - max(got, 1))
            self._move(place, wet=False)

    def wake(self, band: int) -> None:
        """Rows wait in this band: somebody accepted, released or counted some. Harmless where it is wrong."""
        place = self._places.get(band)
        if place is not None:
            place.woken = True
            self._move(place, wet=True)

    def _probes(self, rows: int) -> int:
        if not self._wet:
            return rows
        if not self._dry:
            self._probe_due = 0
            return 0
        self._probe_due += rows
        probes = min(len(self._dry), rows, self._probe_due // PROBE_EVERY)
        self._probe_due = (self._probe_due - probes * PROBE_EVERY) % PROBE_EVERY
        return probes

    def _wheel_of(self, place: _Place) -> _Wheel:
        return self._wet if place.wet else self._dry

    def _move(self, place: _Place, *, wet: bool) -> None:
        if place.wet is not wet:
            self._wheel_of(place).remove(place)
            place.wet = wet
            self._wheel_of(place).add(place)


class _Wheel:
    """Turns among places: lanes by stride, then tenants, then bands in rotation."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lanes: list[OrderedDict[str, _Tenant]] = [OrderedDict() for _ in STRIDES]
        self._rounds = [0] * len(STRIDES)  # turns in one round of a lane: the weights of its tenants
        self._passes = [0] * len(STRIDES)  # the lane with the lowest pass is next
        self._now = 0  # pass of the last turn
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, place: _Place) -> None:
        tenants = self._lanes[place.lane]
        if not tenants:  # a lane that was empty has saved nothing up
            active = (at for at, others in zip(self._passes, self._lanes, strict=True) if others)
            self._passes[place.lane] = max(self._passes[place.lane], min(active, default=self._now))
        tenant = tenants.get(place.tenant)
        if tenant is None:
            tenants[place.tenant] = tenant = _Tenant(self._weights.get(place.tenant, USUAL_WEIGHT))
            self._rounds[place.lane] += tenant.weight
        tenant.bands[place.band] = place
        self._size += 1

    def remove(self, place: _Place) -> None:
        tenants = self._lanes[place.lane]
        tenant = tenants[place.tenant]
        del tenant.bands[place.band]
        if not tenant.bands:
            del tenants[place.tenant]
            self._rounds[place.lane] -= tenant.weight
        self._size -= 1

    def weigh(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        for lane, tenants in enumerate(self._lanes):
            for name, tenant in tenants.items():
                tenant.weight = weights.get(name, USUAL_WEIGHT)
                tenant.used = min(tenant.used, tenant.weight - 1)
            self._rounds[lane] = sum(tenant.weight for tenant in tenants.values())

    def turns(self, count: int) -> list[tuple[int, int]]:
        """(band, turns) of the next `count` turns; the wheel is not empty unless `count` is 0."""
        given = []
        for lane, lane_turns in enumerate(self._lane_turns(count)):
            for tenant, tenant_turns in self._tenant_turns(lane, lane_turns):
                for place, turns in _rotate(tenant.bands, tenant_turns):
                    place.woken = False
                    given.append((place.band, turns))
        return given

    def _lane_turns(self, count: int) -> list[int]:
        """Turn by turn to the lane with the lowest pass, the higher lane where they are equal."""
        turns = [0] * len(STRIDES)
        heap = [(self._passes[lane], lane) for lane, tenants in enumerate(self._lanes) if tenants]
        heapify(heap)
        for _ in range(count):
            self._now, lane = heap[0]
            turns[lane] += 1
            heapreplace(heap, (self._now + STRIDES[lane], lane))
        for at, lane in heap:
            self._passes[lane] = at
        return turns

    def _tenant_turns(self, lane: int, turns: int) -> list[tuple[_Tenant, int]]:
        """Whole rounds at once, then tenant by tenant: no more steps than turns, however many tenants there are."""
        if turns == 0:
            return []
        tenants = self._lanes[lane]
        rounds, left = divmod(turns, self._rounds[lane])
        given = {name: rounds * tenant.weight for name, tenant in tenants.items()} if rounds else {}
        while left:
            name, tenant = next(iter(tenants.items()))
            now = min(left, tenant.weight - tenant.used)
            given[name] = given.get(name, 0) + now
            tenant.used += now
            left -= now
            if tenant.used == tenant.weight:
                tenant.used = 0
                tenants.move_to_end(name)
        return [(tenants[name], number) for name, number in given.items()]

    def refund(self, lane: Lane, turns: int) -> None:
        self._passes[lane] -= turns * STRIDES[lane]


def _rotate(ring: OrderedDict[K, V], turns: int) -> list[tuple[V, int]]:
    """Give out `turns` one by one in rotation, and leave the ring where the next one goes on."""
    if turns == 0:
        return []
    each, more = divmod(turns, len(ring))
    given = [(member, each + (n < more)) for n, member in zip(range(turns), ring.values(), strict=False)]
    for key in list(islice(ring, more)):
        ring.move_to_end(key)
    return given
