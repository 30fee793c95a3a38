"""A node in a simulated world: real actors, one incarnation after the other, killed without a word or drained."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

from actors.activity import Activity
from actors.authoring.registry import Kind, Registry
from actors.authoring.resources import Resources
from actors.bands import Bands
from actors.cluster import Cluster
from actors.executor.capacity import Capacity
from actors.executor.messages import CancelRun
from actors.harness import _Tally
from actors.intake import Intake, TaskSpec
from actors.router.messages import AwaitEnd
from actors.router.submitting import submit
from actors.supervisor.messages import Actors, DrainNode, GetActors
from actors.supervisor.supervisor import Supervisor
from actors.world import Limits, World
from runtime.errors import IncarnationDead, NoriaError, Unavailable
from runtime.kernel.clock import SystemClock
from runtime.kernel.supervision import ChildSpec
from runtime.kernel.system import ActorSystem
from tests.simulation.sim_store import NODE, NodeStore, Record

if TYPE_CHECKING:
    from uuid import UUID

    from runtime.core.task import Acceptance, State
    from runtime.kernel.actor import Ref
    from runtime.ports import Store

LEASE_S: Final = 3.0
_RENEW_S: Final = 0.5
_RETRY_S: Final = 0.3


class Tasks:
    """Which asyncio tasks belong to which node, so that it can be killed whole."""

    def __init__(self) -> None:
        self._of: dict[str, dict[asyncio.Task[Any], None]] = {}

    def make(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, context=context)
        owner = NODE.get() if context is None else context.get(NODE, "world")
        mine = self._of.setdefault(owner, {})
        mine[task] = None
        task.add_done_callback(lambda done: mine.pop(done, None))
        return task

    async def kill(self, node: str) -> None:
        while mine := list(self._of.get(node, ())):
            for task in mine:
                task.cancel()
            await asyncio.wait(mine, timeout=0.01)


class SimNode:
    """One name; `incarnations` lives so far."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        resources: Resources,
        record: Record,
        tasks: Tasks,
        random: Random,
    ) -> None:
        self.name = name
        self._resources = resources
        self.incarnations = 0
        self.up = asyncio.Event()
        self._registry = registry
        self._record = record
        self._tasks = tasks
        self._random = random
        self._store: NodeStore
        self._world: World
        self._supervisor: Ref[Any]
        self._actors: Actors
        self._system: ActorSystem
        self._died = asyncio.Event()
        self._leaving = False

    @property
    def capacity(self) -> Capacity:
        return self._world.capacity

    @property
    def failed(self) -> bool:
        return self._system.failed.done()

    # -- life and death -----------------------------------------------------------------------------

    async def start(self) -> None:
        """A new incarnation; repeated until the record answers, as whoever starts nodes does."""
        self.incarnations += 1
        self._died.clear()
        self._leaving = False
        NODE.set(f"{self.name}.{self.incarnations}")
        while True:
            self._store = NodeStore(self._record, NODE.get())
            try:
                await self._begin(cast("Store", self._store))
            except Unavailable:
                await asyncio.sleep(_RETRY_S)
            else:
                self._record.note(f"is up as incarnation {self._world.incarnation}")
                self.up.set()
                return

    async def _begin(self, store: Store) -> None:
        await store.publish(self._registry.entries())
        bands, clock, limits = Bands(store), SystemClock(), Limits(concurrency=3)
        await bands.refresh()
        incarnation = await store.join(self.name, LEASE_S, {})
        self._world = World(
            store=store,
            registry=self._registry,
            bands=bands,
            capacity=Capacity({kind: limits.of(kind) for kind in Kind}),
            intake=Intake(self._registry, bands, lambda: int(clock.now_s() * 1000)),
            resources=self._resources,
            activity=Activity(clock.now_s, clock.wall),
            clock=clock,
            telemetry=_Tally(),
            jitter=self._random.random,
            node=self.name,
            incarnation=incarnation,
            cluster=Cluster(incarnation),
            lease_s=LEASE_S,
            limits=limits,
        )
        self._system = ActorSystem(clock, random=self._random)
        await self._system.__aenter__()
        self._supervisor = await self._system.spawn(
            ChildSpec(name="supervisor", make=lambda: Supervisor(self._world))
        )
        self._actors = await self._supervisor.ask(GetActors(), 5)
        self._renewing = asyncio.get_running_loop().create_task(self._renew(incarnation))
        await store.set_state(incarnation, "active")

    async def _renew(self, incarnation: int) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                await self._world.store.renew(incarnation, LEASE_S)
            except Unavailable:
                continue
            except IncarnationDead:
                if not self._leaving:
                    self._record.note("read that it is dead")
                    self._died.set()
                return

    async def kill(self) -> None:
        """No word to anybody; what it sent may still arrive."""
        self.up.clear()
        self._record.note(f"kill {self.name}")
        self._store.dead = True
        self._record.dead.add(f"{self.name}.{self.incarnations}")
        await self._tasks.kill(f"{self.name}.{self.incarnations}")

    async def cut_off(self, for_s: float) -> None:
        """It goes on, and reaches the record no more; longer than its lease, it becomes a zombie."""
        self._record.note(f"{self.name} is cut off for {for_s:.1f} s")
        store = self._store
        store.cut = True
        await asyncio.sleep(for_s)
        store.cut = False

    async def drain(self, within_s: float) -> None:
        self.up.clear()
        self._record.note(f"drain {self.name}")
        self._leaving = True
        try:
            await self._supervisor.ask(DrainNode(within_s), within_s + 10)
        except NoriaError as unfinished:
            self._record.note(f"drain: {unfinished}")
        await self._system.shutdown()
        await self.kill()

    async def died(self) -> None:
        """Its lease ran out and somebody noticed: it has to end."""
        await self._died.wait()

    # -- what callers do ----------------------------------------------------------------------------

    async def submit(self, spec: TaskSpec) -> Acceptance:
        """Raises Unavailable or Overloaded."""
        [answer] = (await submit(self._world, self._actors.router, [spec], 3))[1]
        return answer

    async def wait(self, task_id: UUID, timeout_s: float) -> State | None:
        """Raises AskError."""
        view = await self._actors.router.ask(AwaitEnd(task_id), timeout_s)
        return None if view is None else view.state

    async def cancel(self, task_id: UUID) -> None:
        await self._world.store.cancel(task_id)
        self._actors.executor.tell(CancelRun(task_id))
