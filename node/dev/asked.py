"""From the first signal to the end of a command that runs other processes."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any


async def until_asked(
    work: Coroutine[Any, Any, int], end: Callable[[asyncio.Event], Awaitable[None]]
) -> int | None:
    """Run `work` until it ends or SIGINT, SIGTERM or SIGHUP comes, then `end` in either case: its event is
    set when a further signal says that it takes too long. Returns what `work` did, None when it was asked to end.
    """
    hurry = asyncio.Event()
    body = asyncio.create_task(work)

    def asked() -> None:
        if body.cancelling() or body.done():
            hurry.set()
        else:
            body.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)
    try:
        await asyncio.wait({body})
    finally:
        await end(hurry)
    return None if body.cancelled() else body.result()
