"""Large results in memory: for tests and the Harness."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from runtime.errors import ObjectNotFound
from runtime.ports import ObjectEntry

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

_PIECE_BYTES: Final = 1 << 20


class MemoryObjects:
    """Implements runtime.ports.Objects. `now` returns an aware datetime."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._bodies: dict[str, tuple[bytes, datetime]] = {}

    async def put(self, key: str, body: bytes) -> None:
        self._bodies[key] = body, self._now()

    @asynccontextmanager
    async def read(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        if key not in self._bodies:
            raise ObjectNotFound(key)
        yield _pieces(self._bodies[key][0][start:end])

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._bodies.pop(key, None)

    async def list(self, after: str, limit: int) -> builtins.list[ObjectEntry]:
        now = self._now()
        keys = sorted(key for key in self._bodies if key > after)[:limit]
        found = ((key, *self._bodies[key]) for key in keys)
        return [ObjectEntry(key, len(body), (now - at).total_seconds()) for key, body, at in found]

    async def tidy(self, older_than_s: float) -> int:
        return 0  # a put is whole at once


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for place in range(0, len(body), _PIECE_BYTES):
        yield body[place : place + _PIECE_BYTES]
