"""Real PostgreSQL for the tests: one server per pytest session and version, in a temporary folder, ended with the session however
that ends. Tests get databases of their own, cloned from a template that was migrated once.
`NORIA_TEST_POSTGRES_DSN` names a server to use instead of an own one of the embedded version.

The servers run with fsync off: that can only be noticed when the operating system crashes. Everything that a
killed server or client could notice (synchronous_commit, WAL, locks) is as in production.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from runtime.adapters.embedded import Binaries, EmbeddedPostgres
from runtime.adapters.embedded.orphans import server_processes
from tests.support import packages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

PG15_BIN: Final = Path("/usr/lib/postgresql/15/bin")
DSN_VARIABLE: Final = "NORIA_TEST_POSTGRES_DSN"
FAST: Final = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
_PREFIX: Final = "noria-test-pg-"
_STALE_S: Final = 3600


T = TypeVar("T")


class PostgresServer:
    """A running server in which tests make and drop databases.

    Its calls block: fixtures use it while no event loop runs, each through the same private loop.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # leaves the thread's loop alone
        self._admin: asyncpg.Connection[Any] | None = None
        self._names = (f"noria_test_{os.getpid()}_{n}" for n in count(1))
        self._template: str | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def dsn_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{quote(database)}"))

    @property
    def version(self) -> int:
        """Major version of the server."""
        return int(self._sql(lambda c: c.fetchval("SHOW server_version_num"))) // 10_000

    def create_empty(self) -> str:
        """Name of a new database without any of our schema."""
        return self._create("template0")

    def create_migrated(self) -> str:
        """Name of a new database with all migrations applied, cloned from a template made once."""
        if self._template is None:
            self._template = self.create_empty()
            from runtime.adapters.postgres.migrate import (
                migrate,  # only for those who need it, and no loop runs
            )

            self.run(migrate(self.dsn_of(self._template)))
        return self._create(self._template)

    def drop(self, name: str) -> None:
        """Drop it and throw out whoever is still connected."""
        self._sql(lambda c: c.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """DSN of a database that lives for this block."""
        name = self.create_migrated() if migrated else self.create_empty()
        try:
            yield self.dsn_of(name)
        finally:
            self.drop(name)

    def close(self) -> None:
        with suppress(
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError
        ):  # the server may be gone: all well
            if self._template is not None:
                self.drop(self._template)
            if self._admin is not None:
                self.run(self._admin.close(timeout=5))
        self._runner.close()

    def _create(self, template: str) -> str:
        name = next(self._names)
        self._sql(lambda c: c.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return name

    def _sql(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
        async def once() -> T:
            if self._admin is None or self._admin.is_closed():
                self._admin = await asyncpg.connect(self.dsn)
            return await work(self._admin)

        return self.run(once())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def embedded_server(binaries: Binaries | None = None) -> Iterator[PostgresServer]:
    """An own server in a temporary folder; `binaries` defaults to those that `noria dev` uses."""
    _remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    postgres = EmbeddedPostgres(folder / "data", binaries=binaries, settings=FAST)
    try:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            dsn = runner.run(postgres.start())
            try:
                with PostgresServer(dsn) as server:
                    yield server
            finally:
                runner.run(postgres.stop(signal.SIGQUIT))  # the data is thrown away
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind() -> None:
    """Delete folders of sessions that were killed: their servers ended with them, their files could not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_S and not server_processes(
                folder / "data/postgres"
            ):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def main_server() -> Iterator[PostgresServer]:
    """The server named by NORIA_TEST_POSTGRES_DSN, else an own one of the embedded version."""
    if dsn := os.environ.get(DSN_VARIABLE):
        with PostgresServer(dsn) as server:
            yield server
    else:
        with embedded_server() as server:
            yield server


def postgresql_15() -> Binaries:
    """The oldest PostgreSQL that is supported; installed from Debian where that is possible.

    Raises ServiceMissingError.
    """
    if not (PG15_BIN / "postgres").is_file():
        no_cluster = Path("/etc/postgresql-common/createcluster.conf")  # or the package would make one
        if os.geteuid() == 0 and not no_cluster.exists():
            no_cluster.parent.mkdir(parents=True, exist_ok=True)
            no_cluster.write_text("create_main_cluster = false\n", encoding="ascii")
        packages.install(f"PostgreSQL 15 in {PG15_BIN}", "postgresql-15")
    return Binaries.of(PG15_BIN)
