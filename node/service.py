"""What a running node offers to its doors (HTTP, Harness): a thin layer over its actors and its record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Final
from uuid import UUID

from actors.activity import Gap, TaskEvent
from actors.authoring.registry import HandlerDef, Kind, Registry
from actors.executor.messages import CancelRun, ListRunning, Refresh, Waits
from actors.intake import TaskSpec
from actors.router.messages import AwaitEnd, Submit
from actors.supervisor import Actors, GetCensus
from actors.supervisor import Message as SupervisorMessage
from actors.world import World
from node.http.service import Submitted
from runtime.core.task import BandCount, Census, State, TaskView
from runtime.errors import AskError, AskTimeout, Unavailable
from runtime.kernel.actor import Ref
from runtime.ports import Store

_ACCEPT_S: Final = 3.0  # the record itself answers within 2 s or counts as away
_READ_S: Final = 1.0


class NodeService:
    """Implements node.http.service.Service."""

    def __init__(
        self,
        world: World,
        supervisor: Ref[SupervisorMessage],
        actors: Actors,
        render_metrics: Callable[[], bytes] = lambda: b"",
    ) -> None:
        self._world = world
        self._render_metrics = render_metrics
        self._supervisor = supervisor
        self._actors = actors
        self.draining = False

    @property
    def store(self) -> Store:
        return self._world.store

    @property
    def registry(self) -> Registry:
        return self._world.registry

    async def submit(self, specs: Sequence[TaskSpec]) -> list[Submitted]:
        prepared = await self._world.intake.prepare(specs, self._birth)
        try:
            answers = await self._actors.router.ask(Submit(tuple(prepared)), _ACCEPT_S)
        except AskError as unanswered:
            raise Unavailable(f"whether the tasks were stored is not known: {unanswered}") from unanswered
        return [Submitted(one.task, answer) for one, answer in zip(prepared, answers, strict=True)]

    def _birth(self, band: int, handler: HandlerDef) -> int | None:
        known = self._world.bands[band]
        servable = self._world.tags.issuperset(known.requires)
        return self._world.incarnation if servable and self._world.capacity.reserve(band, handler) else None

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
        return view

    async def retry(self, task_id: UUID) -> TaskView:
        view = await self.store.replay(task_id)
        self.nudge()
        return view

    def nudge(self) -> None:
        """Rows of any band may wait now, or a pause has changed: look at once."""
        self._actors.executor.tell(Refresh())
        self._actors.executor.tell(Waits(frozenset(band.id for band in self._world.bands)))

    def subscribe(self, after: int | None) -> AbstractContextManager[AsyncIterator[TaskEvent | Gap]]:
        return self._world.activity.events.subscribe(after)

    async def live_stats(self) -> Mapping[str, object]:
        activity, capacity = self._world.activity, self._world.capacity
        running = await self._actors.executor.ask(ListRunning(), _READ_S)
        census = await self._supervisor.ask(GetCensus(), _READ_S)
        return {
            "node": self._world.node,
            "incarnation": self._world.incarnation,
            "draining": self.draining,
            "rates": {
                name: {"per_s": activity.rates.per_s(name), "series": activity.rates.series(name)}
                for name in ("accepted", "succeeded", "failed", "cancelled")
            },
            "latency_s": activity.latency_percentiles(),
            "capacity": {
                kind.name.lower(): {"room": capacity.room(kind), "limit": self._world.limits.of(kind)} for kind in Kind
            },
            "running": [asdict(run) for run in running],
            "failures": [asdict(failure) for failure in reversed(activity.failures)],
            "census": None if census is None else self._census_view(census),
        }

    def _census_view(self, census: Census) -> dict[str, object]:
        return {
            "states": {
                "ready": sum(count.ready for count in census.bands),
                "scheduled": sum(count.scheduled for count in census.bands),
                "running": sum(count.running for count in census.bands),
                "succeeded": census.succeeded,
                "failed": census.failed,
                "cancelled": census.cancelled,
            },
            "succeeded_is_estimate": census.succeeded_is_estimate,
            "bands": [self._band_view(count) for count in census.bands],
        }

    def _band_view(self, count: BandCount) -> dict[str, object]:
        band = self._world.bands.get(count.band)
        about = {} if band is None else {"handler": band.handler, "lane": band.lane.name.lower(), "tenant": band.tenant}
        return {
            **about,
            "suspects": count.band < 0,
            "ready": count.ready,
            "scheduled": count.scheduled,
            "running": count.running,
            "oldest_due_s": count.oldest_due_s,
        }

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
