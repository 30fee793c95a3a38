"""A pooler as small as one can be: in transaction mode every transaction of every client gets some backend.

Backends are handed out last in, first out, as the common poolers do; `rotate` hands them out in turn, as others do. In
session mode a client keeps its backend, which is fine.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from tests.support.pg_proxy import PgProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LENGTH: Final = struct.Struct(">I")
_ENDS: Final = b"QS"  # Query and Sync: the client waits for ReadyForQuery after these

Backend = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PgPooler(PgProxy):
    def __init__(self, dsn: str, *, by_transaction: bool = True, rotate: bool = False) -> None:
        super().__init__(dsn)
        self._by_transaction = by_transaction
        self._rotate = rotate
        self._free: deque[Backend] = deque()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._pass_on(await self._start(reader, writer), reader, writer)
        writer.transport.abort()

    async def _pass_on(
        self, backend: Backend | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer: asyncio.Task[bytes] | None = None
        try:
            while True:
                kind = await reader.readexactly(1)
                if backend is None:
                    backend = self._free.popleft() if self._rotate else self._free.pop()
                answer = answer or asyncio.create_task(_until_ready(backend[0], writer))
                size = await reader.readexactly(4)
                backend[1].write(kind + size + await reader.readexactly(_LENGTH.unpack(size)[0] - 4))
                if kind in _ENDS:
                    idle = await answer == b"I"
                    answer = None
                    if idle and self._by_transaction:
                        self._free.append(backend)
                        backend = None
        finally:
            if answer is not None:
                answer.cancel()

    async def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Backend | None:
        """Every client's start makes one more backend; its first answers are passed on."""
        backend = await self.upstream()
        self._writers.add(backend[1])
        size = await reader.readexactly(4)
        backend[1].write(size + await reader.readexactly(_LENGTH.unpack(size)[0] - 4))
        await _until_ready(backend[0], writer)
        if not self._by_transaction:
            return backend
        self._free.append(backend)
        return None


async def _until_ready(server: asyncio.StreamReader, client: asyncio.StreamWriter) -> bytes:
    while True:
        kind = await server.readexactly(1)
        size = await server.readexactly(4)
        body = await server.readexactly(_LENGTH.unpack(size)[0] - 4)
        client.write(kind + size + body)
        if kind == b"Z":
            return body


@asynccontextmanager
async def pg_pooler(dsn: str, *, by_transaction: bool, rotate: bool = False) -> AsyncIterator[PgPooler]:
    pooler = PgPooler(dsn, by_transaction=by_transaction, rotate=rotate)
    await pooler.start()
    try:
        yield pooler
    finally:
        await pooler.refuse()
