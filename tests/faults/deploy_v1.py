"""The first version of the handlers that test_deploys.py replaces under load. See deploy_v2.py for what changes."""

from __future__ import annotations

from actors import Context, handler
from tests.faults.staged_handlers import act


@handler("order", timeout_s=60, max_attempts=2)
async def order(ctx: Context, name: str) -> int:
    return await act(ctx, name)


@handler("invoice")
async def invoice(ctx: Context, name: str, cents: int) -> int:
    return await act(ctx, name)


@handler("ship")
async def ship(ctx: Context, name: str, note: str = "") -> int:
    return await act(ctx, name)
