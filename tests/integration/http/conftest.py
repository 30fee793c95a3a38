"""A node on the memory store with a few handlers, and a client to ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.http_api import GATES, REGISTRY, speaking_to
from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode


@pytest.fixture
async def node() -> AsyncIterator[MemoryNode]:
    GATES.forget()  # events belong to the loop of a test
    async with memory_node(REGISTRY) as running:
        yield running


@pytest.fixture
async def http(node: MemoryNode) -> AsyncIterator[Http]:
    async with speaking_to(node) as http:
        yield http


@pytest.fixture
def gates(node: MemoryNode) -> Gates:
    return GATES
