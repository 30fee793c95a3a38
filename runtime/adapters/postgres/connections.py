"""Connections to PostgreSQL: dedicated ones per duty, so that no duty waits for another.

Law: whoever asks is answered within the line's time or gets Unavailable. A connection that does not answer
is terminated, never closed (closing one to a frozen server may hang); lost ones are dialled anew in the
background with jittered back-off, and while PostgreSQL is known to be away, asking fails at once. Direct
connections or session pooling only: prepared statements and session settings must stick, so transaction
pooling is detected and refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from runtime.adapters.postgres.queries import SQL, Query
from runtime.adapters.postgres.translate import POOLED, repeated, translated
from runtime.errors import NoriaError, Overloaded, SettingsError, Unavailable

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # generic in its stubs only

ANSWER_S: Final = 1.8  # a frozen server is away after this: callers promise 2 s
SWEEP_S: Final = 10.0  # counting and repair, which nobody waits for
_CONNECT_S: Final = 2.0
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MAX_S: Final = 1.0
_CLOSE_S: Final = 1.0
_WAITING_MAX: Final = 1_000
_STATEMENTS_KEPT: Final = 200
_STATEMENT_BYTES_MAX: Final = 64 * 1024
VERSION_MIN: Final = 15

_SESSION: Final[Mapping[str, str]] = {
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "client_min_messages": "warning",
    "default_transaction_isolation": "read committed",  # every statement sees what was committed before it
    "statement_timeout": "15s",  # above what we wait: the server must not go on for ever after we left
    # a node that is frozen between two statements must not keep its locks from those who repair what it ran
    "idle_in_transaction_session_timeout": "5s",
}
# Rows are found by key, always. With stale statistics the planner believes otherwise and is 150 times slower,
# so on these connections it has no choice. Plans are made once, for arrays of any length.
BY_KEY: Final[Mapping[str, str]] = {
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}


class Session:
    """A connection while somebody holds it."""

    def __init__(self, connection: Connection, duty: str) -> None:
        self.connection = connection
        self.duty = duty

    async def fetch(self, query: Query, *values: Any) -> list[asyncpg.Record]:
        return await self.connection.fetch(query.sql, *values)

    async def row(self, query: Query, *values: Any) -> asyncpg.Record | None:
        rows = await self.fetch(query, *values)
        return rows[0] if rows else None

    async def only(self, query: Query, *values: Any) -> asyncpg.Record:
        """The row of a statement that always has one."""
        return (await self.fetch(query, *values))[0]

    async def value(self, query: Query, *values: Any) -> Any:
        row = await self.row(query, *values)
        return None if row is None else row[0]

    async def run(self, query: Query) -> None:
        """Without parameters and rows: BEGIN, LOCK …"""
        await self.connection.execute(query.sql)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """COMMIT at the end, ROLLBACK on an error. When cancelled, the line drops the whole connection."""
        await self.run(SQL.begin)
        try:
            yield
        except Exception:
            await self._roll_back()
            raise
        await self.run(SQL.commit)

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[None]:
        """A transaction that is taken back whatever happens."""
        await self.run(SQL.begin)
        try:
            yield
        except Exception:
            await self._roll_back()
            raise
        await self.run(SQL.rollback)

    async def _roll_back(self) -> None:
        with suppress(
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError
        ):  # then the connection is lost anyway
            await self.run(SQL.rollback)

    @property
    def reusable(self) -> bool:
        return not self.connection.is_closed() and not self.connection.is_in_transaction()

    def reusable_after(self, error: BaseException) -> bool:
        """Not when cancelled in the middle, nor when the driver has lost its thread."""
        lost = isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)
        return isinstance(error, Exception) and not lost and self.reusable


class Line:
    """Up to `size` connections for one duty, dialled when needed, handed out in turn."""

    def __init__(
        self,
        dsn: str,
        duty: str,
        size: int,
        settings: Mapping[str, str],
        answer_s: float,
        session: type[Session] = Session,
    ) -> None:
        self._dsn = dsn
        self._duty = duty
        self._size = size
        self._settings = settings
        self._answer_s = answer_s
        self._session = session
        self._idle: deque[Session] = deque()
        self._busy: set[Session] = set()
        self._queue: deque[asyncio.Future[Session]] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._away: NoriaError | None = None  # why nobody could be reached last
        self._closed = False

    @asynccontextmanager
    async def session(self, rows: int = 0) -> AsyncIterator[Session]:
        """For at most the line's time, and a little more for many rows. Raises Unavailable, Overloaded."""
        with translated():
            async with asyncio.timeout(self.time_for(rows)) as limit:
                try:
                    session = await self._take()
                    try:
                        yield session
                    except BaseException as error:
                        self._give_back(session, keep=session.reusable_after(error))
                        raise
                    self._give_back(session, keep=session.reusable)
                except asyncio.CancelledError:
                    if limit.expired() and not self._busy:
                        self._went_away(Unavailable("PostgreSQL does not answer"))
                    raise

    async def fetch(self, query: Query, *values: Any, rows: int = 0) -> list[asyncpg.Record]:
        """One statement that may be repeated: it changes nothing, or the same again changes nothing more."""

        async def once() -> list[asyncpg.Record]:
            async with self.session(rows) as session:
                return await session.fetch(query, *values)

        return await repeated(once)

    @asynccontextmanager
    async def deadline(self, rows: int = 0) -> AsyncIterator[None]:
        """Bounds a call that takes several sessions. Raises Unavailable."""
        with translated():
            async with asyncio.timeout(self.time_for(rows)):
                yield

    def time_for(self, rows: int) -> float:
        return self._answer_s + rows / 5_000

    async def close(self) -> None:
        self._closed = True
        self._fail_waiting(Unavailable("the connections to PostgreSQL are closed"))
        for dial in self._dials:
            dial.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for session in self._busy:
            session.connection.terminate()
        await asyncio.gather(*map(_closed, self._idle))
        self._idle.clear()

    def dial_all(self) -> None:
        """So that the first who ask need not wait for it."""
        for _ in range(self._size):
            self._dial_if_needed()

    # -- taking turns --------------------------------------------------------------------------------

    async def _take(self) -> Session:
        while self._idle:
            session = self._idle.popleft()
            if session.reusable:
                self._busy.add(session)
                return session
        self._dial_if_needed()
        if self._away is not None and not self._busy:
            raise type(self._away)(*self._away.args)
        if len(self._queue) >= _WAITING_MAX:
            raise Overloaded(f"PostgreSQL ({self._duty}): {_WAITING_MAX} statements wait already")
        turn: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result(), keep=True)  # our turn came while we gave up: pass it on
            raise

    def _give_back(self, session: Session, *, keep: bool) -> None:
        self._busy.discard(session)
        if not keep or self._closed:
            session.connection.terminate()
            self._dial_if_needed()
            return
        self._hand_out(session)

    def _hand_out(self, session: Session) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                self._busy.add(session)
                turn.set_result(session)
                return
        self._idle.append(session)

    # -- dialling ------------------------------------------------------------------------------------

    def _dial_if_needed(self) -> None:
        """One more connection, unless all are there or on their way."""
        if not self._closed and len(self._idle) + len(self._busy) + len(self._dials) < self._size:
            dial = asyncio.create_task(self._dial(), name=f"noria-dial-{self._duty}")
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)

    async def _dial(self) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            try:
                connection = await connect(self._dsn, f"noria {self._duty}", self._settings)
            except NoriaError as error:
                self._went_away(error)
            except Exception as error:
                log.exception("PostgreSQL (%s): dialling failed", self._duty)
                self._went_away(Unavailable(f"PostgreSQL: {type(error).__name__}"))
            else:
                if self._away is not None:
                    log.info("PostgreSQL (%s) is back", self._duty)
                self._away = None
                self._hand_out(self._session(connection, self._duty))
                return
            await asyncio.sleep(backoff_s * (0.5 + random.random() / 2))  # noqa: S311 - jitter
            backoff_s = min(_BACKOFF_MAX_S, backoff_s * 2)

    def _went_away(self, error: NoriaError) -> None:
        if self._away is None:
            log.warning("PostgreSQL (%s): %s", self._duty, error)
        self._away = error
        if not self._busy:
            self._fail_waiting(error)

    def _fail_waiting(self, error: NoriaError) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(type(error)(*error.args))


