"""Transactions that handlers write in, and that commit together with the outcome of their attempt.

Law: the last thing such a transaction does is what every settlement does: it takes the fence, and only where the attempt
still runs here the rest follows. So what the handler wrote is there exactly when its outcome is. The connections are of
a bounded pool that nothing else uses; whoever waits for one waits within the handler's own time.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from runtime.adapters.postgres.connections import ANSWER_S, BY_KEY, Session
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.settling import children_of, columns_of, fence, store_children
from runtime.adapters.postgres.translate import ContentRefused, translated
from runtime.core.task import Settlement, Verdict
from runtime.errors import TransactionRefused, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

_CONNECT_S: Final = 2.0
_CLOSE_S: Final = 1.0
_ROLLBACK_S: Final = 1.0
# The handler's own statements end with its attempt: a stopped body cancels them. Between them it may do other things.
_SESSION: Final[Mapping[str, str]] = {
    "default_transaction_isolation": "read committed",  # the fence sees what was committed before it
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",  # of a node that stands still
}
_LAST: Final[Mapping[str, str]] = {  # whatever the handler has set
    **BY_KEY,
    "statement_timeout": "15s",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "5s",
}
_AWAY: Final = frozenset(
    {"", "08", "53", "57", "58", "XX"}
)  # SQLSTATE classes that tell nothing of what was written


class PostgresTransactions:
    """Implements runtime.ports.Transactions. Belongs to the event loop it was opened in."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, most: int) -> AsyncIterator[PostgresTransactions]:
        """At most so many at a time; connections are made when they are needed."""
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=most,
            timeout=_CONNECT_S,
            setup=_set_up,
            server_settings={"application_name": "noria handlers"},
        )
        try:
            yield cls(pool)
        finally:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    async def begin(self) -> PostgresTransaction:
        """Raises Unavailable."""
        with translated():
            connection = await self._pool.acquire()
            try:
                transaction = connection.transaction()
                await transaction.start()
            except BaseException:
                _terminate(connection)
                await _release(self._pool, connection)
                raise
        return PostgresTransaction(self._pool, connection, transaction)


class PostgresTransaction:
    """Implements runtime.ports.Transaction."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], connection: Any, transaction: Any) -> None:
        self._pool = pool
        self._transaction = transaction
        self._open = True
        self.connection = connection

    async def commit(self, settlement: Settlement) -> Verdict:
        """Raises TransactionRefused: nothing is there; Unavailable: all of it may be there, or nothing."""
        committed = False
        try:
            async with asyncio.timeout(ANSWER_S + len(children_of(settlement)) / 5_000):
                verdict = await self._commit(settlement)
            committed = verdict.committed
        except TimeoutError as error:
            raise Unavailable("PostgreSQL did not answer in time") from error
        except OSError as error:
            raise Unavailable(f"PostgreSQL: {error}") from error
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise Unavailable(f"PostgreSQL: {error}") from error
        except asyncpg.PostgresError as error:
            if (getattr(error, "sqlstate", None) or "")[:2] in _AWAY:
                raise Unavailable(f"PostgreSQL: {error}") from error
            raise TransactionRefused(str(error)) from error
        finally:
            await self._give_back(committed=committed)
        return verdict

    async def _commit(self, settlement: Settlement) -> Verdict:
        if not self.connection.is_in_transaction():
            raise TransactionRefused(
                "the handler ended the transaction of ctx.transaction() by itself; what it wrote may be there already"
            )
        session = Session(self.connection, "handlers")
        await session.fetch(SQL.set_up_last, list(_LAST), list(_LAST.values()))
        fenced = await fence(session, columns_of([settlement]))
        if not fenced.places:
            return Verdict.FENCED
        try:
            with translated():
                await store_children(session, [children_of(settlement)])
        except ContentRefused:
            return Verdict.REFUSED
        await self._transaction.commit()
        return Verdict.AWAITED if fenced.awaited else Verdict.COMMITTED

    async def roll_back(self) -> None:
        await self._give_back(committed=False)

    async def _give_back(self, *, committed: bool) -> None:
        """A connection whose end is not certain is thrown away, and with it what it did."""
        if not self._open:
            return
        self._open = False
        try:
            if not committed:
                async with asyncio.timeout(_ROLLBACK_S):
                    await self._transaction.rollback()
        except BaseException as error:
            _terminate(self.connection)
            if not isinstance(error, Exception):
                raise
        finally:
            await _release(self._pool, self.connection)


def _terminate(connection: Any) -> None:
    with suppress(asyncpg.InterfaceError):  # it was lost, and has left the pool by itself
        connection.terminate()


async def _release(pool: asyncpg.Pool[asyncpg.Record], connection: Any) -> None:
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        await pool.release(connection, timeout=_ROLLBACK_S)


async def _set_up(connection: Any) -> None:
    await connection.fetch(SQL.set_up.sql, *_columns(_SESSION.items()))
    await connection.fetch(SQL.durability.sql)


def _columns(pairs: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    names, values = zip(*pairs, strict=True)
    return list(names), list(values)
