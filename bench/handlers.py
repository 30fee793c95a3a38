"""Handlers that do nothing, for benchmarks."""

from __future__ import annotations

import asyncio
from typing import Any

from actors import Batch, BatchContext, Context, handler


@handler
async def noop(ctx: Context, i: int = 0, data: Any = None) -> None:
    """Return at once."""


@handler
async def io(ctx: Context, i: int = 0, data: Any = None) -> None:
    """Wait 50 ms, as for a quick remote call."""
    await asyncio.sleep(0.05)


@handler(batch=Batch(max=100, wait_s=0.05))
async def noop_batch(ctx: BatchContext, data: list[Any]) -> None:
    """Return at once, for a hundred."""


@handler
async def insert(ctx: Context, data: Any) -> None:
    """A remote call of 5 ms for each."""
    await asyncio.sleep(0.005)


@handler(batch=Batch(max=100, wait_s=0.05))
async def insert_batch(ctx: BatchContext, data: list[Any]) -> None:
    """A remote call of 5 ms for a hundred."""
    await asyncio.sleep(0.005)
