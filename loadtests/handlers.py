"""What the callers ask for. Every result is the number of its attempt, so that an outcome can be told from another's."""

from __future__ import annotations

import asyncio

from actors import Context, Retry, handler, task

_REPEATED_EVERY = 50  # one order of so many asks to be run again


@handler("load.note")
async def note(ctx: Context, n: int = 0, text: str = "") -> int:
    """Nothing: what is measured is everything around it."""
    return ctx.attempt


@handler("load.rest")
async def rest(ctx: Context, n: int = 0, ms: int = 200) -> int:
    """As a slow remote call: it keeps its place and uses no CPU, so that others have to wait for a place."""
    await asyncio.sleep(ms / 1000)
    return ctx.attempt


@handler("load.order")
async def order(ctx: Context, n: int = 0, ms: int = 50) -> int:
    """Makes one receipt, which is committed with its outcome: the ledger of what was done, and how often."""
    ctx.submit(task(receipt, order=str(ctx.task_id)))
    await asyncio.sleep(ms / 1000)
    if n % _REPEATED_EVERY == 0 and ctx.attempt == 1:
        raise Retry("once more", after_s=0.5)
    return ctx.attempt


@handler("load.receipt")
async def receipt(ctx: Context, order: str) -> int:
    """A row of the ledger."""
    return ctx.attempt
