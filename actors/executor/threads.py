"""Plain `def` handlers, run in threads.

A thread cannot be stopped from outside: at its deadline `ctx.cancelled` becomes true, the attempt ends as timed
out, and the thread goes on until the function returns. Such stuck threads are counted; `_SPARE` times the limit
may be stuck before new work waits behind them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from actors.authoring.batching import BatchContext
from actors.authoring.context import Context

_SPARE: Final = 4


class Threads:
    def __init__(self, limit: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=limit * _SPARE, thread_name_prefix="noria-handler")
        self._stuck: set[Future[Any]] = set()

    @property
    def stuck(self) -> int:
        return len(self._stuck)

    async def call(self, fn: Callable[..., Any], ctx: Context | BatchContext, /, **args: Any) -> Any:
        context = contextvars.copy_context()
        future = self._pool.submit(context.run, _call, fn, ctx, args)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and not future.done():
                self._stuck.add(future)
                future.add_done_callback(self._stuck.discard)
            raise

    def close(self) -> None:
        """Give up what has not started; threads that are stuck do not hold the process (node exits hard)."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _call(fn: Callable[..., Any], ctx: Context | BatchContext, args: dict[str, Any]) -> Any:
    try:
        return fn(ctx, **args)
    except StopIteration as stop:  # asyncio cannot carry it in a future: the attempt would never end
        raise RuntimeError("the handler raised StopIteration") from stop
