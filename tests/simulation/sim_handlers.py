"""What runs in a simulated world: every way to end, each saying which attempt it was."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING

from actors import Backoff, Batch, BatchContext, Context, Registry, chord, handler, task
from tests.simulation.sim_loop import NODE

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

EVERYWHERE = frozenset({"works", "flaky", "together", "parent", "poison", "limited"})  # every node has these
BACKOFF = Backoff(first_s=0.5, factor=2, max_s=3)


class Witness:
    """Sees every body begin, on whichever node; `kill` ends a node by its name."""

    def __init__(self, kill: Callable[[str], None], fail: Callable[[str], None]) -> None:
        self.begun: set[tuple[UUID, int]] = set()
        self._kill = kill
        self._fail = fail

    def kill_this_node(self) -> None:
        self._kill(NODE.get().partition(".")[0])

    def begin(self, ctx: Context) -> None:
        if (ctx.task_id, ctx.attempt) in self.begun:
            self._fail(f"attempt {ctx.attempt} of {ctx.task_id} begins again")
        self.begun.add((ctx.task_id, ctx.attempt))


@handler("works", backoff=BACKOFF)
async def works(ctx: Context, for_s: float) -> int:
    ctx.use(Witness).begin(ctx)
    await asyncio.sleep(for_s)
    return ctx.attempt


@handler("flaky", max_attempts=4, backoff=BACKOFF)
async def flaky(ctx: Context, failures: int) -> int:
    ctx.use(Witness).begin(ctx)
    await asyncio.sleep(0.05)
    if ctx.failures < failures:
        raise ValueError("not yet")
    return ctx.attempt


@handler("limited", rate_limit="2/s", burst=1, max_running=1, backoff=BACKOFF)
async def limited(ctx: Context, for_s: float) -> int:
    ctx.use(Witness).begin(ctx)
    await asyncio.sleep(for_s)
    if ctx.failures < 1:
        raise ValueError("its second attempt counts too")
    return ctx.attempt


@handler("together", max_attempts=4, backoff=BACKOFF, batch=Batch(max=3, wait_s=0.3))
async def together(ctx: BatchContext, failures: list[int]) -> list[int | Exception]:
    """As `flaky`, for several: each has an end of its own."""
    for one in ctx.each:
        ctx.use(Witness).begin(one)
    await asyncio.sleep(0.2)
    return [
        one.attempt if one.failures >= wanted else ValueError("not yet")
        for one, wanted in zip(ctx.each, failures, strict=True)
    ]


@handler("doomed", max_attempts=2, backoff=BACKOFF)
async def doomed(ctx: Context) -> int:
    ctx.use(Witness).begin(ctx)
    raise ValueError("never")


@handler("late", max_attempts=2, timeout_s=1, backoff=BACKOFF)
async def late(ctx: Context, deaf: bool) -> int:
    ctx.use(Witness).begin(ctx)
    for _ in range(4 if deaf else 1):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            if not deaf:
                raise
    return ctx.attempt


@handler("naps", backoff=BACKOFF)
async def naps(ctx: Context, until_attempt: int) -> int:
    ctx.use(Witness).begin(ctx)
    if ctx.attempt < until_attempt:
        ctx.snooze(0.7)
    return ctx.attempt


@handler("parent", backoff=BACKOFF)
async def parent(ctx: Context, name: str) -> int:
    ctx.use(Witness).begin(ctx)
    parts = [task(works, for_s=0.1).options(idempotency_key=f"{name}/{n}") for n in range(2)]
    ctx.submit(chord(parts, then=task(joins).options(idempotency_key=f"{name}/join")))
    await asyncio.sleep(0.2)
    if ctx.failures < 1:
        raise ValueError("after it has submitted")
    return ctx.attempt


@handler("joins", backoff=BACKOFF)
async def joins(ctx: Context) -> int:
    """Runs when both of its parents have ended, with what they returned."""
    ctx.use(Witness).begin(ctx)
    results = ctx.parents.results(int)
    if len(results) != 2 or not all(results):
        raise RuntimeError(f"the results of the parents are {results}")
    return ctx.attempt


@handler("poison", backoff=BACKOFF)
async def poison(ctx: Context) -> int:
    """Its process dies of it."""
    ctx.use(Witness).begin(ctx)
    ctx.use(Witness).kill_this_node()
    await asyncio.sleep(20)
    return ctx.attempt


@cache
def registry(*, whole: bool = True) -> Registry:
    """All of them; or what a node of another release has, which accepts the rest for others."""
    some = (works, flaky, together, parent, joins, poison, limited)
    return Registry(*some, doomed, late, naps) if whole else Registry(*some)
