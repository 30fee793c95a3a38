"""What to claim next: bands this node may serve now, fairly, with what is known of their backlog.

No I/O here. A take asks for the oldest due rows of a band. While a band has a backlog, takes skip what lies before
the newest row already taken (dead index entries that an open snapshot keeps alive cost more with each pull); the
sweep once a second looks at everything again, so that nothing is ever skipped for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from actors.authoring.registry import Kind
from actors.world import World
from runtime.core.lanes import Lanes
from runtime.core.task import Band, Claim, Take

_SINCE_MARGIN: Final = timedelta(seconds=2)  # commits that were under way may bring rows that were due earlier


class Claiming:
    def __init__(self, world: World) -> None:
        self._world = world
        self._lanes = {kind: Lanes() for kind in Kind}
        self._newest_due: dict[int, datetime] = {}

    def takes(self, *, sweep: bool) -> list[Take]:
        """What to pull now; `sweep` looks at every band from the start, else only those with a backlog."""
        bands = list(self._world.bands) if sweep else self._known(self._world.capacity.backlog)
        by_kind: dict[Kind, list[Band]] = {}
        for band in bands:
            handler = self._world.serves(band)
            if handler is not None and handler.name not in self._world.capacity.paused:
                by_kind.setdefault(handler.kind, []).append(band)
        takes = []
        for kind, served in by_kind.items():
            room = self._world.capacity.room(kind)
            if room > 0:
                quotas = self._lanes[kind].choose(served, room)
                takes += [Take(band, limit, None if sweep else self._since(band)) for band, limit in quotas]
        return takes

    def returned(self, takes: Sequence[Take], marks: Sequence[int], claims: Iterable[Claim]) -> None:
        """Learn from a pull: a band that came back short has no backlog, and leaves its turn to others."""
        got: Counter[int] = Counter()
        for claim in claims:
            got[claim.band] += 1
            self._newest_due[claim.band] = claim.started_at - timedelta(seconds=claim.waited_s)
        for take, mark in zip(takes, marks, strict=True):
            if got[take.band] >= take.limit:
                if not mark:
                    self._world.capacity.put_in_backlog(take.band)
            else:
                self._world.capacity.clear_backlog(take.band, mark)
            band = self._world.bands[take.band]
            handler = self._world.registry.get(band.handler)
            if handler is not None:
                self._lanes[handler.kind].served(band, got[take.band], take.limit)

    def _since(self, band: int) -> datetime | None:
        newest = self._newest_due.get(band)
        return None if newest is None else newest - _SINCE_MARGIN

    def _known(self, ids: Iterable[int]) -> list[Band]:
        return [band for band in map(self._world.bands.get, ids) if band is not None]