class Connections:
    """One Line per duty."""

    def __init__(self, dsn: str, *, answer_s: float = ANSWER_S, session: type[Session] = Session) -> None:
        self.accept = Line(dsn, "accept", 2, BY_KEY, answer_s, session)
        self.unique = Line(dsn, "unique", 1, BY_KEY, answer_s, session)  # dialled by the first unique task
        self.claim = Line(dsn, "claim", 2, BY_KEY, answer_s, session)
        self.settle = Line(dsn, "settle", 2, BY_KEY, answer_s, session)
        self.read = Line(dsn, "read", 4, BY_KEY, answer_s, session)
        self.sweep = Line(dsn, "sweep", 2, {}, max(SWEEP_S, answer_s), session)
        self.forget = Line(dsn, "forget", 1, BY_KEY, max(SWEEP_S, answer_s), session)
        self._all = (self.accept, self.unique, self.claim, self.settle, self.read, self.sweep, self.forget)

    async def check(self, schema_min: int, schema_max: int) -> None:
        """Raises SettingsError: server too old, transactions pooled, schema too old or too new."""
        for line in (self.accept, self.claim, self.settle):
            line.dial_all()
        async with self.read.session() as one, self.sweep.session() as other:
            version = one.connection.get_server_version().major
            if version < VERSION_MIN:
                raise SettingsError(
                    f"POSTGRES_DSN: PostgreSQL {version} is too old; allowed: {VERSION_MIN} or newer"
                )
            await refuse_pooling(one, other)
            state = await one.only(SQL.schema_version)
        if state["version"] < schema_min:
            raise SettingsError(
                f"POSTGRES_DSN: the schema is at migration {state['version']}; this version works with "
                f"{schema_min} and later: run noria migrate"
            )
        if state["needs"] > schema_max:
            raise SettingsError(
                f"POSTGRES_DSN: the schema was migrated by a newer version and needs one that knows "
                f"migration {state['needs']}; this one knows {schema_max}: upgrade this node"
            )

    async def close(self) -> None:
        await asyncio.gather(*(line.close() for line in self._all))


