"""The supervisor actor: the root of a node's actors. It starts them in order, and takes the node out in order.

supervisor ── executor   claims, runs, commits
           ── router     accepts, proposes, answers those who wait
           ── janitor    repairs, counts, forgets
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Final, assert_never

from actors.executor.executor import Executor
from actors.executor.messages import Drain, Drained, SuspectsWait, Waits
from actors.executor.messages import Message as ExecutorMessage
from actors.janitor import Janitor, Round
from actors.router.messages import AnswerAll, TasksEnded
from actors.router.messages import Message as RouterMessage
from actors.router.router import Router
from actors.world import World
from runtime.core.task import Census
from runtime.errors import Unavailable
from runtime.kernel.actor import ActorContext, Behavior, Control, Ref, Request
from runtime.kernel.supervision import ChildSpec

log = logging.getLogger(__name__)

_SETTLE_S: Final = 8.0  # beyond the drain's own time: for bodies that do not stop, and the last commits


@dataclass(frozen=True, slots=True)
class Actors:
    """Where to send what."""

    router: Ref[RouterMessage]
    executor: Ref[ExecutorMessage]


@dataclass(frozen=True, slots=True)
class GetActors(Control, Request[Actors]):
    """Answered once the children run."""


@dataclass(frozen=True, slots=True)
class DrainNode(Control, Request[Drained]):
    """Leave without losing or repeating work: claim nothing more, end or hand back what runs within `within_s`."""

    within_s: float


Message = GetActors | DrainNode


class Supervisor(Behavior[Message]):
    def __init__(self, world: World) -> None:
        self._world = world
        self._actors: Actors | None = None

    async def started(self, ctx: ActorContext[Message]) -> None:
        world = self._world
        executor: Ref[ExecutorMessage] = await ctx.spawn(
            ChildSpec(name="executor", make=lambda: Executor(world, self._ended))
        )
        router: Ref[RouterMessage] = await ctx.spawn(
            ChildSpec(name="router", make=lambda: Router(world, executor))
        )
        self._actors = Actors(router, executor)
        _: Ref[Round] = await ctx.spawn(
            ChildSpec(name="janitor", make=lambda: Janitor(world, self._hint, self._counted))
        )

    async def receive(self, ctx: ActorContext[Message], message: Message) -> None:
        match message:
            case GetActors():
                ctx.reply(self._actors)
            case DrainNode(within_s):
                ctx.detach(self._drain(within_s), ctx.defer())
            case _:
                assert_never(message)

    def _ended(self, message: TasksEnded) -> None:
        if self._actors is not None:
            self._actors.router.tell(message)

    def _hint(self, message: SuspectsWait | Waits) -> None:
        if self._actors is not None:
            self._actors.executor.tell(message)

    def _counted(self, census: Census) -> None:
        self._world.activity.counted(census)
        telemetry, bands = self._world.telemetry, self._world.bands
        for name in ("tasks_backlog", "tasks_scheduled", "oldest_due_seconds"):
            telemetry.clear(name)
        ready: Counter[tuple[str, str, str]] = Counter()
        scheduled: Counter[str] = Counter()
        oldest: dict[tuple[str, str], float] = {}
        for count in census.bands:
            band = bands.get(count.band)
            if band is not None:
                lane = band.lane.name.lower()
                ready[lane, band.handler, ",".join(band.requires)] += count.ready
                scheduled[band.handler] += count.scheduled
                oldest[lane, band.handler] = max(oldest.get((lane, band.handler), 0.0), count.oldest_due_s)
        for (lane, handler, requires), value in ready.items():
            telemetry.gauge("tasks_backlog", value, lane=lane, handler=handler, requires=requires)
        for handler, value in scheduled.items():
            telemetry.gauge("tasks_scheduled", value, handler=handler)
        for (lane, handler), age_s in oldest.items():
            telemetry.gauge("oldest_due_seconds", age_s, lane=lane, handler=handler)

    async def _drain(self, within_s: float) -> Drained:
        """Long polls are answered, running work ends or is handed back, then the lease says that we have left."""
        assert self._actors is not None, "children are started before the first message"
        self._actors.router.tell(AnswerAll())
        await self._mark("draining")
        try:
            return await self._actors.executor.ask(Drain(within_s), timeout_s=within_s + _SETTLE_S)
        finally:
            await self._mark("left")  # also with a body that does not end: leaving is nobody's crash

    async def _mark(self, state: str) -> None:
        try:
            await self._world.store.set_state(self._world.incarnation, state)
        except Unavailable as away:  # the lease runs out by itself
            log.warning("the record does not know that this node is %s: %s", state, away)
