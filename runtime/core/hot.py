"""The most frequent keys of a stream in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi 2005).

Law: with room for m keys, every key that makes up more than 1/m of the stream is kept, and no count is more than 1/m
of the stream too high. So a hot key is always seen, and a million cold ones cost nothing.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")


class HotKeys(Generic[K]):
    def __init__(self, kept: int = 200) -> None:
        self._kept = kept
        self._counts: dict[K, int] = {}

    def add(self, key: K, count: int = 1) -> None:
        """`key` was seen `count` times more."""
        before = self._counts.get(key)
        if before is None and len(self._counts) >= self._kept:
            coldest = min(self._counts, key=self._counts.__getitem__)
            before = self._counts.pop(coldest)  # it may have been this often before
        self._counts[key] = (before or 0) + count

    def take(self, most: int) -> list[tuple[K, int]]:
        """The hottest keys with their counts since the last call, the hottest first."""
        hottest = sorted(self._counts.items(), key=lambda item: -item[1])[:most]
        self._counts = {}
        return hottest
