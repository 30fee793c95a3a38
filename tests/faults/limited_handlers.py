"""Limited handlers of the fault tests, as a node loads them."""

from __future__ import annotations

import asyncio

from actors import Backoff, Context, Retry, handler

QUICK = Backoff(first_s=0.05, max_s=0.1)


@handler(rate_limit="100/s", burst=20, backoff=QUICK)
async def metered(ctx: Context) -> None:
    if ctx.failures == 0 and ctx.task_id.int % 10 == 0:
        raise Retry("one in ten needs a second attempt")


@handler(max_running=5, backoff=QUICK)
async def narrow(ctx: Context) -> None:
    await asyncio.sleep(0.05)


@handler(max_running=2, limit_per="key", backoff=QUICK)
async def by_key(ctx: Context) -> None:
    await asyncio.sleep(0.05)


@handler(backoff=QUICK)
async def free(ctx: Context) -> None: ...
