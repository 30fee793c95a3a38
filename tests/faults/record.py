"""A PostgreSQL of the fault tests' own, as durable as in production: it may be killed, restarted and frozen.

All calls block. What it asks on its own behalf never waits for a standby, so it goes on where commits are held.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import asyncpg

from runtime.adapters.embedded import EmbeddedPostgres
from runtime.adapters.embedded.orphans import server_processes
from runtime.adapters.postgres.migrate import migrate
from tests.support.processes import wait_until

SMALL: Final = {"shared_buffers": "32MB", "max_connections": "80", "max_worker_processes": "2"}
_SQL_S: Final = 10.0


class Record:
    def __init__(self, folder: Path) -> None:
        self._postgres = EmbeddedPostgres(folder / "data", settings=SMALL)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._numbers = count(1)
        self._frozen: list[int] = []
        self._asking: dict[str, asyncpg.Connection[Any]] = {}

    # -- databases -----------------------------------------------------------------------------------

    def new_database(self) -> str:
        """Its name; it has our tables. No two databases share an incarnation, for queues are named by it."""
        number = next(self._numbers)
        name = f"faults_{number}"
        self.sql("postgres", f"CREATE DATABASE {name} STRATEGY wal_log")
        self._runner.run(migrate(self.dsn(name)))
        self.sql(name, "SELECT setval('noria.incarnation_seq', $1)", number * 1000)
        return name

    def dsn(self, database: str) -> str:
        return self._postgres.dsn_of(database)

    def sql(self, database: str, query: str, *values: Any) -> list[Any]:
        """Rows. Through one kept connection per database, dialled anew when it was lost."""
        try:
            return self._runner.run(self._sql(database, query, values))
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError):
            return self._runner.run(self._sql(database, query, values))

    async def _sql(self, database: str, query: str, values: tuple[Any, ...]) -> list[Any]:
        kept = self._asking.get(database)
        if kept is None or kept.is_closed():
            kept = self._asking[database] = await self._connect(database)
        return await kept.fetch(query, *values, timeout=_SQL_S)

    async def _connect(self, database: str) -> asyncpg.Connection[Any]:
        connection = await asyncpg.connect(self.dsn(database), timeout=_SQL_S)
        await connection.execute("SET application_name = 'test'; SET synchronous_commit = local")
        return connection

    # -- life and death ------------------------------------------------------------------------------

    def start(self) -> None:
        self._runner.run(self._postgres.start())

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast shutdown; SIGQUIT: immediate, crash recovery follows at the next start."""
        for connection in self._asking.values():
            connection.terminate()
        self._asking.clear()
        self._runner.run(self._postgres.stop(number))

    def heal(self) -> None:
        """Whatever a failed test left behind: it runs, and holds nobody."""
        self.thaw()
        self.start()
        self._standby("")

    def close(self) -> None:
        self.thaw()
        self.stop(signal.SIGQUIT)
        self._runner.close()

    def freeze(self) -> None:
        """SIGSTOP for the whole server, its father first so that no child comes after."""
        leader = self._postgres.pid
        assert leader is not None, "the server does not run"
        os.kill(leader, signal.SIGSTOP)
        self._frozen = [leader]
        for pid in server_processes(self._postgres.folder.cluster):
            if pid != leader:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    self._frozen.append(pid)

    def thaw(self) -> None:
        for pid in reversed(self._frozen):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    # -- points in time ------------------------------------------------------------------------------

    @contextmanager
    def locked(self, database: str, *tables: str) -> Iterator[None]:
        """Nobody writes to these tables: who tries to is held before its commit, and its changes are not seen."""

        async def lock() -> asyncpg.Connection[Any]:
            connection = await self._connect(database)
            await connection.execute(f"BEGIN; LOCK TABLE {', '.join(tables)} IN SHARE MODE")
            return connection

        connection = self._runner.run(lock())
        try:
            yield
        finally:
            connection.terminate()

    @contextmanager
    def lapsed(self, database: str, incarnation: int) -> Iterator[None]:
        """This incarnation's lease has run out, and cannot be renewed until the block ends."""

        async def lapse() -> asyncpg.Connection[Any]:
            connection = await self._connect(database)
            past = "UPDATE noria.lease SET alive_until = clock_timestamp() - interval '1 s' WHERE incarnation = $1"
            look = "SELECT alive_until < clock_timestamp() FROM noria.lease WHERE incarnation = $1 FOR UPDATE"
            while True:
                await connection.execute(past, incarnation)
                await connection.execute("BEGIN")
                if await connection.fetchval(look, incarnation):
                    return connection
                await connection.execute("ROLLBACK")  # it was renewed between the two

        connection = self._runner.run(lapse())
        try:
            yield
        finally:
            connection.terminate()

    @contextmanager
    def unanswered(self) -> Iterator[None]:
        """Commits are durable but not answered: they wait for a standby that does not exist."""
        self._standby("nobody")
        try:
            yield
        finally:
            self._standby("")

    def _standby(self, names: str) -> None:
        self.sql("postgres", f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.sql("postgres", "SELECT pg_reload_conf()")
        # the checkpointer is the one that tells all others
        ask = "SELECT current_setting('synchronous_standby_names') AS names"
        wait_until(
            lambda: self.sql("postgres", ask)[0]["names"] == names, 5, lambda: "the setting did not change"
        )

    def wait_held(self, database: str, duty: str, wait_event: str, timeout_s: float = 10) -> int:
        """Until a connection of this duty ('accept', 'claim', 'settle') waits there; its backend's pid.

        `wait_event` as in pg_stat_activity: 'SyncRep' (committed, unanswered) or 'relation' (a table's lock).
        """
        held: list[Any] = []
        ask = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name = $2 AND wait_event = $3"

        def look() -> bool:
            held[:] = self.sql("postgres", ask, database, f"noria {duty}", wait_event)
            return bool(held)

        wait_until(look, timeout_s, lambda: f"no {duty} waits for {wait_event}")
        return int(held[0]["pid"])

    def end(self, pid: int) -> None:
        """Throw out one client."""
        self.sql("postgres", "SELECT pg_terminate_backend($1, 5000)", pid)

    def end_backends(self, database: str) -> None:
        """Throw out all clients of a database but the test's own, and wait until they are gone."""
        ask = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'noria%'"
        self.sql("postgres", ask, database)
