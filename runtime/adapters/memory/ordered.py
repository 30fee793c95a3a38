"""A sorted set in pieces: add, remove and walk from anywhere without looking at the rest.

Law: keys are unique and comparable. Pieces hold at most PIECE_MAX keys, so no operation moves more references
than that however much is stored (one flat list moves all of them for a removal at its front).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import SupportsRichComparison

K = TypeVar("K", bound="SupportsRichComparison")

PIECE_MAX: Final = 1024


class Ordered(Generic[K]):
    """Unique keys in ascending order. Must not be changed while it is walked."""

    __slots__ = ("_lasts", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[list[K]] = []  # none is empty
        self._lasts: list[K] = []  # the greatest key of each piece
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, key: K) -> None:
        if not self._pieces:
            self._pieces, self._lasts, self._size = [[key]], [key], 1
            return
        at = min(bisect_left(self._lasts, key), len(self._pieces) - 1)
        piece = self._pieces[at]
        insort(piece, key)
        self._size += 1
        if len(piece) > PIECE_MAX:
            self._split(at)
        else:
            self._lasts[at] = piece[-1]

    def remove(self, key: K) -> None:
        """Raises KeyError when it is not there."""
        at = bisect_left(self._lasts, key)
        piece = self._pieces[at] if at < len(self._pieces) else []
        index = bisect_left(piece, key)
        if index == len(piece) or piece[index] != key:
            raise KeyError(key)
        del piece[index]
        self._size -= 1
        if piece:
            self._lasts[at] = piece[-1]
        else:
            del self._pieces[at], self._lasts[at]

    def ascending(self, start: K | None = None) -> Iterator[K]:
        """From the first key that is not below `start`."""
        at = 0 if start is None else bisect_left(self._lasts, start)
        index = 0 if start is None or at == len(self._pieces) else bisect_left(self._pieces[at], start)
        for piece in self._pieces[at:]:
            yield from piece[index:] if index else piece
            index = 0

    def descending(self, before: K | None = None) -> Iterator[K]:
        """From the last key below `before`, downwards."""
        at = len(self._pieces) - 1 if before is None else bisect_left(self._lasts, before)
        if before is not None and at < len(self._pieces):
            piece = self._pieces[at]
            yield from reversed(piece[: bisect_left(piece, before)])
        elif before is None and at >= 0:
            yield from reversed(self._pieces[at])
        for lower in range(at - 1, -1, -1):
            yield from reversed(self._pieces[lower])

    def count_to(self, key: K) -> int:
        """How many keys are not above `key`."""
        at = bisect_right(self._lasts, key)
        whole = sum(len(piece) for piece in self._pieces[:at])
        return whole + (bisect_right(self._pieces[at], key) if at < len(self._pieces) else 0)

    def _split(self, at: int) -> None:
        piece = self._pieces[at]
        half = len(piece) // 2
        self._pieces[at : at + 1] = [piece[:half], piece[half:]]
        self._lasts[at : at + 1] = [piece[half - 1], piece[-1]]
