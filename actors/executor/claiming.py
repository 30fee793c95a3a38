"""What to claim next: bands this node may serve now, in fair turns, with what is known of their backlog.

No I/O here. A take asks for the oldest due rows of a band. While a band has a backlog, takes skip what lies before
the newest row already taken (dead index entries that an open snapshot keeps alive cost more with each pull); the
sweep once a second looks from the start again, so that nothing is ever skipped for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from actors.authoring.registry import Kind
from actors.world import World
from runtime.core.lanes import Lanes
from runtime.core.limits import Limit
from runtime.core.task import NOT_PAUSED, Band, Claim, Take

_SINCE_MARGIN: Final = timedelta(
    seconds=2
)  # commits that were under way may bring rows that were due earlier
_BATCH_ROWS_MAX: Final = 1_000  # of one band in one pull, where a place takes many
_LOOKS_MAX: Final = 8  # sweeps in a second of an idle node: with more bands than room, each asks some of them


class Claiming:
    def __init__(self, world: World) -> None:
        self._world = world
        self._lanes = {kind: Lanes() for kind in Kind}
        self._kinds: dict[int, Kind] = {}  # of the bands that are served now
        self._served = (-1, NOT_PAUSED)
        self._served_kinds: frozenset[Kind] = frozenset()
        self._weights: Mapping[str, int] = {}
        self._limited: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        self._limits: Mapping[str, Limit] = {}
        self._newest_due: dict[int, datetime] = {}
        self._batches: dict[int, int] = {}  # bands of batch handlers that are served: tasks of a call
        self._rows: dict[int, int] = {}  # of those: rows for each place, in the pull that is under way
        self._unasked: set[int] = set()  # bands that are served and were not asked since the last second
        self._looks_left = 0

    def waits(self, band: int) -> None:
        """Rows of this band wait and are due. Those that others have to serve are no backlog of this node."""
        known = self._world.bands.get(band)
        handler = None if known is None or known.keyed else self._world.serves(known)
        if handler is None:
            return
        self._world.capacity.put_in_backlog(band, handler.kind)
        if band in self._kinds:
            self._lanes[self._kinds[band]].wake(band)

    def second(self) -> None:
        """A new round of looking: everything that is served is to be asked."""
        self._serve()
        self._unasked = set(self._kinds)
        self._looks_left = _LOOKS_MAX

    def looks_on(self) -> bool:
        """Whether an idle node sweeps once more: some bands were not asked yet, and there is room.

        It finds what nobody told it of within a second or two, however many bands there are for each place.
        """
        if not self._unasked or not self._looks_left:
            return False
        self._looks_left -= 1
        idle = {kind for kind in self._served_kinds if self._world.capacity.room(kind) > 0}
        return any(self._kinds.get(band) in idle for band in self._unasked)

    def takes(self, *, sweep: bool) -> list[Take]:
        """What to pull now: for kinds of body with a backlog, and in a sweep for all. Each is to be `returned`."""
        self._serve()
        behind = self._behind()
        takes = []
        for kind, lanes in self._lanes.items():
            if sweep or kind in behind:
                quotas = lanes.choose(self._world.capacity.room(kind))
                takes += [
                    Take(band, places * self._rows_each(band, places), None if sweep else self._since(band))
                    for band, places in quotas
                ]
        self._unasked.difference_update(take.band for take in takes)
        return takes

    def _rows_each(self, band: int, places: int) -> int:
        """Rows for each place: as many as a call takes, but not too many in one pull."""
        if (rows := self._batches.get(band, 1)) > 1:
            rows = self._rows[band] = min(rows, max(1, _BATCH_ROWS_MAX // places))
        return rows

    def limited(self, kind: Kind) -> Sequence[int]:
        """Bands that this node may serve now, under limits: they are never in `takes`."""
        self._serve()
        return self._limited[kind]

    def returned(self, takes: Sequence[Take], marks: Sequence[int], claims: Iterable[Claim]) -> None:
        """Learn from a pull: a band that came back short has no backlog, and leaves its turn to others."""
        got: Counter[int] = Counter()
        for claim in claims:
            got[claim.band] += 1
            self._newest_due[claim.band] = claim.started_at - timedelta(seconds=claim.waited_s)
        for take, mark in zip(takes, marks, strict=True):
            kind = self._kinds.get(take.band)
            if kind is not None:
                rows = self._rows.get(take.band, 1)
                self._lanes[kind].returned(take.band, take.limit // rows, -(-got[take.band] // rows))
            if got[take.band] < take.limit:
                self._world.capacity.clear_backlog(take.band, mark)
            elif not mark and kind is not None:
                self._world.capacity.put_in_backlog(take.band, kind)

    def _behind(self) -> set[Kind]:
        """Kinds of body with a backlog that is served here. Most often the first band tells, however many there are."""
        behind: set[Kind] = set()
        for band in self._world.capacity.backlog:
            if (kind := self._kinds.get(band)) is not None:
                behind.add(kind)
                if behind == self._served_kinds:
                    break
        return behind

    def _serve(self) -> None:
        """Bands are only ever added, so their number, pauses and limits say whether anything has changed."""
        capacity = self._world.capacity
        if self._weights is not capacity.weights:
            self._weights = capacity.weights
            for lanes in self._lanes.values():
                lanes.weigh(self._weights)
        bands, paused = self._world.bands, capacity.paused
        if self._served == (len(bands), paused) and self._limits is capacity.limits:
            return
        self._served, self._limits = (len(bands), paused), capacity.limits
        by_kind: dict[Kind, list[Band]] = {kind: [] for kind in Kind}
        self._limited = {kind: [] for kind in Kind}
        for band in bands:
            handler = self._world.serves(band)
            if handler is None or band.keyed or paused.holds(band):
                continue
            if band.handler in self._limits:
                self._limited[handler.kind].append(band.id)
                capacity.clear_backlog(band.id, capacity.backlog_mark(band.id))
            else:
                by_kind[handler.kind].append(band)
                if handler.options.batch is not None:
                    self._batches[band.id] = handler.options.batch.max
        self._kinds = {band.id: kind for kind, served in by_kind.items() for band in served}
        self._served_kinds = frozenset(self._kinds.values())
        for kind, served in by_kind.items():
            self._lanes[kind].serve((band.id, band.lane, band.tenant) for band in served)

    def _since(self, band: int) -> datetime | None:
        newest = self._newest_due.get(band)
        return None if newest is None else newest - _SINCE_MARGIN
