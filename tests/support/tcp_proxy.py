"""Between a client and a server that speak anything over TCP: loses what one of them says, and breaks connections."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK: Final = 1 << 16


class TcpProxy:
    """`lose_requests`: the server hears nothing more. `lose_answers`: it does, and the client hears nothing more.
    `delay_answers_s`: so long is each of the server's answers on its way."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self.lose_requests = False
        self.lose_answers = False
        self.delay_answers_s = 0.0
        self.port = 0

    def break_all(self) -> None:
        """Throw out whoever is connected."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            both = {writer, server_writer}
            self._writers |= both
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass_on(reader, server_writer, answers=False))
                    group.create_task(self._pass_on(server_reader, writer, answers=True))
            except* OSError:
                pass
            finally:
                self._writers -= both
                for each in both:
                    each.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await reader.read(_CHUNK):
            if answers and self.delay_answers_s:
                await asyncio.sleep(self.delay_answers_s)
            if not (self.lose_answers if answers else self.lose_requests):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def tcp_proxy(port: int, host: str = "127.0.0.1") -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.break_all()
