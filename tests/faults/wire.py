"""The way from one node to a server, to be cut while the server and all others go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit, urlunsplit

T = TypeVar("T")

_CHUNK: Final = 1 << 16
_WAIT_S: Final = 10.0


class Wire:
    """Passes on what both sides say, in a thread of its own. While it is cut, nothing passes and nobody is told, as
    where a cable is pulled; connections from before do not come back with it."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()
        self._server = self._do(self._start())
        self._port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """The target's, through here."""
        user = f"{self._target.netloc.rpartition('@')[0] or 'postgres'}@"
        query = "sslmode=disable" if self._target.scheme.startswith("postgres") else self._target.query
        return urlunsplit(self._target._replace(netloc=f"{user}127.0.0.1:{self._port}", query=query))

    def cut(self) -> None:
        self._is_cut = True

    def mend(self) -> None:
        self._is_cut = False
        self._do(self._break_all())

    def close(self) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_S)
        self._loop.close()

    # -- in the thread -------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        await self._break_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _break_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        folder = parse_qs(self._target.query).get("host")
        if folder:
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{self._target.port or 5432}")
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = {writer}
        self._writers |= ours
        try:
            if self._is_cut:
                await reader.read()  # until one side gives up
                return
            there_reader, there = await self._connect()
            ours.add(there)
            self._writers |= ours
            await asyncio.gather(self._pass_on(reader, there), self._pass_on(there_reader, writer))
        except OSError:
            pass
        finally:
            self._writers -= ours
            for each in ours:
                each.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if not self._is_cut:
                    writer.write(data)
                    await writer.drain()
        if not self._is_cut:
            writer.transport.abort()
