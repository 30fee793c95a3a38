"""Turns of keyed actors between two sessions of PostgreSQL: what the lock of a key is for, and plans that stay cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
import pytest

from runtime.adapters.postgres.connections import BY_KEY
from runtime.adapters.postgres.queries import SQL
from runtime.core.keyed import Ask, TurnEnd, actor_id
from tests.contract.world import postgres_world
from tests.support.factories import new_task, settlement, succeeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.keyed import Turn
    from runtime.core.task import Band
    from tests.contract.world import World

TYPE: Final = "account"
KEY: Final = actor_id("default", TYPE, "42")


@pytest.fixture
async def world(pg_dsn: str) -> AsyncIterator[World]:
    async with postgres_world(pg_dsn) as made:
        yield made


@pytest.fixture
async def band(world: World) -> Band:
    return await world.band("account.deposit", keyed=True)


async def begin(world: World, band: Band, me: int) -> list[Turn]:
    return await world.store.begin_turns([Ask(actor=KEY, limit=9)], [band.id], me)


async def test_a_key_that_somebody_is_about_to_take_is_left_alone(
    pg_dsn: str, world: World, band: Band
) -> None:
    """Between its two statements a node has looked at nothing yet; whoever came first must be the only one."""
    me = await world.member()
    for _ in range(2):
        await world.submit(band, actor_type=TYPE, actor_key="42")
        other = await asyncpg.connect(pg_dsn)
        try:
            async with other.transaction():
                locked = await other.fetch(SQL.lock_actors.sql, [KEY])
                turns = await begin(world, band, me)
                assert turns == [] if locked else len(turns) == 1
            for turn in turns or await begin(world, band, me):
                ends = tuple(settlement(claim, me, succeeded()) for claim in turn.claims)
                await world.store.end_turns(
                    [TurnEnd(actor=KEY, version=turn.version, settlements=ends, state=b"{}", state_version=1)]
                )
        finally:
            await other.close()
    assert locked, "the second time its row was there"


@pytest.mark.parametrize("name", ["mail", "begin_turns", "write_states"])
async def test_no_statement_reads_a_whole_table(pg_dsn: str, world: World, band: Band, name: str) -> None:
    me = await world.member()
    tasks = [new_task(band, actor_type=TYPE, actor_key=str(n % 50)) for n in range(1000)]
    await world.store.accept([[task] for task in tasks])
    actors = [actor_id("default", TYPE, str(n)) for n in range(50)]
    await world.store.begin_turns([Ask(actor=each, limit=1) for each in actors], [band.id], me)
    count = len(actors)
    values = {
        "mail": (UUID(int=0), 100),
        "begin_turns": (
            actors, [5] * count, [-1] * count, [9] * count, [False] * count, [band.id], me, False
        ),
        "write_states": (actors, [0] * count, [b"{}"] * count, [1] * count),
    }[name]  # fmt: skip
    connection = await asyncpg.connect(pg_dsn)
    try:
        for setting, value in BY_KEY.items():
            await connection.execute(f"SET {setting} = '{value}'")
        for analysed in (False, True):
            if analysed:
                await connection.execute("ANALYZE")
            query: str = getattr(SQL, name).sql
            rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {query}", *values)
            plan = "\n".join(row[0] for row in rows)
            assert not [line for line in plan.splitlines() if "Seq Scan on" in line], plan
    finally:
        await connection.close()
