"""What a running node offers to its doors (HTTP, Harness): a thin layer over its actors and its record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from actors import scheduling
from actors.activity import Gap, TaskEvent
from actors.authoring.registry import Kind, Registry
from actors.cluster import Cluster
from actors.executor.messages import CancelRun, Refresh, Waits
from actors.intake.requests import TaskSpec
from actors.router.messages import AwaitEnd, Route
from actors.router.offering import ready
from actors.router.submitting import submit
from actors.supervisor.messages import Actors
from actors.world import World
from node.http.cluster import Load
from node.http.service import Submitted
from node.http.stats import TenantRow, tenant_rows
from node.observing import Observing
from node.waiting import waits_for
from runtime.core.lanes import USUAL_WEIGHT
from runtime.core.messages import CancelRequested
from runtime.core.schedule import ScheduleSpec
from runtime.core.task import Lane, State, TaskView
from runtime.core.view import View
from runtime.core.workflow import rows_of
from runtime.errors import AskError, AskTimeout, Unavailable
from runtime.ports import Objects, Store

_ACCEPT_S: Final = 1.9  # for the wait in the queue too: behind a frozen record nobody may wait twice
_ROWS_PER_S: Final = 5_000  # more time for large batches, as the record takes


class NodeService:
    """Implements node.http.service.Service."""

    def __init__(
        self,
        world: World,
        actors: Actors,
        render_metrics: Callable[[], bytes] = lambda: b"",
    ) -> None:
        self._world = world
        self._render_metrics = render_metrics
        self._actors = actors
        self._observing = Observing(world, actors)
        self.draining = False

    @property
    def store(self) -> Store:
        return self._world.store

    @property
    def objects(self) -> Objects | None:
        return self._world.objects

    @property
    def registry(self) -> Registry:
        return self._world.registry

    @property
    def node(self) -> str:
        return self._world.node

    async def submit(self, specs: Sequence[TaskSpec]) -> list[Submitted]:
        rows = len(specs) + (rows_of(sum(len(spec.parents) for spec in specs)) if len(specs) > 1 else 0)
        within_s = _ACCEPT_S + rows / _ROWS_PER_S
        prepared, answers = await submit(self._world, self._actors.router, specs, within_s)
        bands = {band: self._world.bands[band] for band in {one.task.band for one in prepared}}
        return [
            Submitted(one.task, answer, bands[one.task.band])
            for one, answer in zip(prepared, answers, strict=True)
        ]

    async def wait(self, task_id: UUID, timeout_s: float) -> TaskView | None:
        if timeout_s > 0 and not self.draining:
            try:
                return await self._actors.router.ask(AwaitEnd(task_id), timeout_s)
            except AskTimeout:
                pass
            except AskError as stopped:
                raise Unavailable(str(stopped)) from stopped
        return await self.store.get(task_id)

    async def cancel(self, task_id: UUID) -> TaskView:
        view = await self.store.cancel(task_id)
        if view.state is State.RUNNING:
            self._actors.executor.tell(CancelRun(task_id))
            await self._tell_runner(view)
        elif view.state is State.CANCELLED:
            self._world.activity.events.publish(view.id, view.handler, view.state, view.attempt)
        return view

    async def _tell_runner(self, view: TaskView) -> None:
        """Another node may run it; what is not told, it reads from the record within a second."""
        cluster, broker = self._world.cluster, self._world.broker
        runner = cluster.running_on(view.node)
        if broker is None or runner is None or runner.incarnation == cluster.incarnation:
            return
        with suppress(Unavailable):
            await broker.tell(runner.incarnation, CancelRequested(view.id, view.attempt))

    async def retry(self, task_id: UUID) -> TaskView:
        view = await self.store.replay(task_id)
        self.nudge()
        return view

    async def prioritize(self, task_id: UUID, lane: Lane) -> TaskView:
        view = await self.store.prioritize(task_id, lane)
        await self._world.bands.refresh()
        self.nudge()
        return view

    async def check_schedule(self, spec: ScheduleSpec) -> datetime:
        return await scheduling.check(self._world, spec)

    async def run_schedule(self, tenant: str, name: str) -> UUID | None:
        made = await scheduling.run_now(self._world, tenant, name)
        if made is None:
            return None
        self._actors.router.tell(Route((ready(made),)))
        return made.id

    async def set_schedule_paused(self, tenant: str, name: str, *, paused: bool) -> bool:
        return await scheduling.set_paused(self._world, tenant, name, paused=paused)

    def nudge(self) -> None:
        """Rows of any band may wait now, or a pause has changed: look at once."""
        self._actors.executor.tell(Refresh())
        self._actors.executor.tell(Waits(frozenset(band.id for band in self._world.bands)))

    async def tenants(self) -> list[TenantRow]:
        weights, paused = await self.store.tenant_weights(), await self.store.paused()
        return tenant_rows(self._world.activity.census, self._world.bands, weights, paused.tenants)

    async def weigh_tenant(self, tenant: str, weight: int) -> TenantRow:
        await self.store.set_tenant_weight(tenant, weight)
        self._actors.executor.tell(Refresh())
        return await self._tenant(tenant)

    async def set_tenant_paused(self, tenant: str, *, paused: bool) -> TenantRow:
        await self.store.set_tenant_paused(tenant, paused=paused)
        self.nudge()
        return await self._tenant(tenant)

    async def _tenant(self, tenant: str) -> TenantRow:
        found = next((row for row in await self.tenants() if row["name"] == tenant), None)
        return found or {
            "name": tenant,
            "weight": USUAL_WEIGHT,
            "paused": False,
            "ready": 0,
            "scheduled": 0,
            "running": 0,
            "oldest_s": 0.0,
        }

    def subscribe(self, after: int | None) -> AbstractContextManager[AsyncIterator[TaskEvent | Gap]]:
        return self._world.activity.events.subscribe(after)

    @property
    def cluster(self) -> Cluster:
        return self._world.cluster

    def home(self, view: TaskView) -> str | None:
        cluster = self._world.cluster
        if not cluster.view.number:
            return self._world.node
        owner = cluster.home(view.handler, view.requires, view.prefers, view.slot)
        return None if owner is None else owner.node

    def load(self, incarnation: int) -> Load:
        world = self._world
        if incarnation == world.incarnation:
            others = len(world.cluster.view.active) - 1
            return world.capacity.taken, sum(world.capacity.credits(max(1, others)))
        peer = world.cluster.peers.get(incarnation)
        return (None, None) if peer is None else (peer.running, sum(peer.credits))

    async def views(self, limit: int) -> list[View]:
        coordinator = self._world.coordinator
        return [] if coordinator is None else await coordinator.history(limit)

    def backlog(self) -> int:
        census = self._world.activity.census
        return 0 if census is None else sum(count.ready for count in census.bands)

    def waits_for(self, view: TaskView) -> tuple[str, str]:
        return waits_for(self._world, view)

    async def live_stats(self) -> Mapping[str, object]:
        return await self._observing.stats(draining=self.draining)

    async def ready(self) -> str | None:
        if self.draining:
            return "draining"
        try:
            await self.store.now()
        except Unavailable as away:
            return f"the record is away: {away}"
        return None

    def metrics(self) -> bytes:
        telemetry, capacity = self._world.telemetry, self._world.capacity
        telemetry.gauge("tasks_running", capacity.taken)
        for kind in Kind:
            telemetry.gauge("node_credit", capacity.room(kind), kind=kind.name.lower())
        return self._render_metrics()
