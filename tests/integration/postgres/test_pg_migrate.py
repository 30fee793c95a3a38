"""Migrations: once each, whole or not at all, whoever starts first, and never in the way of running nodes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore, migrate
from runtime.adapters.postgres.lease import open_lease
from runtime.adapters.postgres.migrate import NEWEST_SCHEMA, OLDEST_SCHEMA, Migration, apply, known
from runtime.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEXT = NEWEST_SCHEMA + 1
EXTRA = Migration(NEXT, "extra", "ALTER TABLE noria.task ADD COLUMN extra integer;")


@pytest.fixture
async def admin(pg_dsn_empty: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(pg_dsn_empty)
    yield connection
    await connection.close()


async def columns(admin: asyncpg.Connection[Any], table: str) -> set[str]:
    rows = await admin.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'noria' AND table_name = $1",
        table,
    )
    return {row["column_name"] for row in rows}


async def test_an_empty_database_gets_all_and_a_second_time_nothing(
    pg_dsn_empty: str, admin: asyncpg.Connection[Any]
) -> None:
    names = [migration.name for migration in known()]
    assert names[0] == "0001_initial"
    assert await migrate(pg_dsn_empty) == names
    assert await migrate(pg_dsn_empty) == []
    rows = await admin.fetch("SELECT version, name, sha256, applied_at FROM noria.migration ORDER BY version")
    assert [(row["version"], row["sha256"]) for row in rows] == [(m.version, m.sha256) for m in known()]
    async with PostgresStore.open(pg_dsn_empty) as store:
        assert await store.bands() == []


async def test_the_oldest_supported_server_takes_them_too(pg15_dsn_empty: str) -> None:
    assert await migrate(pg15_dsn_empty) == [migration.name for migration in known()]


async def test_many_nodes_that_start_at_once_apply_each_once(pg_dsn_empty: str) -> None:
    applied = await asyncio.gather(*(migrate(pg_dsn_empty) for _ in range(6)))
    assert sorted(name for names in applied for name in names) == [migration.name for migration in known()]


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(pg_dsn_empty: str) -> None:
    await migrate(pg_dsn_empty)
    [first, *rest] = known()
    changed = replace(first, sql=first.sql + "\n-- one more comment")
    with pytest.raises(SettingsError, match="0001_initial was applied to this database with other content"):
        await apply(pg_dsn_empty, (changed, *rest))


async def test_one_that_fails_leaves_nothing_of_itself(
    pg_dsn_empty: str, admin: asyncpg.Connection[Any]
) -> None:
    broken = Migration(NEXT, "broken", "ALTER TABLE noria.task ADD COLUMN half integer; SELECT 1 / 0;")
    with pytest.raises(Exception, match="PostgreSQL refuses it"):
        await apply(pg_dsn_empty, (*known(), broken))
    assert "half" not in await columns(admin, "task")
    assert "payload" in await columns(admin, "task")  # those before it stay
    assert await apply(pg_dsn_empty, (*known(), EXTRA)) == [EXTRA.name]
    assert "extra" in await columns(admin, "task")


async def test_a_lock_that_a_node_holds_is_not_queued_for(
    pg_dsn_empty: str, admin: asyncpg.Connection[Any]
) -> None:
    """A waiting ALTER TABLE makes everybody behind it wait: it has to give up, and come again."""
    await migrate(pg_dsn_empty)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("LOCK TABLE noria.task IN ACCESS SHARE MODE")
    migrating = asyncio.create_task(apply(pg_dsn_empty, (*known(), EXTRA)))
    other = await asyncpg.connect(pg_dsn_empty)
    while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        assert not migrating.done()
    while await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # it gives up
        assert not migrating.done()
    assert await other.fetchval("SELECT count(*) FROM noria.task") == 0  # nobody stands behind it
    await transaction.rollback()
    assert await migrating == [EXTRA.name]
    await other.close()


async def test_a_database_that_was_not_migrated_is_refused(pg_dsn_empty: str) -> None:
    with pytest.raises(SettingsError, match="run noria migrate"):
        async with PostgresStore.open(pg_dsn_empty):
            pass


async def test_a_newer_schema_is_fine_unless_it_says_that_it_is_not(pg_dsn_empty: str) -> None:
    await apply(pg_dsn_empty, (*known(), EXTRA))
    async with PostgresStore.open(pg_dsn_empty) as store:  # additive: nodes of the version before go on
        assert await store.bands() == []
    last = NEXT + 1
    breaking = Migration(last, "breaking", f"-- needs: {last}\nALTER TABLE noria.task DROP COLUMN extra;")
    assert breaking.needs == last
    await apply(pg_dsn_empty, (*known(), EXTRA, breaking))
    with pytest.raises(
        SettingsError, match=f"needs one that knows migration {last}; this one knows {NEWEST_SCHEMA}"
    ):
        async with PostgresStore.open(pg_dsn_empty):
            pass


async def test_a_schema_older_than_the_statements_is_refused(pg_dsn_empty: str) -> None:
    await apply(pg_dsn_empty, tuple(one for one in known() if one.version < OLDEST_SCHEMA))
    with pytest.raises(SettingsError, match=f"works with {OLDEST_SCHEMA} and later: run noria migrate"):
        async with PostgresStore.open(pg_dsn_empty):
            pass


async def test_a_cluster_is_migrated_while_members_of_the_version_before_renew(
    pg_dsn_empty: str, admin: asyncpg.Connection[Any]
) -> None:
    """What a running node does to its lease: joined before the migration, renewed after it."""
    [initial, *rest] = known()
    await apply(pg_dsn_empty, (initial,))
    async with open_lease(pg_dsn_empty) as lease:
        incarnation = await lease.join("old", 60, {})
        assert await apply(pg_dsn_empty, (initial, *rest)) == [migration.name for migration in rest]
        assert await lease.renew(incarnation, 60) == 60
    async with PostgresStore.open(pg_dsn_empty) as store:
        [old] = await store.nodes()
        assert (old.node, old.drain_requested) == ("old", False)
