"""Schedules on PostgreSQL.

Law: a fire is one transaction: the schedule moves on under the condition of its revision, and its tasks are stored.
Who dies before the commit has done nothing, and the next who looks does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.adapters.postgres.accepting import insert
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import uuid_of
from runtime.core.schedule import CatchUp, Overlap, Schedule, ScheduleSpec

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    import asyncpg

    from runtime.adapters.postgres.connections import Connections
    from runtime.core.schedule import Firing


class Schedules:
    _connections: Connections

    async def put_schedule(self, spec: ScheduleSpec, next_fire_at: datetime | None) -> None:
        await self._connections.read.fetch(
            SQL.put_schedule, spec.tenant, spec.name, spec.cron, spec.every_s, spec.time_zone, spec.catch_up.value,
            spec.catch_up_max, spec.overlap.value, spec.task, spec.created_by, next_fire_at,
        )  # fmt: skip

    async def schedule(self, tenant: str, name: str) -> Schedule | None:
        rows = await self._connections.read.fetch(SQL.schedules, tenant, "", name, 1)
        return _schedule(rows[0]) if rows else None

    async def schedules(self, tenant: str, limit: int, after: str = "") -> list[Schedule]:
        rows = await self._connections.read.fetch(SQL.schedules, tenant, after, None, limit)
        return [_schedule(row) for row in rows]

    async def due_schedules(self, within_s: float, limit: int) -> tuple[datetime, list[Schedule]]:
        rows = await self._connections.read.fetch(SQL.due_schedules, within_s, limit)
        return rows[0]["now"], [_schedule(row) for row in rows if row["name"] is not None]

    async def fire(self, firing: Firing) -> list[UUID] | None:
        """Never repeated by itself: a second try would find its own revision gone."""
        tasks = firing.tasks
        async with self._connections.accept.session(len(tasks)) as session, session.transaction():
            moved = await session.row(
                SQL.fire, firing.tenant, firing.name, firing.revision, firing.next_fire_at, firing.fired_at,
                tasks[-1].id if tasks else None, len(tasks), firing.missed, firing.skipped, list(firing.open),
            )  # fmt: skip
            if moved is None:
                return None
            if not tasks:
                return []
            found = await insert(session, tasks)
        stored = [one.id for one in found.in_order] if found.in_order is not None else list(found.stored)
        return [uuid_of(task_id) for task_id in stored]

    async def set_schedule_paused(
        self, tenant: str, name: str, revision: int, *, paused: bool, next_fire_at: datetime | None
    ) -> bool:
        async with self._connections.read.session() as session:
            row = await session.row(SQL.set_schedule_paused, tenant, name, revision, paused, next_fire_at)
        return row is not None

    async def delete_schedule(self, tenant: str, name: str) -> bool:
        async with self._connections.read.session() as session:
            return await session.row(SQL.delete_schedule, tenant, name) is not None


def _schedule(row: asyncpg.Record) -> Schedule:
    return Schedule(
        spec=ScheduleSpec(
            name=row["name"],
            tenant=row["tenant"],
            task=row["task"],
            cron=row["cron"],
            every_s=row["every_s"],
            time_zone=row["time_zone"],
            catch_up=CatchUp(row["catch_up"]),
            catch_up_max=row["catch_up_max"],
            overlap=Overlap(row["overlap"]),
            created_by=row["created_by"],
        ),
        revision=row["revision"],
        created_at=row["created_at"],
        changed_at=row["changed_at"],
        next_fire_at=row["next_fire_at"],
        paused_at=row["paused_at"],
        last_fire_at=row["last_fire_at"],
        last_task_id=None if row["last_task_id"] is None else uuid_of(row["last_task_id"]),
        fired=row["fired"],
        missed=row["missed"],
        skipped=row["skipped"],
        unended=tuple(map(uuid_of, row["unended"])),
    )
