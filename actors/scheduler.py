"""The scheduler actor: fires the schedules that are due.

Nobody leads: every node looks once a second, and at the very time when the next one is due; the record lets one of
them fire it. So a node that dies, is slow or is cut off stops nothing, and none fires twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from actors import scheduling
from actors.activity import NextFire
from actors.router.messages import Route
from actors.router.offering import ready
from actors.world import World
from runtime.core.schedule import Schedule
from runtime.errors import InvalidInput, Unavailable
from runtime.kernel.actor import ActorContext, Behavior

log = logging.getLogger(__name__)

_ROUND_S: Final = 1.0
_BATCH_MAX: Final = 200
_FORESIGHT_EVERY: Final = 10  # looks; then far ahead, for people who ask what fires next
_FORESIGHT_S: Final = 86_400.0
_FORESEEN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class LookUp:
    """To itself: at least once a second."""


class Scheduler(Behavior[LookUp]):
    """`tell_router` gets what has been made: its owner is told, as of any task."""

    def __init__(self, world: World, tell_router: Callable[[Route], object]) -> None:
        self._world = world
        self._tell_router = tell_router
        self._busy = False
        self._looks = 0

    async def started(self, ctx: ActorContext[LookUp]) -> None:
        ctx.self.tell(LookUp())

    async def receive(self, ctx: ActorContext[LookUp], message: LookUp) -> None:
        ctx.after(_ROUND_S, message, key="look")
        if not self._busy:
            self._busy = True
            ctx.detach(self._look(ctx))

    async def _look(self, ctx: ActorContext[LookUp]) -> None:
        try:
            far = self._looks % _FORESIGHT_EVERY == 0
            within_s = _FORESIGHT_S if far else _ROUND_S
            now, soon = await self._world.store.due_schedules(within_s, _BATCH_MAX)
            self._looks += 1
            if far:
                self._foresee(soon)
            due = [one for one in soon if one.next_fire_at is not None and one.next_fire_at <= now]
            later = [one.next_fire_at for one in soon[len(due) :] if one.next_fire_at is not None]
            begin = int(self._world.jitter() * len(due))  # nodes begin at different ones
            fired = [await self._fire(schedule, now) for schedule in due[begin:] + due[:begin]]
            if len(due) == _BATCH_MAX and any(fired):
                ctx.after(0.0, LookUp(), key="look")
            elif later and (in_s := (later[0] - now).total_seconds()) < _ROUND_S:
                ctx.after(max(0.0, in_s), LookUp(), key="look")
        except Unavailable as away:
            log.debug("scheduler: the record is away: %s", away)
        finally:
            self._busy = False

    def _foresee(self, schedules: Sequence[Schedule]) -> None:
        self._world.activity.next_fires = tuple(
            NextFire(one.spec.tenant, one.spec.name, one.next_fire_at)
            for one in schedules[:_FORESEEN_MAX]
            if one.next_fire_at is not None
        )

    async def _fire(self, schedule: Schedule, now: datetime) -> bool:
        """Whether this node fired it."""
        world, name = self._world, schedule.spec.name
        try:
            fired = await scheduling.fire(world, schedule, now)
        except InvalidInput as refused:
            log.error("schedule %s cannot be fired: %s", name, refused.detail)  # noqa: TRY400 - nobody's bug
            return False
        if fired is None:
            return False
        world.telemetry.count("schedules_fired_total", len(fired.tasks))
        world.telemetry.count("schedules_missed_total", fired.plan.missed)
        world.telemetry.count("schedules_skipped_total", fired.plan.skipped)
        world.telemetry.observe(
            "schedule_late_seconds", [(now - at).total_seconds() for at in fired.plan.fires]
        )
        world.telemetry.count("tasks_accepted_total", len(fired.tasks))
        world.activity.rates.add("accepted", len(fired.tasks))
        if fired.plan.missed or fired.plan.skipped:
            log.info("schedule %s: %d fire times were missed, %d skipped for overlap",
                     name, fired.plan.missed, fired.plan.skipped)  # fmt: skip
        if fired.tasks:
            self._tell_router(Route(tuple(map(ready, fired.tasks))))
        return True
