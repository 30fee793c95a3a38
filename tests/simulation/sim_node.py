"""A node in a simulated world: real actors on bad lines, one incarnation after the other, wired as node.wiring does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from actors.activity import Activity
from actors.authoring.registry import Kind, Registry
from actors.authoring.resources import Resources
from actors.bands import Bands
from actors.catalog import Published
from actors.executor.capacity import Capacity
from actors.harness import _Tally
from actors.intake.intake import Intake
from actors.keyed.fence import Fence
from actors.supervisor.messages import DrainNode, GetActors, JoinCluster
from actors.supervisor.supervisor import Supervisor
from actors.world import Limits, World
from node.service import NodeService
from runtime.adapters.memory.views import MemoryCoordinator
from runtime.core.limits import in_force
from runtime.errors import IncarnationDead, NoriaError, Unavailable
from runtime.kernel.clock import SystemClock
from runtime.kernel.supervision import ChildSpec
from runtime.kernel.system import ActorSystem
from tests.simulation.sim_history import History
from tests.simulation.sim_lines import Line, ViewsLine, Wire
from tests.simulation.sim_loop import ProcessLoop, process
from tests.simulation.sim_network import Network, WatchedBroker
from tests.simulation.sim_record import Record
from tests.simulation.sim_views import Views, WatchedCluster

if TYPE_CHECKING:
    from actors.cluster import Cluster
    from runtime.core.view import View
    from runtime.ports import Coordinator, Store

LEASE_S: Final = 3.0
HEARTBEAT_S: Final = 0.5
CONCURRENCY: Final = 3
_RENEWALS_PER_LEASE: Final = 3
_RETRY_S: Final = 0.3
_JOIN_S: Final = 30.0

T = TypeVar("T")


class Lost(Exception):
    """A caller's connection to a node broke, or it has waited long enough."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all nodes of a world have in common."""

    history: History
    record: Record
    views: Views
    network: Network | None  # None: the record is the only way to each other
    resources: Resources


@dataclass(frozen=True, slots=True)
class Profile:
    """What stays when a node starts again."""

    name: str
    registry: Registry
    tags: frozenset[str]
    weight: float


