"""What the HTTP API needs of a node. `node.wiring` provides it; tests may build a smaller one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from actors.activity import Gap, TaskEvent
from actors.authoring.registry import Registry
from actors.cluster import Cluster
from actors.intake.requests import TaskSpec
from node.http.cluster import Load
from node.http.stats import TenantRow
from runtime.core.schedule import ScheduleSpec
from runtime.core.task import Acceptance, Band, Lane, NewTask, TaskView, light
from runtime.core.view import View
from runtime.ports import Objects, Store


@light
class Submitted:
    """One accepted (or refused) task: what was asked, as it was made ready, and what the record said."""

    task: NewTask
    acceptance: Acceptance
    band: Band  # of the task: what the answer tells of handler, lane and tags


class Service(Protocol):
    """Raises errors.InvalidInput, Overloaded, Unavailable."""

    @property
    def store(self) -> Store: ...

    @property
    def objects(self) -> Objects | None:
        """Where large results lie; None where this node was not told."""
        ...

    @property
    def registry(self) -> Registry: ...

    @property
    def draining(self) -> bool: ...

    @property
    def node(self) -> str:
        """This node's name."""
        ...

    @property
    def cluster(self) -> Cluster:
        """The view that this node goes by, and what it heard of the others."""
        ...

    def home(self, view: TaskView) -> str | None:
        """The node that owns the task's slot among those that may run it; None while nobody does."""
        ...

    def load(self, incarnation: int) -> Load:
        """How much a member has in hand, and how many offers it still takes; None where nothing was heard."""
        ...

    async def views(self, limit: int) -> list[View]:
        """The newest views, newest first."""
        ...

    def waits_for(self, view: TaskView) -> tuple[str, str]:
        """(reason, detail) why a `ready` task does not run yet, judged for the whole cluster.

        The reasons are words of `waiting.reason`: paused, no_handler, no_tags, no_capacity …
        """
        ...

    def backlog(self) -> int:
        """How many tasks wait, as last counted; cheap."""
        ...

    async def submit(self, specs: Sequence[TaskSpec]) -> list[Submitted]:
        """Validate and store all or none.

        InvalidInput pointers start with '#/<index>/…' when there are several.
        """
        ...

    async def wait(self, task_id: UUID, timeout_s: float) -> TaskView | None:
        """The task once it is final, or its present state on timeout or drain; None when there is none."""
        ...

    async def cancel(self, task_id: UUID) -> TaskView:
        """As TaskControl.cancel, and the executor hears of it at once."""
        ...

    async def retry(self, task_id: UUID) -> TaskView: ...

    async def prioritize(self, task_id: UUID, lane: Lane) -> TaskView:
        """As TaskControl.prioritize, and this node looks at that lane at once."""
        ...

    async def check_schedule(self, spec: ScheduleSpec) -> datetime:
        """The first time at which it will fire. Raises InvalidInput with pointers into the request."""
        ...

    async def run_schedule(self, tenant: str, name: str) -> UUID | None:
        """A task at once, beside the rule; None: there is no such schedule."""
        ...

    async def set_schedule_paused(self, tenant: str, name: str, *, paused: bool) -> bool:
        """False: there is no such schedule."""
        ...

    def nudge(self) -> None:
        """Pauses, limits or what waits have changed: this node looks at once, the others within a second."""
        ...

    def subscribe(self, after: int | None) -> AbstractContextManager[AsyncIterator[TaskEvent | Gap]]:
        """Live events of this node; `after` is a Last-Event-ID. Bounded: a slow reader gets a Gap."""
        ...

    async def tenants(self) -> list[TenantRow]:
        """All that have tasks or a weight of their own, by name."""
        ...

    async def set_tenant_paused(self, tenant: str, *, paused: bool) -> TenantRow:
        """Nodes go by it within a second, this one at once."""
        ...

    async def weigh_tenant(self, tenant: str, weight: int) -> TenantRow:
        """Give a tenant this weight; nodes go by it within seconds. Raises InvalidInput."""
        ...

    async def live_stats(self) -> Mapping[str, object]:
        """Known without asking the record: the fields of `node.http.stats.Stats`, as far as there are."""
        ...

    async def ready(self) -> str | None:
        """None when ready, else the reason it is not."""
        ...

    def metrics(self) -> bytes:
        """Prometheus text format."""
        ...
