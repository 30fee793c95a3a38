"""Tenants take turns on a node, whatever one of them brings, and by their weights."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from actors import Context, handler, task
from actors.intake.requests import spec_of
from actors.router.submitting import submit
from tests.support.actor_rig import Rig


@dataclass
class Floor:
    """Where bodies work: whose started, in order, and permits to end."""

    started: list[str] = field(default_factory=list)
    permits: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))


@handler("work", timeout_s=1000)
async def work(ctx: Context, tenant: str) -> None:
    floor = ctx.use(Floor)
    floor.started.append(tenant)
    await floor.permits.acquire()


async def bring(rig: Rig, tenant: str, count: int) -> None:
    specs = [spec_of(task(work, tenant=tenant), tenant=tenant) for _ in range(count)]
    await submit(rig.world, rig.actors.router, specs, 60)


async def end(rig: Rig, floor: Floor, count: int) -> list[str]:
    """Let so many bodies end, one by one; whose started meanwhile."""
    before = len(floor.started)
    for _ in range(count):
        floor.permits.release()
        await rig.settle()
    return floor.started[before:]


async def test_ten_tasks_pass_by_thousands_of_another_tenant() -> None:
    floor = Floor()
    async with Rig(work, concurrency=4, resources=[floor]) as rig:
        await bring(rig, "much", 3_000)
        assert set(await end(rig, floor, 10)) == {"much"}
        await bring(rig, "little", 10)
        since = await end(rig, floor, 20)
        assert since.count("little") == 10, since


async def test_starts_follow_the_weights_and_a_new_weight_counts_soon() -> None:
    floor = Floor()
    async with Rig(work, concurrency=2, resources=[floor]) as rig:
        await rig.store.set_tenant_weight("acme", 3)
        await rig.advance(6)
        await bring(rig, "acme", 100)
        await bring(rig, "other", 100)
        await end(rig, floor, 4)
        assert Counter(await end(rig, floor, 20)) == {"acme": 15, "other": 5}
        await rig.store.set_tenant_weight("acme", 1)
        await rig.advance(6)
        assert Counter(await end(rig, floor, 20)) == {"acme": 10, "other": 10}


async def test_births_of_one_tenant_do_not_hold_up_what_waits_of_another() -> None:
    """Whoever always brings one more the moment that a body has ended never has a backlog, and takes no turns."""
    floor = Floor()
    async with Rig(work, concurrency=2, resources=[floor]) as rig:
        await bring(rig, "steady", 2)
        await bring(rig, "waits", 3)
        for _ in range(5):
            floor.permits.release()
            await bring(rig, "steady", 1)
            await rig.settle()
        assert floor.started.count("waits") == 3, floor.started


async def test_an_idle_node_soon_finds_what_nobody_told_it_of_in_whatever_band() -> None:
    floor = Floor(permits=asyncio.Semaphore(100))
    async with Rig(work, concurrency=1, resources=[floor]) as rig:
        high = [spec_of(task(work, tenant="").options(priority="high"), tenant=f"h{n}") for n in range(20)]
        low = [spec_of(task(work, tenant="l").options(priority="low"), tenant=f"l{n}") for n in range(3)]
        await rig.world.intake.prepare(high)  # their bands are there, and hold nothing
        prepared = await rig.world.intake.prepare(low)
        await rig._clock.advance(60)  # not the rig, which tells the node of everything
        await rig.store.accept([[prepared[2].task]])  # by a node that died before it told anybody
        await rig._clock.advance(6)
        assert floor.started == ["l"]
