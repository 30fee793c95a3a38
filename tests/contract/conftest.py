"""Every test that asks for `world` or `store` runs on memory and on PostgreSQL; neither is ever skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.world import MemoryWorld, World, postgres_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.task import Band
    from runtime.ports import Store


@pytest.fixture
def memory_world() -> MemoryWorld:
    return MemoryWorld()


@pytest.fixture
async def pg_world(pg_dsn: str) -> AsyncIterator[World]:
    async with postgres_world(pg_dsn) as world:
        yield world


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.getfixturevalue("memory_world" if request.param == "memory" else "pg_world")
    return made


@pytest.fixture
def store(world: World) -> Store:
    return world.store


@pytest.fixture
async def band(world: World) -> Band:
    return await world.band()


@pytest.fixture
async def me(world: World) -> int:
    """An incarnation that is alive for as long as the test."""
    return await world.member("me")
