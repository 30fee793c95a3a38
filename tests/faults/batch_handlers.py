"""Batch handlers of the fault tests, as a node loads them."""

from __future__ import annotations

import asyncio

from staged_handlers import QUICK, act

from actors import Batch, BatchContext, handler


@handler(batch=Batch(max=3, wait_s=30), backoff=QUICK)
async def act_together(ctx: BatchContext, name: list[str]) -> list[int | BaseException]:
    return await asyncio.gather(*map(act, ctx.each, name), return_exceptions=True)
