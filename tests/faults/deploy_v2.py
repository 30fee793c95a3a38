"""The second version: a new handler, new defaults, an argument more with a default, one that must be given, one less."""

from __future__ import annotations

from actors import Context, handler
from tests.faults.staged_handlers import act


@handler("order", timeout_s=30, max_attempts=5)
async def order(ctx: Context, name: str, gift: bool = False) -> int:
    return await act(ctx, name)


@handler("invoice")
async def invoice(ctx: Context, name: str, cents: int, currency: str) -> int:
    return await act(ctx, name)


@handler("ship")
async def ship(ctx: Context, name: str) -> int:
    return await act(ctx, name)


@handler("refund")
async def refund(ctx: Context, name: str) -> int:
    return await act(ctx, name)
