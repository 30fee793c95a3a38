"""Suspects: tasks whose process died more than once. A node runs one at a time, with nothing beside it.

So a poison task takes nobody with it, and its crash is proof. Isolation closes the node's capacity, waits until
nothing runs, pulls one suspect alone, and opens again when that attempt is settled; between two suspects ordinary
work gets its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from actors.executor.capacity import Capacity
from runtime.core.task import Take

_PAUSE_S: Final = 1.0
_REASON: Final = "isolation"


class Suspects:
    """`serves` says whether this node may run a band now; who may not is left to others, or to the next census."""

    def __init__(self, capacity: Capacity, serves: Callable[[int], bool]) -> None:
        self._capacity = capacity
        self._serves = serves
        self._bands: list[int] = []  # positive ids, in turn
        self._isolating = False
        self._asked = False
        self._not_before_s = 0.0

    def seen(self, bands: Iterable[int]) -> None:
        self._bands += [band for band in bands if band not in self._bands]

    def next_take(self, now_s: float) -> Take | None:
        """Called often: closes the node when suspects wait, and says what to pull once it is empty."""
        if self._asked or now_s < self._not_before_s:
            return None
        self._bands = [band for band in self._bands if self._serves(band)]
        if not self._bands:
            if self._isolating:
                self.over(now_s)
            return None
        if not self._isolating:
            self._isolating = True
            self._capacity.close(_REASON)
        if self._capacity.taken:
            return None
        self._asked = True
        return Take(-self._bands[0], 1)

    def pulled(self, *, found: bool, now_s: float) -> None:
        """What that pull came to; when it found one, `over` follows as soon as the attempt is settled."""
        if found:
            self._bands.append(self._bands.pop(0))
        else:
            self._bands.pop(0)
            self.over(now_s)

    def over(self, now_s: float) -> None:
        self._isolating = self._asked = False
        self._not_before_s = now_s + _PAUSE_S
        self._capacity.open(_REASON)
