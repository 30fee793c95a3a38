"""What is done with a schedule: checked when somebody asks for it, fired when it is due or by hand, gone on with.

Law: the record decides. A fire is stored under the revision that was read; whoever was too late has done nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from actors.authoring.options import LANES
from actors.intake.requests import TaskSpec, request_digest
from actors.world import World
from runtime.core.ids import IdSequence
from runtime.core.schedule import Firing, Overlap, Plan, Rule, Schedule, ScheduleSpec, fire_key, plan, rule_of
from runtime.core.task import NewTask, State
from runtime.errors import InvalidInput, TaskNotFound, Unavailable

_TRIES: Final = 20  # somebody else would have changed it each time
_IDS: Final = IdSequence()


@dataclass(frozen=True, slots=True)
class Fired:
    """What one fire came to."""

    plan: Plan
    tasks: tuple[NewTask, ...]


# -- rules -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def load_zone(name: str) -> tzinfo:
    """Reads files. Raises InvalidInput."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        detail = f"{name!r} is no time zone; allowed are names such as UTC and Europe/Berlin"
        raise InvalidInput(f"#/time_zone: {detail}", (("#/time_zone", detail),)) from None


def load_rule(spec: ScheduleSpec, origin: datetime) -> Rule:
    """May read files and take a while. Raises InvalidInput."""
    zone = load_zone(spec.time_zone)
    try:
        return rule_of(spec, zone, origin)
    except ValueError as wrong:
        raise InvalidInput(f"#/cron: {wrong}", (("#/cron", str(wrong)),)) from None


async def next_times(schedule: Schedule, count: int) -> list[datetime]:
    """The next fire times, as far as there are; none while it is paused."""
    first = schedule.next_fire_at
    if first is None or schedule.paused_at is not None or not count:
        return []

    def look() -> list[datetime]:
        return [first, *islice(load_rule(schedule.spec, first).after(first), count - 1)]

    return await asyncio.to_thread(look)


async def check(world: World, spec: ScheduleSpec) -> datetime:
    """The first time at which it will fire. Raises InvalidInput: the rule, the zone, or the task is not allowed."""
    now = await world.store.now()
    first = await asyncio.to_thread(lambda: next(load_rule(spec, now).after(now), None))
    if first is None:
        detail = f"{spec.cron!r} never fires within fifty years"
        raise InvalidInput(f"#/cron: {detail}", (("#/cron", detail),))
    try:
        await world.intake.prepare([task_spec(spec, first)])
    except InvalidInput as wrong:
        errors = tuple((pointer.replace("#", "#/task", 1), detail) for pointer, detail in wrong.errors)
        raise InvalidInput(": ".join(errors[0]) if errors else wrong.detail, errors) from None
    return first


# -- tasks -------------------------------------------------------------------------------------------


def task_spec(spec: ScheduleSpec, at: datetime, *, by_hand: bool = False) -> TaskSpec:
    """The task of a fire time, as a request. One by hand has no key."""
    fields: dict[str, Any] = orjson.loads(spec.task)
    priority = fields.get("priority")
    return TaskSpec(
        handler=fields["handler"],
        payload=fields.get("payload") or {},
        tenant=spec.tenant,
        idempotency_key=None if by_hand else fire_key(spec.name, at),
        actor_key=fields.get("actor_key"),
        limit_key=fields.get("limit_key"),
        priority=None if priority is None else LANES[priority],
        requires=tuple(fields.get("requires") or ()),
        prefers=tuple(fields.get("prefers") or ()),
        timeout_s=fields.get("timeout_s"),
        max_attempts=fields.get("max_attempts"),
        metadata={**(fields.get("metadata") or {}), "schedule": spec.name, "fire_at": at.isoformat()},
        created_by=f"schedule:{spec.name}",
        digest=None if by_hand else request_digest(fields),
    )


async def tasks_for(world: World, specs: Sequence[TaskSpec]) -> tuple[NewTask, ...]:
    """Also for a handler that nobody has any more, or that takes other arguments by now: those wait, as any task does
    whose handler is missing. Raises Unavailable."""
    if not specs:
        return ()
    try:
        prepared = await world.intake.prepare(specs)
    except InvalidInput:
        prepared = await world.intake.prepare_unchecked(specs)
    return tuple(one.task for one in prepared)


# -- fires -------------------------------------------------------------------------------------------


async def fire(world: World, schedule: Schedule, now: datetime) -> Fired | None:
    """Of one that is due. None: somebody else was faster. Raises Unavailable."""

    def decide() -> Plan:
        assert schedule.next_fire_at is not None, "it is due"
        return plan(schedule, load_rule(schedule.spec, schedule.next_fire_at), now)

    decided = await asyncio.to_thread(decide)
    spec = schedule.spec
    tasks = await tasks_for(world, [task_spec(spec, at) for at in decided.fires])
    if tasks and spec.overlap is Overlap.CANCEL_OLD:
        await _cancel(world, schedule.unended)
    stored = await world.store.fire(
        Firing(
            tenant=spec.tenant,
            name=spec.name,
            revision=schedule.revision,
            next_fire_at=decided.next_fire_at,
            tasks=tasks,
            fired_at=decided.fires[-1] if decided.fires else None,
            missed=decided.missed,
            skipped=decided.skipped,
            keep=_kept(schedule, tasks),
        )
    )
    return None if stored is None else Fired(decided, tasks)


async def run_now(world: World, tenant: str, name: str) -> NewTask | None:
    """A task at once, whatever the rule, a pause or an overlap says; None where there is no such schedule.

    Raises Unavailable; then it may have been stored.
    """
    for _ in range(_TRIES):
        schedule = await world.store.schedule(tenant, name)
        if schedule is None:
            return None
        now = await world.store.now()
        tasks = await tasks_for(world, [task_spec(schedule.spec, now, by_hand=True)])
        firing = Firing(
            tenant=tenant,
            name=name,
            revision=schedule.revision,
            next_fire_at=schedule.next_fire_at,
            tasks=tasks,
            fired_at=now,
            keep=_kept(schedule, tasks),
        )
        if await world.store.fire(firing) is not None:
            return tasks[0]
    raise Unavailable(f"schedule {name} changed each time it was looked at")


async def set_paused(world: World, tenant: str, name: str, *, paused: bool) -> bool:
    """What falls into a pause is not made up for. False: there is no such schedule. Raises Unavailable."""
    for _ in range(_TRIES):
        schedule = await world.store.schedule(tenant, name)
        if schedule is None:
            return False
        if (schedule.paused_at is not None) is paused:
            return True
        next_fire_at = schedule.next_fire_at
        if not paused and next_fire_at is not None:
            now, rule = (
                await world.store.now(),
                await asyncio.to_thread(load_rule, schedule.spec, next_fire_at),
            )
            next_fire_at = await asyncio.to_thread(next, rule.after(now), None)
        if await world.store.set_schedule_paused(
            tenant, name, schedule.revision, paused=paused, next_fire_at=next_fire_at
        ):
            return True
    raise Unavailable(f"schedule {name} changed each time it was looked at")


def _kept(schedule: Schedule, tasks: Sequence[NewTask]) -> tuple[UUID, ...]:
    return () if tasks and schedule.spec.overlap is Overlap.ALLOW else schedule.unended


async def _cancel(world: World, ids: Sequence[UUID]) -> None:
    """Before the fire is stored, so that it is made up for when this node dies in between."""
    for task_id in ids:
        try:
            view = await world.store.cancel(task_id)
        except TaskNotFound:
            continue
        if view.state is State.CANCELLED:
            world.activity.events.publish(view.id, view.handler, view.state, view.attempt)
