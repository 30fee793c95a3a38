"""Schedules in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from runtime.adapters.memory import accepting
from runtime.core.schedule import Firing, Schedule, ScheduleSpec
from runtime.core.task import Stored

if TYPE_CHECKING:
    from uuid import UUID

    from runtime.adapters.memory.leases import Leases
    from runtime.adapters.memory.tables import Tables


@dataclass(slots=True)
class _Row:
    schedule: Schedule
    open: tuple[UUID, ...] = ()


class Schedules:
    def __init__(self, tables: Tables, leases: Leases) -> None:
        self._tables = tables
        self._leases = leases
        self._rows: dict[tuple[str, str], _Row] = {}

    def put(self, spec: ScheduleSpec, next_fire_at: datetime | None, now: datetime) -> None:
        row = self._rows.get((spec.tenant, spec.name))
        if row is None:
            made = Schedule(spec=spec, revision=1, created_at=now, changed_at=now, next_fire_at=next_fire_at)
            self._rows[spec.tenant, spec.name] = _Row(made)
            return
        old = row.schedule
        if _rule(old.spec) == _rule(spec):
            next_fire_at = old.next_fire_at
        row.schedule = replace(
            old, spec=spec, revision=old.revision + 1, changed_at=now, next_fire_at=next_fire_at
        )

    def get(self, tenant: str, name: str) -> Schedule | None:
        row = self._rows.get((tenant, name))
        return None if row is None else self._read(row)

    def page(self, tenant: str, limit: int, after: str) -> list[Schedule]:
        names = sorted(name for owner, name in self._rows if owner == tenant and name > after)
        return [self._read(self._rows[tenant, name]) for name in names[:limit]]

    def due(self, within_s: float, limit: int, now: datetime) -> list[Schedule]:
        until = now + timedelta(seconds=within_s)
        found = [
            (at, row)
            for row in self._rows.values()
            if row.schedule.paused_at is None
            and (at := row.schedule.next_fire_at) is not None
            and at <= until
        ]
        return [self._read(row) for _, row in sorted(found, key=lambda pair: pair[0])[:limit]]

    def fire(self, firing: Firing, now: datetime) -> list[UUID] | None:
        row = self._at(firing.tenant, firing.name, firing.revision)
        if row is None:
            return None
        old, tasks = row.schedule, firing.tasks
        row.schedule = replace(
            old,
            revision=old.revision + 1,
            next_fire_at=firing.next_fire_at,
            last_fire_at=firing.fired_at or old.last_fire_at,
            last_task_id=tasks[-1].id if tasks else old.last_task_id,
            fired=old.fired + len(tasks),
            missed=old.missed + firing.missed,
            skipped=old.skipped + firing.skipped,
        )
        row.open = firing.open
        answers = accepting.accept(self._tables, self._leases, [[task] for task in tasks], now)
        return [answer.id for [answer] in answers if isinstance(answer, Stored)]

    def set_paused(
        self,
        tenant: str,
        name: str,
        revision: int,
        *,
        paused: bool,
        next_fire_at: datetime | None,
        now: datetime,
    ) -> bool:
        row = self._at(tenant, name, revision)
        if row is None:
            return False
        old = row.schedule
        row.schedule = replace(
            old,
            paused_at=(old.paused_at or now) if paused else None,
            next_fire_at=next_fire_at,
            changed_at=now,
            revision=old.revision + 1,
        )
        return True

    def delete(self, tenant: str, name: str) -> bool:
        return self._rows.pop((tenant, name), None) is not None

    def _at(self, tenant: str, name: str, revision: int) -> _Row | None:
        row = self._rows.get((tenant, name))
        return row if row is not None and row.schedule.revision == revision else None

    def _read(self, row: _Row) -> Schedule:
        waiting, running = self._tables.waiting, self._tables.running
        unended = tuple(task_id for task_id in row.open if task_id in waiting or task_id in running)
        return replace(row.schedule, unended=unended)


def _rule(spec: ScheduleSpec) -> tuple[str | None, float | None, str]:
    return spec.cron, spec.every_s, spec.time_zone
