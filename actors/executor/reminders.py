"""When rows become due that this node knows of. Bounded: what does not fit is found by the sweep once a second."""

from __future__ import annotations

import heapq
from typing import Final

_KEPT_MAX: Final = 10_000


class Reminders:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []  # (when, band)

    def add(self, at_s: float, band: int) -> None:
        if len(self._heap) < _KEPT_MAX:
            heapq.heappush(self._heap, (at_s, band))

    def due(self, now_s: float) -> set[int]:
        """Bands whose time has come; each is told once."""
        bands: set[int] = set()
        while self._heap and self._heap[0][0] <= now_s:
            bands.add(heapq.heappop(self._heap)[1])
        return bands