async def refuse_pooling(one: Session, other: Session) -> None:
    """Raises SettingsError where two connections share a backend, or one of them changes its own."""
    first = await one.value(SQL.backend)
    async with other.trial():  # a pooler must keep this backend for `other` now, and give `one` the next
        second = await other.value(SQL.backend)
        again = await one.value(SQL.backend)
    if first != again or second == first:
        raise SettingsError(POOLED)


async def connect(dsn: str, application: str, settings: Mapping[str, str]) -> Connection:
    """A connection whose session settings are made. Raises Unavailable, SettingsError."""
    with translated():
        async with asyncio.timeout(_CONNECT_S):
            connection = await _opened(dsn, application)
            try:
                values = {**_SESSION, **settings}
                await connection.fetch(SQL.set_up.sql, list(values), list(values.values()))
                await connection.fetch(SQL.durability.sql)
            except BaseException:
                connection.terminate()
                raise
    return connection


async def _opened(dsn: str, application: str) -> Connection:
    try:
        connection: Connection = await asyncpg.connect(
            dsn,
            timeout=_CONNECT_S,
            statement_cache_size=_STATEMENTS_KEPT,
            max_cached_statement_lifetime=0,  # a statement prepared anew would be planned anew
            max_cacheable_statement_size=_STATEMENT_BYTES_MAX,
            server_settings={"application_name": application},
        )
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as wrong:
        raise SettingsError(f"POSTGRES_DSN: {wrong}") from wrong
    except (asyncpg.ClientConfigurationError, ValueError) as wrong:  # its text may hold the password
        raise SettingsError(
            "POSTGRES_DSN: not a usable URL; allowed: postgresql://USER@HOST:PORT/DATABASE"
        ) from wrong
    return connection


async def _closed(session: Session) -> None:
    """Say goodbye, but not for long."""
    with suppress(Exception):
        await session.connection.close(timeout=_CLOSE_S)


def unzipped(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Columns of rows; `width` empty ones where there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
