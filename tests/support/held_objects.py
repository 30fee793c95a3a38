"""Objects in memory that a test holds back, lets fail, and counts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runtime.errors import ObjectNotFound, Unavailable
from runtime.ports import ObjectEntry

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Sequence

_PIECE = 1 << 16


class HeldObjects:
    """Implements runtime.ports.Objects. `open` is cleared to hold puts back; `away` says why all is refused."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.ages_s: dict[str, float] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()  # set by each put
        self.away = ""
        self.puts = 0
        self.most_at_once = 0
        self._at_once = 0
        self.breaks_after: int | None = None  # reading: as many bytes, then it is away

    async def put(self, key: str, body: bytes) -> None:
        self.puts += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.asked.set()
        try:
            await self.open.wait()
            self._demand()
            self.bodies[key] = body
        finally:
            self._at_once -= 1

    @asynccontextmanager
    async def read(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self._demand()
        if key not in self.bodies:
            raise ObjectNotFound(key)
        yield self._pieces(self.bodies[key][start:end])

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        for place in range(0, len(body), _PIECE):
            if self.breaks_after is not None and place >= self.breaks_after:
                self.breaks_after = None
                raise Unavailable("broke off")
            yield body[place : place + _PIECE]

    async def delete(self, keys: Sequence[str]) -> None:
        self._demand()
        for key in keys:
            self.bodies.pop(key, None)

    async def list(self, after: str, limit: int) -> builtins.list[ObjectEntry]:
        self._demand()
        keys = sorted(key for key in self.bodies if key > after)[:limit]
        return [ObjectEntry(key, len(self.bodies[key]), self.ages_s.get(key, 0.0)) for key in keys]

    async def tidy(self, older_than_s: float) -> int:
        self._demand()
        return 0

    def _demand(self) -> None:
        if self.away:
            raise Unavailable(self.away)
