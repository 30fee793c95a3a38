"""Every test that asks for `world` or `store` runs on memory and on PostgreSQL; neither is ever skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.broker_world import BrokerWorld, MemoryBrokerWorld, RabbitWorld, rabbit_world
from tests.contract.world import MemoryWorld, World, postgres_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from runtime.core.task import Band
    from runtime.ports import Store
    from tests.support.services import PostgresServer


@pytest.fixture
def memory_world() -> MemoryWorld:
    return MemoryWorld()


@pytest.fixture(scope="session")
def contract_dsn(pg_server: PostgresServer) -> Iterator[str]:
    """One database for the whole suite: emptying it takes a tenth of the time of making one."""
    with pg_server.database(migrated=True) as dsn:
        yield dsn


@pytest.fixture
async def pg_world(contract_dsn: str) -> AsyncIterator[World]:
    async with postgres_world(contract_dsn) as world:
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


@pytest.fixture
async def rabbit(amqp_url: str) -> AsyncIterator[RabbitWorld]:
    async with rabbit_world(amqp_url) as world:
        yield world


@pytest.fixture(params=["memory", "rabbitmq"])
def broker_world(request: pytest.FixtureRequest) -> BrokerWorld:
    """Runs the test twice: on memory and on RabbitMQ."""
    if request.param == "memory":
        return MemoryBrokerWorld()
    made: RabbitWorld = request.getfixturevalue("rabbit")
    return made
