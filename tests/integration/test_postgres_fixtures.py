"""The PostgreSQL fixtures give every test a database of its own on a server of the right version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from tests.support.services import PostgresServer


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
