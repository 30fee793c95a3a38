"""The PostgreSQL fixtures give every test a database of its own on a server of the right version."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from tests.support.processes import ROOT, spawned

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.services import PostgresServer

# A test that shows its database and then waits to be interrupted.
SESSION: Final = """
import threading
def test_it(pg_dsn):
    print("dsn", pg_dsn, flush=True)
    threading.Event().wait()
"""


async def _tables(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'noria'"))
    finally:
        await connection.close()


def test_servers_are_of_the_versions_they_promise(
    pg_server: PostgresServer, pg15_server: PostgresServer
) -> None:
    assert pg_server.version >= 15
    assert pg15_server.version == 15


async def test_a_database_is_migrated(pg_each_dsn: str) -> None:
    assert await _tables(pg_each_dsn) > 5


async def test_an_empty_database_is_empty(pg_dsn_empty: str, pg15_dsn_empty: str) -> None:
    assert await _tables(pg_dsn_empty) == 0
    assert await _tables(pg15_dsn_empty) == 0


def test_what_one_database_holds_no_other_sees_and_no_later_one(pg_server: PostgresServer) -> None:
    async def leave(dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE left_behind ()")
        connection.terminate()

    async def left(dsn: str) -> bool:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval("SELECT to_regclass('left_behind')") is not None
        finally:
            await connection.close()

    with pg_server.database(migrated=True) as first, pg_server.database(migrated=True) as second:
        pg_server.run(leave(first))
        assert pg_server.run(left(first))
        assert not pg_server.run(left(second))
    with pg_server.database(migrated=True) as third:
        assert not pg_server.run(left(third))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_session_that_is_interrupted_leaves_no_server(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "test_waits.py").write_text(SESSION)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pg_dsn, pg_server\n")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-s",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with spawned(*command, env=environment, cwd=tmp_path) as session:
        session.wait_line(r"dsn postgresql://")
        assert "postgres" in {p.name for p in session.survivors()}
        session.signal(number)
        session.wait_exit()
        session.wait_no_survivors()
        left = [p.name for p in tmp_path.glob("noria-test-pg-*")]
        assert left == [] or number != signal.SIGINT
