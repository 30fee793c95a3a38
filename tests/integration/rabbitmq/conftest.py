"""A server that tests may break, and members on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.broker_world import RabbitWorld, rabbit_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.rabbitmq_server import RabbitServer


@pytest.fixture
def server(rabbitmq: RabbitServer) -> Iterator[RabbitServer]:
    """The session's server, whole again afterwards."""
    yield rabbitmq
    rabbitmq.heal()


@pytest.fixture
async def world(server: RabbitServer) -> AsyncIterator[RabbitWorld]:
    async with rabbit_world(server.url) as made:
        yield made
