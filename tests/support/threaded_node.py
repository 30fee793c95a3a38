"""A whole node (on the memory store) in a thread of its own, for tests that have no event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.authoring.registry import Registry


@contextmanager
def threaded_node(registry: Registry) -> Iterator[str]:
    """Yields its URL."""
    ready: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with memory_node(registry) as node:
            ready.set_result((node.url, asyncio.get_running_loop(), stop))
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
    url, loop, stop = ready.result(10)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