class Life:
    """One incarnation. `wire` leads to the record; `views_wire` is the same one where the views are kept there."""

    def __init__(self, profile: Profile, number: int, shared: Shared, random: Random) -> None:
        self.profile = profile
        self.process = f"{profile.name}.{number}"
        self.wire = Wire()
        beside = shared.views.chaos is shared.record.chaos
        self.views_wire = self.wire if beside else Wire()
        self.store = Line(shared.record, self.process, self.wire)
        self.broker: WatchedBroker | None = None
        self.incarnation = 0
        self.paused = False
        self.faults = 0  # of its own, at work
        self._fault_s = float("-inf")  # when the last one ended
        self.died = asyncio.Event()  # it has read so
        self.asked_to_drain = asyncio.Event()  # by somebody through the record
        self.leaving = False
        self.world: World
        self.service: NodeService
        self.system: ActorSystem
        self._shared = shared
        self._random = random
        self._context = process(self.process)
        self._goes_by = (0, 0.0)

    # -- what is done to it -------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Something that this process does, whatever its caller does meanwhile."""
        task = asyncio.get_running_loop().create_task(work, context=self._context)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def ask(self, work: Coroutine[Any, Any, T], within_s: float) -> T:
        """The same for a caller who is elsewhere. Raises Lost, and what `work` raises."""
        task = self.run(work)
        await asyncio.wait({task}, timeout=within_s)
        if not task.done() or task.cancelled():
            raise Lost
        return task.result()

    def began_fault(self) -> None:
        self.faults += 1

    def ended_fault(self) -> None:
        self.faults -= 1
        self._fault_s = self._shared.history.now_s()

    def is_healthy(self, since_s: float) -> bool:
        """Whether it has had no fault of its own since then. What happens to its messages is none."""
        ill_s = max(self.wire.missed_s, self._fault_s)
        return not self.wire.dead and not self.faults and ill_s < since_s

    async def kill(self) -> None:
        """No word to anybody; what it sent may still arrive."""
        self._shared.history.dead.add(self.process)
        self.wire.dead = self.views_wire.dead = True
        if self.broker is not None:
            self.broker.dead = True
            self.broker.cut()
            late_s = self._random.choice((0.0, 0.0, 2.0))  # until the broker has noticed
            asyncio.get_running_loop().call_later(late_s, self.broker.close)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop), "worlds are on it"
        await loop.kill_process(self.process)

    # -- what it does -------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Until it is in the view. Raises NoriaError: then the process ends, and is started again."""
        shared, profile = self._shared, self.profile
        store, clock = cast("Store", self.store), SystemClock()
        await store.publish(profile.registry.entries())
        await store.declare_limits(profile.registry.limits())
        bands = Bands(store)
        await bands.refresh()
        names = profile.registry.names
        about = {"tags": sorted(profile.tags), "handlers": list(names), "weight": profile.weight}
        self.incarnation = await store.join(profile.name, LEASE_S, about)
        cluster = WatchedCluster(self.incarnation, names, self._installed)
        limits = Limits(concurrency=CONCURRENCY)
        capacity = Capacity({kind: limits.of(kind) for kind in Kind})
        capacity.limits = in_force(await store.limits())
        if shared.network is not None:
            self.broker = WatchedBroker(
                shared.network,
                self.incarnation,
                self._context,
                self.store.asked,
                lambda: capacity.closed,
                lambda: self._goes_by,
            )
        views = ViewsLine(shared.views, self.process, self.views_wire, MemoryCoordinator(shared.views))
        self.world = World(
            store=store,
            registry=profile.registry,
            bands=bands,
            capacity=capacity,
            intake=Intake(
                profile.registry, bands, lambda: int(clock.now_s() * 1000), Published(store, clock.now_s)
            ),
            resources=shared.resources,
            activity=Activity(clock.now_s, clock.wall),
            clock=clock,
            telemetry=_Tally(),
            jitter=self._random.random,
            node=profile.name,
            incarnation=self.incarnation,
            cluster=cluster,
            coordinator=cast("Coordinator", views),
            broker=self.broker,
            heartbeat_s=HEARTBEAT_S,
            lease_s=LEASE_S,
            tags=profile.tags,
            limits=limits,
            fence=Fence(clock.now_s),
        )
        await self._start_actors()

    async def _start_actors(self) -> None:
        self._renewing = asyncio.create_task(self._renew())
        self.system = ActorSystem(self.world.clock, random=self._random)
        await self.system.__aenter__()
        world, leave = self.world, self.asked_to_drain.set
        self._supervisor = await self.system.spawn(
            ChildSpec(name="supervisor", make=lambda: Supervisor(world, leave))
        )
        self.service = NodeService(world, await self._supervisor.ask(GetActors(), _JOIN_S))
        await self._supervisor.ask(JoinCluster(), _JOIN_S)

    def _installed(self, cluster: Cluster, before: View) -> None:
        self._goes_by = cluster.view.number, self._shared.history.now_s()
        self._shared.views.installed(cluster, before)

    async def _renew(self) -> None:
        wait_s = LEASE_S / _RENEWALS_PER_LEASE
        while True:
            asked_s = self.world.clock.now_s()
            try:
                await cast("Store", self.store).renew(self.incarnation, LEASE_S)
            except Unavailable:
                await asyncio.sleep(_RETRY_S)
            except IncarnationDead:
                if not self.leaving:
                    self._shared.history.note("read that it is dead", "read themselves dead")
                    self.died.set()
                return
            else:
                self.world.fence.renewed(asked_s, LEASE_S)
                await asyncio.sleep(wait_s)

    async def drain(self, within_s: float) -> None:
        self.service.draining = self.leaving = True
        try:
            drained = await self._supervisor.ask(DrainNode(within_s), within_s + 10)
            self._shared.history.note(
                f"has drained: {drained.finished} ended, {drained.released} handed back"
            )
        except NoriaError as unfinished:
            self._shared.history.note(f"drain: {unfinished}")
        await self.system.shutdown()


class SimNode:
    """One name. `up` while its present life serves."""

    def __init__(self, profile: Profile, shared: Shared, random: Random) -> None:
        self.profile = profile
        self.up = asyncio.Event()
        self.up_since_s = 0.0
        self.lives: list[Life] = []
        self.end = asyncio.Event()  # kill it, or
        self.drains = False  # let it go in order
        self._shared = shared
        self._random = random

    @property
    def life(self) -> Life:
        return self.lives[-1]

    async def start(self) -> None:
        """A new incarnation; repeated until one serves, as whoever starts nodes does."""
        while True:
            self.end.clear()
            self.drains = False
            life = Life(self.profile, len(self.lives) + 1, self._shared, Random(self._random.random()))
            self.lives.append(life)
            beginning = life.run(life.begin())
            await first_of(beginning, self.end, life.died)
            if beginning.done() and not beginning.cancelled() and beginning.exception() is None:
                self._shared.history.note(f"{life.process} is up as incarnation {life.incarnation}", "starts")
                self.up_since_s = self._shared.history.now_s()
                self.up.set()
                return
            error = beginning.exception() if beginning.done() and not beginning.cancelled() else None
            await life.kill()
            if error is not None and not isinstance(error, NoriaError):
                raise error
            await asyncio.sleep(_RETRY_S)

    async def stop(self, within_s: float) -> None:
        """Drain, or kill."""
        self.up.clear()
        history, life = self._shared.history, self.life
        if self.drains:
            history.note(f"drain {life.process}", "drains")
            await asyncio.wait({life.run(life.drain(within_s))}, timeout=60)
        else:
            history.note(f"kill {life.process}", "kills")
        await life.kill()


async def first_of(*things: asyncio.Event | asyncio.Task[Any]) -> None:
    """Until one has happened; tasks go on."""
    waits = [
        thing if isinstance(thing, asyncio.Task) else asyncio.ensure_future(thing.wait()) for thing in things
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait, thing in zip(waits, things, strict=True):
            if wait is not thing:
                wait.cancel()
