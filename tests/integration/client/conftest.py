"""A real node (on the memory store), clients to it, and a proxy between them that breaks on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from node.client import Client
from tests.support.client_handlers import GATES, REGISTRY
from tests.support.faulty_proxy import faulty_proxy
from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.faulty_proxy import Proxy
    from tests.support.memory_node import MemoryNode


@pytest.fixture
async def node() -> AsyncIterator[MemoryNode]:
    GATES.__init__()  # type: ignore[misc]  # events belong to this test's loop
    async with memory_node(REGISTRY) as running:
        yield running
        for event in GATES.opened.values():
            event.set()


@pytest.fixture
async def client(node: MemoryNode) -> AsyncIterator[Client]:
    async with Client(node.url) as made:
        yield made


@pytest.fixture
async def proxy(node: MemoryNode) -> AsyncIterator[Proxy]:
    async with faulty_proxy(node.url) as made:
        yield made


@pytest.fixture
async def shaken(proxy: Proxy) -> AsyncIterator[Client]:
    """A client whose way to the node leads through the proxy."""
    async with Client(proxy.url, retry_for_s=5.0) as made:
        yield made
