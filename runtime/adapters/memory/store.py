"""The whole record in memory: for tests, the Harness and simulation.

Law: the same answers as PostgreSQL (tests/contract runs on both). No method awaits anything, so each is
atomic; time comes from the clock that was passed in; what is handed in and out is immutable. Nothing here
survives the process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from runtime.adapters.memory import accepting, control, keyed, workflows, working
from runtime.adapters.memory.leases import Leases
from runtime.adapters.memory.limits import Limits
from runtime.adapters.memory.names import Names
from runtime.adapters.memory.reading import Reader
from runtime.adapters.memory.schedules import Schedules
from runtime.adapters.memory.tables import Tables
from runtime.core.limits import LimitedPull

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from runtime.core.keyed import Ask, Mail, Turn, TurnEnd
    from runtime.core.limits import HandlerLimit, Limit, LimitedTake
    from runtime.core.schedule import Firing, Schedule, ScheduleSpec
    from runtime.core.task import (
        Acceptance,
        AttemptView,
        Band,
        BandKey,
        Census,
        Claim,
        HandlerEntry,
        Lane,
        NewTask,
        NodeView,
        Orphan,
        Page,
        Paused,
        Progress,
        Settlement,
        Take,
        TaskFilter,
        TaskView,
        Verdict,
    )
    from runtime.core.workflow import ParentView, PassedOn, WorkflowView


class MemoryStore:
    """Implements runtime.ports.Store. `now` returns an aware datetime that never has to move by itself."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._leases = Leases()
        self._names = Names()
        self._tables = Tables(lambda band: self._names.band(band).lane)
        self._schedules = Schedules(self._tables, self._leases)
        self._limits = Limits(self._tables, self._names)
        self._identity = uuid4()

    async def now(self) -> datetime:
        return self._now()

    async def identity(self) -> UUID:
        return self._identity

    # -- TaskStore -----------------------------------------------------------------------------------

    async def accept(self, groups: Sequence[Sequence[NewTask]]) -> builtins.list[builtins.list[Acceptance]]:
        return accepting.accept(self._tables, self._leases, groups, self._now())

    async def claim(self, offers: Sequence[tuple[UUID, int]], incarnation: int) -> builtins.list[Claim]:
        now = self._now()
        if not self._leases.alive(incarnation, now):
            return []
        return working.claim(self._tables, offers, incarnation, now)

    async def pull(
        self, takes: Sequence[Take], incarnation: int, *, alone: bool = False
    ) -> builtins.list[Claim]:
        now = self._now()
        if not self._leases.alive(incarnation, now):
            return []
        return working.pull(self._tables, takes, incarnation, now, alone=alone)

    async def settle(self, settlements: Sequence[Settlement]) -> builtins.list[Verdict]:
        return working.settle(self._tables, self._leases, settlements, self._now())

    async def orphans(self, limit: int) -> builtins.list[Orphan]:
        return working.orphans(self._tables, self._leases, limit)

    async def held(self, incarnation: int) -> builtins.list[Orphan]:
        return working.held(self._tables, self._leases, incarnation)

    async def expire(self, limit: int) -> builtins.list[UUID]:
        return working.expire(self._tables, limit, self._now())

    async def report_progress(self, incarnation: int, reports: Mapping[tuple[UUID, int], Progress]) -> None:
        working.report_progress(self._tables, incarnation, reports)

    async def cancel_requests(self, incarnation: int) -> builtins.list[tuple[UUID, int]]:
        return working.cancel_requests(self._tables, incarnation)

    # -- KeyedStore ----------------------------------------------------------------------------------

    async def mail(self, after: UUID, limit: int) -> builtins.list[Mail]:
        return keyed.mail(self._tables, after, limit, self._now())

    async def begin_turns(
        self, asks: Sequence[Ask], bands: Sequence[int], incarnation: int, *, alone: bool = False
    ) -> builtins.list[Turn]:
        now = self._now()
        if not self._leases.alive(incarnation, now):
            return []
        return keyed.begin(self._tables, asks, bands, incarnation, now, alone=alone)

    async def end_turns(self, turns: Sequence[TurnEnd]) -> builtins.list[Verdict]:
        return keyed.end(self._tables, self._leases, turns, self._now())

    # -- LimitedStore --------------------------------------------------------------------------------

    async def limits(self) -> builtins.list[HandlerLimit]:
        return self._limits.all()

    async def declare_limits(self, limits: Mapping[str, Limit]) -> None:
        self._limits.declare(limits)

    async def set_limit(self, handler: str, limit: Limit, by: str) -> None:
        self._limits.set(handler, limit, by)

    async def unset_limit(self, handler: str) -> bool:
        return self._limits.unset(handler)

    async def pull_limited(
        self, takes: Sequence[LimitedTake], limit: int, incarnation: int, *, alone: bool = False
    ) -> LimitedPull:
        now = self._now()
        if not self._leases.alive(incarnation, now):
            return LimitedPull()
        return self._limits.pull(takes, limit, incarnation, now, alone=alone)

    async def forget_limiters(self, older_than_s: float, limit: int) -> int:
        return self._limits.forget(older_than_s, limit, self._now())

    # -- Workflows -----------------------------------------------------------------------------------

    async def pass_on(self, limit: int) -> PassedOn:
        return workflows.pass_on(self._tables, limit, self._now())

    async def tidy_dependences(self) -> None:
        workflows.tidy(self._tables)

    async def parents(self, ids: Sequence[UUID], inline_bytes: int) -> builtins.list[ParentView]:
        return workflows.parents(self._reader(), ids, inline_bytes)

    async def workflow(self, workflow_id: UUID, tasks: int) -> WorkflowView | None:
        return workflows.workflow(self._reader(), workflow_id, tasks)

    async def workflows(
        self, tenant: str, limit: int, before: UUID | None = None
    ) -> builtins.list[WorkflowView]:
        return workflows.workflows(self._reader(), tenant, limit, before)

    # -- TaskControl ---------------------------------------------------------------------------------

    async def cancel(self, task_id: UUID) -> TaskView:
        control.cancel(self._tables, task_id, self._now())
        return self._reader().existing(task_id)

    async def cancel_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        matching = self._reader().unfinished(which, limit)
        if dry_run:
            return len(matching), 0
        for task_id in matching:
            control.cancel(self._tables, task_id, self._now())
        return len(matching), len(matching)

    async def prioritize(self, task_id: UUID, lane: Lane) -> TaskView:
        control.prioritize(self._tables, self._names, task_id, lane, self._now())
        return self._reader().existing(task_id)

    async def prioritize_matching(
        self, which: TaskFilter, limit: int, *, lane: Lane, dry_run: bool = False
    ) -> tuple[int, int]:
        matching = self._reader().waiting(replace(which, not_lane=lane), limit)
        if dry_run:
            return len(matching), 0
        for task_id in matching:
            control.prioritize(self._tables, self._names, task_id, lane, self._now())
        return len(matching), len(matching)

    async def replay(self, task_id: UUID) -> TaskView:
        control.replay(self._tables, [task_id], self._now())
        return self._reader().existing(task_id)

    async def replay_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        matching = self._reader().dead_letters(which, limit)
        if dry_run:
            return len(matching), 0
        control.replay(self._tables, matching, self._now())
        return len(matching), len(matching)

    async def purge_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        matching = self._reader().dead_letters(which, limit)
        if dry_run:
            return len(matching), 0
        for task_id in matching:
            self._tables.delete(task_id)
        return len(matching), len(matching)

    async def forget(self, *, finished_before_s: float, keys_before_s: float, limit: int) -> int:
        return control.forget(
            self._tables,
            finished_before_s=finished_before_s,
            keys_before_s=keys_before_s,
            limit=limit,
            now=self._now(),
        )

    # -- TaskQueries ---------------------------------------------------------------------------------

    async def get(self, task_id: UUID) -> TaskView | None:
        return self._reader().view(task_id)

    async def get_many(self, ids: Sequence[UUID]) -> builtins.list[TaskView]:
        return self._reader().views(ids)

    async def finished(self, ids: Sequence[UUID]) -> builtins.list[TaskView]:
        return self._reader().finished(ids)

    async def attempts(self, task_id: UUID) -> builtins.list[AttemptView]:
        return self._reader().attempts(task_id)

    async def list(self, which: TaskFilter, limit: int, before: UUID | None = None) -> Page:
        return self._reader().page(which, limit, before)

    async def census(self) -> Census:
        return self._reader().census()

    async def results_in_use(self, attempts: Sequence[tuple[UUID, int]]) -> builtins.list[tuple[UUID, int]]:
        return self._reader().results_in_use(attempts)

    # -- Members -------------------------------------------------------------------------------------

    async def join(self, node: str, lease_s: float, about: Mapping[str, object]) -> int:
        return self._leases.join(node, lease_s, about, self._now())

    async def renew(
        self, incarnation: int, lease_s: float, load: Mapping[str, object] | None = None
    ) -> float:
        return self._leases.renew(incarnation, lease_s, self._now(), load)

    async def set_state(self, incarnation: int, state: str) -> None:
        self._leases.set_state(incarnation, state, self._now())

    async def bury(self, by: int, lease_s: float) -> builtins.list[int]:
        return self._leases.bury(by, lease_s, self._now())

    async def request_drain(self, node: str) -> bool:
        return self._leases.request_drain(node)

    async def nodes(self) -> builtins.list[NodeView]:
        return self._leases.views(self._now())

    # -- Catalog -------------------------------------------------------------------------------------

    async def intern(self, keys: Iterable[BandKey]) -> builtins.list[Band]:
        return self._names.intern(keys)

    async def bands(self, after: int = 0) -> builtins.list[Band]:
        return self._names.bands(after)

    async def place_unbanded(self, most: int) -> builtins.list[int]:
        """Nobody enqueues by SQL here."""
        return []

    async def publish(self, entries: Sequence[HandlerEntry]) -> None:
        self._names.publish(entries)

    async def handlers(self) -> builtins.list[HandlerEntry]:
        return self._names.handlers()

    async def paused(self) -> Paused:
        return self._names.paused()

    async def set_paused(self, handler: str, *, paused: bool) -> bool:
        return self._names.set_paused(handler, paused=paused)

    async def set_tenant_paused(self, tenant: str, *, paused: bool) -> None:
        self._names.set_tenant_paused(tenant, paused=paused)

    async def tenant_weights(self) -> dict[str, int]:
        return self._names.tenant_weights()

    async def set_tenant_weight(self, tenant: str, weight: int) -> None:
        self._names.set_tenant_weight(tenant, weight)

    # -- Schedules -----------------------------------------------------------------------------------

    async def put_schedule(self, spec: ScheduleSpec, next_fire_at: datetime | None) -> None:
        self._schedules.put(spec, next_fire_at, self._now())

    async def schedule(self, tenant: str, name: str) -> Schedule | None:
        return self._schedules.get(tenant, name)

    async def schedules(self, tenant: str, limit: int, after: str = "") -> builtins.list[Schedule]:
        return self._schedules.page(tenant, limit, after)

    async def due_schedules(self, within_s: float, limit: int) -> tuple[datetime, builtins.list[Schedule]]:
        now = self._now()
        return now, self._schedules.due(within_s, limit, now)

    async def fire(self, firing: Firing) -> builtins.list[UUID] | None:
        return self._schedules.fire(firing, self._now())

    async def set_schedule_paused(
        self, tenant: str, name: str, revision: int, *, paused: bool, next_fire_at: datetime | None
    ) -> bool:
        return self._schedules.set_paused(
            tenant, name, revision, paused=paused, next_fire_at=next_fire_at, now=self._now()
        )

    async def delete_schedule(self, tenant: str, name: str) -> bool:
        return self._schedules.delete(tenant, name)

    # ------------------------------------------------------------------------------------------------

    def _reader(self) -> Reader:
        return Reader(self._tables, self._leases, self._names, self._now())
