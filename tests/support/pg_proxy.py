"""Between a store and PostgreSQL: breaks connections at chosen places, falls silent, refuses, or pools transactions."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

from runtime.adapters.postgres.connections import Session
from runtime.adapters.postgres.queries import Query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

Cut = Literal["before", "after"]
_READY: Final = b"Z\x00\x00\x00\x05"  # ReadyForQuery: the server has done all it was asked for
_CHUNK: Final = 1 << 16


class PgProxy:
    """`cut_next`: what happens to the next thing a client says: it is lost before the server hears it, or the server
    does it and the answer is lost. `silent` set: nothing passes any more, in either direction."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self._server: asyncio.Server | None = None
        self._port = 0
        self.cut_next: Cut | None = None
        self.cuts = 0
        self._talking = asyncio.Event()
        self._talking.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def dsn(self) -> str:
        user = self._target.username or "postgres"
        query = "sslmode=disable"  # else asyncpg looks for certificate files, which blocks
        return urlunsplit(self._target._replace(netloc=f"{user}@127.0.0.1:{self._port}", query=query))

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Nobody listens any more, and who was connected is thrown out."""
        assert self._server is not None
        self._server.close()
        self.break_all()

    def break_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def fall_silent(self) -> None:
        self._talking.clear()

    def talk_again(self) -> None:
        self._talking.set()

    async def upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        hosts = parse_qs(self._target.query).get("host")
        if hosts and hosts[0].startswith("/"):
            return await asyncio.open_unix_connection(f"{hosts[0]}/.s.PGSQL.{self._target.port or 5432}")
        return await asyncio.open_connection(self._target.hostname or "127.0.0.1", self._target.port or 5432)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            server_reader, server_writer = await self.upstream()
            pair = _Pair(writer, server_writer)
            self._writers |= {writer, server_writer}
            try:
                await asyncio.gather(self._ask(reader, pair), self._answer(server_reader, pair))
            finally:
                self._writers -= {writer, server_writer}
                pair.abort()

    async def _ask(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        while data := await reader.read(_CHUNK):
            await self._talking.wait()
            cut, self.cut_next = self.cut_next, None
            if cut is not None:
                self.cuts += 1
            if cut == "before":
                pair.abort()
                return
            pair.swallow = pair.swallow or cut == "after"
            pair.server.write(data)
            await pair.server.drain()
        pair.abort()

    async def _answer(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        while data := await reader.read(_CHUNK):
            await self._talking.wait()
            if not pair.swallow:
                pair.client.write(data)
                await pair.client.drain()
            elif data[-6:-1] == _READY:
                break
        pair.abort()


class _Pair:
    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.swallow = False

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


@asynccontextmanager
async def pg_proxy(dsn: str) -> AsyncIterator[PgProxy]:
    proxy = PgProxy(dsn)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.talk_again()
        await proxy.refuse()


class CutSession(Session):
    """Cuts its connection at one statement, once. Make a subclass per store."""

    proxy: ClassVar[PgProxy]
    plan: ClassVar[dict[str, Cut]]  # by the statement's name; taken out when used

    @classmethod
    def at(cls, proxy: PgProxy) -> type[CutSession]:
        return type("Cut", (cls,), {"proxy": proxy, "plan": {}})

    async def fetch(self, query: Query, *values: Any) -> list[asyncpg.Record]:
        self._arm(query)
        return await super().fetch(query, *values)

    async def run(self, query: Query) -> None:
        self._arm(query)
        await super().run(query)

    def _arm(self, query: Query) -> None:
        self.proxy.cut_next = self.plan.pop(query.name, None)
