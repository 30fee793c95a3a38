"""An actor that counts, for benchmarks."""

from __future__ import annotations

from actors import Actor, Context, handler


class Counter(Actor, name="counter"):
    total: int = 0

    @handler
    async def add(self, ctx: Context, amount: int) -> int:
        self.total += amount
        return self.total
