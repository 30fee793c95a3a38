"""Connections to PostgreSQL: dedicated ones per duty, so that no duty waits for another.

Every statement has a time limit; a connection that does not answer within it is terminated (closing one to a frozen
server may hang) and opened anew for the next statement. Direct connections or session pooling: prepared statements and
session settings must stick, so transaction pooling is detected and refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

from runtime.adapters.postgres.translate import translated
from runtime.errors import Overloaded, SettingsError, Unavailable

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # generic in its stubs only

ANSWER_S: Final = 2.0  # a frozen server is away after this
SLOW_S: Final = 120.0  # bulk operations of operators
_CONNECT_S: Final = 2.0
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MAX_S: Final = 1.0
_WAITING_MAX: Final = 1_000
_VERSION_MIN: Final = 15

_SESSION: Final[Mapping[str, str]] = {"jit": "off", "timezone": "UTC", "client_min_messages": "warning"}
# Batches find their rows by primary key, always. With stale statistics the planner believes otherwise, and is 150 times
# slower; so on these connections it has no choice.
_BY_KEY: Final[Mapping[str, str]] = {
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}


class Line:
    """Up to `size` connections for one duty, opened when needed, handed out in turn."""

    def __init__(self, dsn: str, name: str, size: int, settings: Mapping[str, str], answer_s: float) -> None:
        self._dsn = dsn
        self._name = name
        self._settings = settings
        self._answer_s = answer_s
        self._free: deque[Connection | None] = deque([None] * size)
        self._queue: deque[asyncio.Future[Connection | None]] = deque()
        self._failures = 0
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Raises Unavailable, Overloaded. After any failure of ours or its own the connection is replaced."""
        held = await self._take()
        try:
            connection = await self._opened(held)
        except BaseException:
            self._give(None)
            raise
        healthy = False
        try:
            with translated():
                yield connection
            healthy = True
        except Unavailable:
            raise
        except Exception:
            healthy = not connection.is_closed() and not connection.is_in_transaction()
            raise
        finally:
            if healthy and not connection.is_closed() and not self._closed:
                self._give(connection)
            else:
                connection.terminate()
                self._give(None)

    def close(self) -> None:
        self._closed = True
        for connection in self._free:
            if connection is not None:
                connection.terminate()

    async def _take(self) -> Connection | None:
        if self._free:
            return self._free.popleft()
        if len(self._queue) >= _WAITING_MAX:
            raise Overloaded(f"PostgreSQL ({self._name}): {_WAITING_MAX} statements wait already")
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            with translated():
                async with asyncio.timeout(self._answer_s):
                    return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._give(turn.result())  # our turn came while we gave up: pass it on
            raise

    def _give(self, connection: Connection | None) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._free.append(connection)

    async def _opened(self, held: Connection | None) -> Connection:
        if held is not None and not held.is_closed():
            return held
        if self._failures:
            backoff_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2**self._failures)
            await asyncio.sleep(backoff_s * random.random())  # noqa: S311 - jitter
        try:
            connection = await connect(self._dsn, self._name, self._settings, self._answer_s)
        except Unavailable:
            self._failures = min(self._failures + 1, 10)
            raise
        self._failures = 0
        return connection


class Connections:
    """One Line per duty."""

    def __init__(self, dsn: str) -> None:
        self.accept = Line(dsn, "accept", 2, _BY_KEY, ANSWER_S)
        self.claim = Line(dsn, "claim", 2, _BY_KEY, ANSWER_S)
        self.settle = Line(dsn, "settle", 2, _BY_KEY, ANSWER_S)
        self.read = Line(dsn, "read", 4, {}, ANSWER_S)
        self.slow = Line(dsn, "slow", 1, {}, SLOW_S)
        self._all = (self.accept, self.claim, self.settle, self.read, self.slow)

    async def check(self) -> None:
        """Raises SettingsError where the server is too old or transactions are pooled, Unavailable."""
        async with self.read.connection() as one, self.slow.connection() as other:
            version = one.get_server_version().major
            if version < _VERSION_MIN:
                raise SettingsError(f"PostgreSQL {version} is too old; {_VERSION_MIN} or newer is needed")
            first = await one.fetchval("SELECT pg_backend_pid()")
            if first == await other.fetchval("SELECT pg_backend_pid()"):
                raise SettingsError(
                    "two connections share one PostgreSQL session: POSTGRES_DSN leads to a pooler in transaction mode. "
                    "Connect directly, or set the pooler to session mode"
                )

    def close(self) -> None:
        for line in self._all:
            line.close()


async def connect(dsn: str, name: str, settings: Mapping[str, str], answer_s: float) -> Connection:
    """A connection whose session settings are made. Raises Unavailable, SettingsError."""
    try:
        with translated():
            connection: Connection = await asyncpg.connect(
                dsn,
                timeout=_CONNECT_S,
                command_timeout=answer_s,
                server_settings={"application_name": f"noria {name}"},
            )
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as wrong:
        raise SettingsError(f"POSTGRES_DSN: {wrong}") from wrong
    try:
        with translated():
            # set_config keeps values out of the statement's text, and works through a session pooler
            await connection.execute(
                "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)",
                *map(list, zip(*{**_SESSION, **settings}.items(), strict=True)),
            )
    except BaseException:
        connection.terminate()
        raise
    return connection
