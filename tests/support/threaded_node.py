"""Whole nodes (on the memory store) in a thread of their own, for tests that have no event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.support.memory_node import memory_node, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.authoring.registry import Registry
    from tests.support.memory_node import MemoryNode


@contextmanager
def threaded_node(registry: Registry) -> Iterator[str]:
    """Yields its URL."""
    with threaded_cluster(registry, "n1") as [url]:
        yield url


@contextmanager
def threaded_cluster(registry: Registry, *names: str) -> Iterator[list[str]]:
    """Members of one cluster; yields their URLs once all are in the view of the first."""
    ready: Future[tuple[list[str], asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            nodes: list[MemoryNode] = []
            for name in names:
                beside = nodes[0] if nodes else None
                nodes.append(await stack.enter_async_context(memory_node(registry, name=name, beside=beside)))
            await until(lambda: len(nodes[0].world.cluster.view.active) == len(names))
            ready.set_result(([node.url for node in nodes], asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            if ready.done():
                raise
            ready.set_exception(exc)

    thread = threading.Thread(target=run)
    thread.start()
    urls, loop, stop = ready.result(10)
    try:
        yield urls
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
