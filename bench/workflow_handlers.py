"""Handlers of the benchmark of fan-outs and joins."""

from __future__ import annotations

from actors import Context, chord, handler, task


@handler
async def fan_out(ctx: Context, parts: int) -> None:
    ctx.submit(chord([task(part, n=n) for n in range(parts)], then=task(join)))


@handler
async def part(ctx: Context, n: int) -> int:
    return n


@handler
async def join(ctx: Context) -> int:
    """How many results it met."""
    return len(set(ctx.parents.results(int)))
