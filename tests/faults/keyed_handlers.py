"""Keyed actors of the fault tests, as a node loads them."""

from __future__ import annotations

from staged_handlers import QUICK, act

from actors import Actor, Context, actor, field, handler


class Ledger(Actor, name="ledger"):
    """Remembers what it was told, in order; `copy` tells it to another ledger too, in the same transaction."""

    entries: list[int] = field(default_factory=list)

    @handler(backoff=QUICK)
    async def append(self, ctx: Context, n: int, name: str = "") -> int:
        if name:
            await act(ctx, name)
        self.entries.append(n)
        return ctx.attempt

    @handler(backoff=QUICK)
    async def copy(self, ctx: Context, n: int, to: str) -> int:
        ctx.submit(actor(Ledger, to).task(Ledger.append, n=n))
        return await self.append(ctx, n)
