"""What people and retention do to tasks: cancel, replay, purge, forget."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from runtime.adapters.memory.rows import AttemptRow, OutcomeRow, WaitingRow
from runtime.adapters.memory.workflows import blocked, link
from runtime.core.keyed import actor_of
from runtime.core.task import AttemptKind, Status
from runtime.errors import TaskNotFound, WrongState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from runtime.adapters.memory.names import Names
    from runtime.adapters.memory.tables import Tables
    from runtime.core.task import Lane


def cancel(tables: Tables, task_id: UUID, now: datetime) -> None:
    """Raises TaskNotFound."""
    if task_id in tables.waiting:
        tables.end_waiting(task_id, now)
        return
    running = tables.running.get(task_id)
    if running is not None:
        running.cancel_requested_at = running.cancel_requested_at or now
    elif task_id not in tables.tasks:
        raise TaskNotFound(f"no task {task_id}")


def prioritize(tables: Tables, names: Names, task_id: UUID, lane: Lane, now: datetime) -> None:
    """Raises TaskNotFound, WrongState."""
    waiting = tables.waiting.get(task_id)
    if waiting is not None:
        [band] = names.intern([replace(names.band(waiting.band).key, lane=lane)])
        tables.move_to_band(task_id, band.id)
        return
    if task_id not in tables.tasks:
        raise TaskNotFound(f"no task {task_id}")
    outcome = tables.outcomes.get(task_id)
    state = _state(tables, task_id, now) if outcome is None else outcome.status.state
    raise WrongState(f"task {task_id} is {state}; only waiting tasks can be given another priority", state)


def replay(tables: Tables, ids: Sequence[UUID], now: datetime) -> None:
    """What depends on others is blocked until they have ended, those too that are replayed with it.

    Raises TaskNotFound, WrongState.
    """
    for task_id in ids:
        _reopen(tables, task_id, now)
    for task_id in ids:
        if parents := tables.tasks[task_id].new.parents:
            tables.wait(blocked(tables.unwait(task_id), parents))
            link(tables, task_id, parents)


def _reopen(tables: Tables, task_id: UUID, now: datetime) -> None:
    task = tables.tasks.get(task_id)
    if task is None:
        raise TaskNotFound(f"no task {task_id}")
    outcome = tables.outcomes.get(task_id)
    if outcome is None or outcome.status is Status.SUCCEEDED:
        state = _state(tables, task_id, now) if outcome is None else outcome.status.state
        raise WrongState(f"task {task_id} is {state}; only failed and cancelled tasks can be replayed", state)
    tables.drop_outcome(task_id)
    if outcome.incarnation is not None:
        tables.note(_set_aside(outcome))
    expires_at = task.new.expires_at
    actor = actor_of(task.new)
    tables.wait(
        WaitingRow(
            id=task_id,
            due=now,
            seq=task.seq,
            expires_at=None if expires_at is None or expires_at <= now else expires_at,
            band=task.new.band,
            attempt=outcome.attempt + 1,
            actor=actor,
            lane=None if actor is None else tables.lane_of(task.new.band),
            limiter=task.new.limiter,
        )
    )


def _state(tables: Tables, task_id: UUID, now: datetime) -> str:
    waiting = tables.waiting.get(task_id)
    if waiting is None:
        return "running"
    if waiting.open_parents is not None:
        return "blocked"
    return "ready" if waiting.due <= now else "scheduled"


def _set_aside(outcome: OutcomeRow) -> AttemptRow:
    return AttemptRow(
        id=outcome.id,
        incarnation=outcome.incarnation,
        started_at=outcome.started_at,
        ended_at=outcome.finished_at,
        attempt=outcome.attempt,
        kind=AttemptKind.REPLAYED,
        error=outcome.error,
    )


def forget(
    tables: Tables, *, finished_before_s: float, keys_before_s: float, limit: int, now: datetime
) -> int:
    finished_before = now - timedelta(seconds=finished_before_s)
    keys_before = now - timedelta(seconds=keys_before_s)
    going: list[UUID] = []
    for finished_at, task_id in tables.finished.ascending():
        if finished_at >= finished_before or len(going) >= limit:
            break
        task = tables.tasks[task_id]
        if task_id in tables.dependences:  # a child may still want its result
            continue
        unique = task.new.unique
        kept_until = tables.unique[unique.id].kept_until if unique and tables.is_holder(task.new) else None
        if kept_until is not None and kept_until > now:
            continue
        if task.new.idempotency_key is None or task.created_at < keys_before:
            going.append(task_id)
    for task_id in going:
        tables.delete(task_id)
    return len(going)
