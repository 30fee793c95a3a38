"""Handlers that do nothing, for benchmarks."""

from __future__ import annotations

import asyncio
from typing import Any

from actors import Context, handler


@handler
async def noop(ctx: Context, i: int = 0, data: Any = None) -> None:
    """Return at once."""


@handler
async def io(ctx: Context, i: int = 0, data: Any = None) -> None:
    """Wait 50 ms, as for a quick remote call."""
    await asyncio.sleep(0.05)
