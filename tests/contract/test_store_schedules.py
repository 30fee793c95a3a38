"""Schedules: kept by name, fired once by whoever comes first, and told of what has not ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runtime.core.schedule import OPEN_MAX, CatchUp, Firing, Overlap, Schedule, ScheduleSpec
from tests.support.factories import new_task, succeeded

if TYPE_CHECKING:
    from datetime import datetime

    from runtime.core.task import Band, NewTask
    from runtime.ports import Store
    from tests.contract.world import World

TASK = b'{"handler": "echo"}'
HOUR = timedelta(hours=1)


def spec(name: str = "s", **fields: Any) -> ScheduleSpec:
    if "every_s" not in fields:
        fields.setdefault("cron", "0 * * * *")
    return ScheduleSpec(name=name, task=TASK, **fields)


async def put(store: Store, next_fire_at: datetime | None = None, **fields: Any) -> Schedule:
    """Due now, unless told otherwise."""
    one = spec(**fields)
    await store.put_schedule(one, next_fire_at or await store.now())
    found = await store.schedule(one.tenant, one.name)
    assert found is not None
    return found


def firing(schedule: Schedule, *tasks: NewTask, **fields: Any) -> Firing:
    assert schedule.next_fire_at is not None
    defaults: dict[str, Any] = {
        "tenant": schedule.spec.tenant,
        "name": schedule.spec.name,
        "revision": schedule.revision,
        "next_fire_at": schedule.next_fire_at + HOUR,
        "fired_at": schedule.next_fire_at if tasks else None,
    }
    return Firing(tasks=tasks, **(defaults | fields))


async def again(store: Store, schedule: Schedule) -> Schedule:
    found = await store.schedule(schedule.spec.tenant, schedule.spec.name)
    assert found is not None
    return found


# -- keeping -----------------------------------------------------------------------------------------


async def test_what_is_put_is_read(store: Store) -> None:
    at = await store.now() + HOUR
    one = spec(
        cron=None, every_s=7.5, tenant="t", time_zone="Asia/Tokyo", catch_up=CatchUp.ALL, catch_up_max=7,
        overlap=Overlap.CANCEL_OLD, created_by="me",
    )  # fmt: skip
    await store.put_schedule(one, at)
    found = await store.schedule("t", "s")
    assert found is not None
    assert (found.spec, found.next_fire_at) == (one, at)
    assert (found.paused_at, found.last_fire_at, found.last_task_id, found.unended) == (None, None, None, ())
    assert (found.fired, found.missed, found.skipped) == (0, 0, 0)
    assert await store.schedule("default", "s") is None


async def test_a_rule_that_stays_keeps_its_next_time(store: Store) -> None:
    now = await store.now()
    first = await put(store, now + HOUR)
    changed = await put(store, now + 2 * HOUR, overlap=Overlap.SKIP)
    assert changed.next_fire_at == now + HOUR
    assert changed.spec.overlap is Overlap.SKIP
    assert changed.revision > first.revision
    assert changed.created_at == first.created_at
    for fields in ({"time_zone": "Asia/Tokyo"}, {"cron": "5 * * * *"}, {"cron": None, "every_s": 5.0}):
        later = changed.next_fire_at + HOUR
        changed = await put(store, later, **fields)  # type: ignore[arg-type]
        assert changed.next_fire_at == later


async def test_they_are_listed_by_name_and_tenant(store: Store) -> None:
    for name in ("b", "a", "c", "B"):
        await put(store, name=name)
    await put(store, name="d", tenant="other")
    assert [one.spec.name for one in await store.schedules("default", 10)] == ["B", "a", "b", "c"]
    assert [one.spec.name for one in await store.schedules("default", 2, "a")] == ["b", "c"]
    assert [one.spec.name for one in await store.schedules("other", 1)] == ["d"]


async def test_deleting(store: Store, band: Band) -> None:
    one = await put(store)
    task = new_task(band)
    await store.fire(firing(one, task))
    assert await store.delete_schedule("other", "s") is False
    assert await store.delete_schedule("default", "s") is True
    assert await store.delete_schedule("default", "s") is False
    assert await store.schedule("default", "s") is None
    assert await store.get(task.id) is not None
    assert await store.fire(firing(await put(store), revision=2)) is None, "another one of that name"


# -- firing ------------------------------------------------------------------------------------------


async def test_due_are_those_in_time_the_earliest_first(store: Store, world: World) -> None:
    now = await store.now()
    for name, after_s in (("late", -5), ("later", -9), ("soon", 50), ("far", 500)):
        await put(store, now + timedelta(seconds=after_s), name=name)
    paused = await put(store, now, name="paused")
    await store.set_schedule_paused("default", "paused", paused.revision, paused=True, next_fire_at=now)
    at, found = await store.due_schedules(0, 10)
    assert at >= now
    assert [one.spec.name for one in found] == ["later", "late"]
    assert [one.spec.name for one in (await store.due_schedules(100, 10))[1]] == ["later", "late", "soon"]
    assert [one.spec.name for one in (await store.due_schedules(100, 1))[1]] == ["later"]
    await world.advance(60)
    assert len((await store.due_schedules(0, 10))[1]) == 3


async def test_nothing_due_still_tells_the_time(store: Store) -> None:
    at, found = await store.due_schedules(1, 10)
    assert abs(at - await store.now()) < HOUR
    assert found == []


async def test_a_fire_stores_its_tasks_and_moves_on(store: Store, band: Band) -> None:
    one = await put(store)
    tasks = [new_task(band, key=f"k{n}") for n in range(3)]
    assert await store.fire(firing(one, *tasks, missed=4, skipped=2)) == [task.id for task in tasks]
    found = await again(store, one)
    assert one.next_fire_at is not None
    assert found.next_fire_at == one.next_fire_at + HOUR
    assert (found.last_fire_at, found.last_task_id) == (one.next_fire_at, tasks[-1].id)
    assert (found.fired, found.missed, found.skipped) == (3, 4, 2)
    assert found.unended == tuple(task.id for task in tasks)
    assert len(await store.get_many([task.id for task in tasks])) == 3
    assert (await store.due_schedules(0, 10))[1] == []


async def test_a_fire_of_another_revision_does_nothing(store: Store, band: Band) -> None:
    one = await put(store)
    late = new_task(band, key="k2")
    assert await store.fire(firing(one, new_task(band, key="k1"))) is not None
    assert await store.fire(firing(one, late)) is None
    assert await store.get(late.id) is None
    for change in ("pause", "put", "delete"):
        before = await again(store, one)
        if change == "pause":
            await store.set_schedule_paused("default", "s", before.revision, paused=True, next_fire_at=None)
        elif change == "put":
            await put(store)
        else:
            await store.delete_schedule("default", "s")
        assert await store.fire(firing(one, late, revision=before.revision)) is None
    assert await store.get(late.id) is None


async def test_many_at_once_fire_once(store: Store, band: Band) -> None:
    one = await put(store)
    tasks = [new_task(band, key=f"k{n}") for n in range(8)]
    answers = await asyncio.gather(*(store.fire(firing(one, task)) for task in tasks))
    assert len([answer for answer in answers if answer is not None]) == 1
    assert len(await store.get_many([task.id for task in tasks])) == 1
    assert (await again(store, one)).fired == 1


async def test_a_key_that_is_taken_is_not_stored_again(store: Store, world: World, band: Band) -> None:
    await world.submit(band, key="k1")
    one = await put(store)
    fresh = new_task(band, key="k2")
    stored = await store.fire(
        firing(one, new_task(band, key="k1"), new_task(band, key="k1", request="b"), fresh)
    )
    assert stored == [fresh.id]
    assert (await again(store, one)).unended == (fresh.id,)


async def test_a_fire_without_tasks_moves_on(store: Store) -> None:
    one = await put(store)
    assert await store.fire(firing(one, skipped=1, next_fire_at=None)) == []
    found = await again(store, one)
    assert (found.next_fire_at, found.last_fire_at, found.skipped) == (None, None, 1)
    assert (await store.due_schedules(1e6, 10))[1] == []


async def test_unended_are_those_that_wait_or_run(store: Store, world: World, band: Band, me: int) -> None:
    one = await put(store)
    waits, runs, done = (new_task(band) for _ in range(3))
    await store.fire(firing(one, waits, runs, done))
    for claim in await store.claim([(runs.id, 1), (done.id, 1)], me):
        if claim.id == done.id:
            await world.settle(claim, me, succeeded())
    found = await again(store, one)
    assert found.unended == (waits.id, runs.id)
    assert (await store.schedules("default", 1))[0].unended == (waits.id, runs.id)
    more = [new_task(band) for _ in range(OPEN_MAX - 1)]
    await store.fire(firing(found, *more, keep=found.unended))
    found = await again(store, one)
    assert found.unended == (runs.id, *(task.id for task in more)), "the oldest is no longer looked at"
    await store.fire(firing(found, waits))
    assert (await again(store, one)).unended == (waits.id,)


# -- pausing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("paused", [True, False])
async def test_pausing_and_resuming(store: Store, paused: bool) -> None:
    one = await put(store)
    assert await store.set_schedule_paused(
        "default", "s", one.revision, paused=True, next_fire_at=one.next_fire_at
    )
    found = await again(store, one)
    assert found.paused_at is not None
    assert (await store.due_schedules(0, 10))[1] == []
    assert not await store.set_schedule_paused(
        "default", "s", one.revision, paused=paused, next_fire_at=None
    ), "another revision"
    later = await store.now() + HOUR
    assert await store.set_schedule_paused("default", "s", found.revision, paused=paused, next_fire_at=later)
    changed = await again(store, one)
    assert changed.paused_at == (found.paused_at if paused else None)
    assert changed.next_fire_at == later
    assert (await put(store)).paused_at == changed.paused_at, "putting it anew leaves a pause alone"
