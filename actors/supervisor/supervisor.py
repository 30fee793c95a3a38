"""The supervisor actor: the root of a node's actors. It starts them in order, keeps the node's place in the cluster
(membership.py), and takes the node out in order.

supervisor ── executor   claims, runs, commits
           ── router     accepts, proposes, answers those who wait
           ── janitor    repairs, counts, forgets
           ── scheduler  fires schedules that are due
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, assert_never

from actors.executor.executor import Executor
from actors.executor.messages import CancelRun, Drain, Drained, Offered, SuspectsWait, Waits
from actors.executor.messages import Message as ExecutorMessage
from actors.janitor import Janitor, Round
from actors.publishing import Publishing, Told
from actors.router.messages import AnswerAll, FromAfar, Route, TasksEnded
from actors.router.messages import Message as RouterMessage
from actors.router.router import Router
from actors.scheduler import LookUp, Scheduler
from actors.supervisor.membership import LOOK_S, Membership
from actors.supervisor.messages import Actors, Beat, DrainNode, GetActors, JoinCluster, Look, Message
from actors.world import World
from runtime.core import messages as wire
from runtime.core.task import Census
from runtime.core.versions import tags_in
from runtime.errors import Unavailable
from runtime.kernel.actor import ActorContext, Behavior, Ref
from runtime.kernel.supervision import ChildSpec
from runtime.ports import Broker, Delivery

log = logging.getLogger(__name__)

_LAST_EVENTS_S: Final = 1.0
_SETTLE_S: Final = 8.0  # beyond the drain's own time: for bodies that do not stop, and the last commits


class Supervisor(Behavior[Message]):
    """`leave` is called when somebody asked this node to drain."""

    def __init__(self, world: World, leave: Callable[[], object] = lambda: None) -> None:
        self._world = world
        self._actors: Actors | None = None
        self._publishing: Publishing | None = None
        self._membership = None if world.coordinator is None else Membership(world, world.coordinator, leave)

    async def started(self, ctx: ActorContext[Message]) -> None:
        world = self._world
        executor: Ref[ExecutorMessage] = await ctx.spawn(
            ChildSpec(name="executor", make=lambda: Executor(world, self._tell_router))
        )
        router: Ref[RouterMessage] = await ctx.spawn(
            ChildSpec(name="router", make=lambda: Router(world, executor))
        )
        self._actors = Actors(router, executor)
        _: Ref[Round] = await ctx.spawn(
            ChildSpec(name="janitor", make=lambda: Janitor(world, self._hint, self._counted))
        )
        _firing: Ref[LookUp] = await ctx.spawn(
            ChildSpec(name="scheduler", make=lambda: Scheduler(world, self._tell_router))
        )
        self._detach = ctx.detach
        if world.broker is not None:
            world.broker.receive(self._on_offer, self._on_message)
            self._publishing = self._begin_publishing(ctx, world.broker)
        if self._membership is not None:
            ctx.detach(self._membership.follow())
            ctx.self.tell(Beat())

    def _begin_publishing(self, ctx: ActorContext[Message], broker: Broker) -> Publishing | None:
        world = self._world
        if world.events is Told.OFF:
            return None
        publishing = Publishing(
            broker, world.activity, world.clock, world.telemetry, world.node, world.events
        )
        ctx.detach(publishing.run())
        return publishing

    async def receive(self, ctx: ActorContext[Message], message: Message) -> None:
        match message:
            case GetActors():
                ctx.reply(self._actors)
            case JoinCluster():
                self._join(ctx)
            case Beat():
                self._beat(ctx)
            case Look():
                self._look(ctx)
            case DrainNode(within_s):
                ctx.detach(self._drain(within_s), ctx.defer())
            case _:
                assert_never(message)

    # -- the cluster --------------------------------------------------------------------------------

    def _join(self, ctx: ActorContext[Message]) -> None:
        if self._membership is None:
            ctx.detach(self._world.store.set_state(self._world.incarnation, "active"), ctx.defer())
            return
        ctx.detach(self._membership.join(), ctx.defer())
        ctx.after(LOOK_S, Look(), key="look")

    def _beat(self, ctx: ActorContext[Message]) -> None:
        assert self._membership is not None, "only told with one"
        ctx.detach(self._membership.beat())
        spread = 0.9 + 0.2 * self._world.jitter()
        ctx.after(self._world.heartbeat_s * spread, Beat(), key="beat")

    def _look(self, ctx: ActorContext[Message]) -> None:
        assert self._membership is not None, "only told with one"
        ctx.detach(self._membership.look())
        ctx.after(LOOK_S, Look(), key="look")

    def _on_offer(self, delivery: Delivery) -> None:
        if self._actors is None or not self._actors.executor.tell(Offered(delivery)):
            delivery.ack()  # the executor is full: a pull will find them

    def _on_message(self, message: wire.Message) -> None:
        assert self._actors is not None, "children are started before anything is received"
        membership, actors = self._membership, self._actors
        match message:
            case wire.Heartbeat() if membership is not None:
                if membership.on_heartbeat(message):
                    self._detach(membership.catch_up())
            case wire.Credit() if membership is not None:
                membership.on_credit(message)
            case wire.Watch() | wire.Finished():
                actors.router.tell(FromAfar(message))
            case wire.Waiting(bands):
                actors.executor.tell(Waits(frozenset(bands)))
            case wire.CancelRequested(task_id):
                actors.executor.tell(CancelRun(task_id))
            case _:
                log.debug("nobody wants a %s", type(message).__name__)

    # -- between the children -----------------------------------------------------------------------

    def _tell_router(self, message: TasksEnded | Route) -> None:
        if self._actors is not None:
            self._actors.router.tell(message)

    def _hint(self, message: SuspectsWait | Waits) -> None:
        if self._actors is not None:
            self._actors.executor.tell(message)

    def _counted(self, census: Census) -> None:
        self._world.activity.counted(census)
        telemetry, bands = self._world.telemetry, self._world.bands
        for name in ("tasks_backlog", "tasks_scheduled", "tasks_blocked", "oldest_due_seconds"):
            telemetry.clear(name)
        ready: Counter[tuple[str, str, str]] = Counter()
        scheduled: Counter[str] = Counter()
        blocked: Counter[str] = Counter()
        oldest: dict[tuple[str, str], float] = {}
        for count in census.bands:
            band = bands.get(count.band)
            if band is not None:
                lane = band.lane.name.lower()
                ready[lane, band.handler, ",".join(tags_in(band.requires))] += count.ready
                scheduled[band.handler] += count.scheduled
                blocked[band.handler] += count.blocked
                oldest[lane, band.handler] = max(oldest.get((lane, band.handler), 0.0), count.oldest_due_s)
        for (lane, handler, requires), value in ready.items():
            telemetry.gauge("tasks_backlog", value, lane=lane, handler=handler, requires=requires)
        for handler, value in scheduled.items():
            telemetry.gauge("tasks_scheduled", value, handler=handler)
        for handler, value in blocked.items():
            if value:
                telemetry.gauge("tasks_blocked", value, handler=handler)
        for (lane, handler), age_s in oldest.items():
            telemetry.gauge("oldest_due_seconds", age_s, lane=lane, handler=handler)

    async def _drain(self, within_s: float) -> Drained:
        """Long polls are answered, running work ends or is handed back, then the lease says that we have left."""
        assert self._actors is not None, "children are started before the first message"
        self._world.capacity.close("drain")  # at once: until the others know may take a moment
        self._actors.router.tell(AnswerAll())
        await self._mark("draining")
        try:
            return await self._actors.executor.ask(Drain(within_s), timeout_s=within_s + _SETTLE_S)
        finally:
            await self._mark("left")  # also with a body that does not end: leaving is nobody's crash
            if self._publishing is not None and not await self._publishing.caught_up(_LAST_EVENTS_S):
                log.warning("not all events of this node were told: the broker is away")

    async def _mark(self, state: str) -> None:
        if self._membership is not None:
            await self._membership.set_state(state)
            return
        try:
            await self._world.store.set_state(self._world.incarnation, state)
        except Unavailable as away:  # the lease runs out by itself
            log.warning("the record does not know that this node is %s: %s", state, away)
