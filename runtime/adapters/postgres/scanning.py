"""Which way into the record a filter opens, as data: nothing here speaks to the database.

Law: every way walks one index from new to old and looks at a bounded number of rows per statement, so that a
filter that matches little never reads the whole history. A filter that allows several states walks several
ways, merged by id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runtime.adapters.postgres.queries import SQL, Query
from runtime.core.task import State, Status, TaskFilter, TaskView

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

_WAITING: Final = {State.BLOCKED: 0, State.SCHEDULED: 1, State.READY: 2}  # as scan_waiting numbers them
_EVERY_STATE: Final = frozenset(State)


@dataclass(frozen=True, slots=True)
class Way:
    """A statement with the values that follow $1 before and $2 rows to look at.

    `exact`: what it returns matches in all fields that the filter may set, but for what has changed since.
    """

    query: Query
    values: tuple[Any, ...]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Bands:
    """What a filter's handler and tenant come to. `ids` None: any band."""

    ids: list[int] | None
    tenants: list[str]


def ways(which: TaskFilter, bands: Bands) -> list[Way]:
    """For a list. Empty: nothing can match."""
    by_key = _by_key(which, bands)
    if by_key is not None:
        return by_key
    if not which.states and which.error_type is None:
        return [Way(SQL.scan_tasks, _common(which, bands))]
    return _by_states(which, bands, frozenset(which.states) or _EVERY_STATE)


def unfinished(which: TaskFilter) -> frozenset[State]:
    """What waits and what runs, of the states that the filter allows."""
    return frozenset(which.states or _EVERY_STATE) & {*_WAITING, State.RUNNING}


def unstarted(which: TaskFilter) -> frozenset[State]:
    """What waits, of the states that the filter allows."""
    return frozenset(which.states or _EVERY_STATE) & _WAITING.keys()


def dead_letters(which: TaskFilter) -> frozenset[State]:
    """Failed tasks; cancelled ones if the filter's states say so."""
    return frozenset(which.states or {State.FAILED}) & {State.FAILED, State.CANCELLED}


def ways_within(which: TaskFilter, bands: Bands, states: frozenset[State]) -> list[Way]:
    """For a change to many: tasks in one of `states`; what runs only where nobody has asked to cancel it."""
    if not states:
        return []
    by_key = _by_key(which, bands)
    return _by_states(which, bands, states, asked=False) if by_key is None else by_key


def matches(view: TaskView, which: TaskFilter, changing: frozenset[State] | None = None) -> bool:
    """Whether the task, as it is now, is one of these. A dumb and complete second look.

    `changing`: for a change to tasks in one of these states; what runs only where nobody has asked to cancel it.
    """
    return (
        (changing is None or (view.state in changing and view.cancel_requested_at is None))
        and (not which.ids or view.id in which.ids)
        and which.tenant in (None, view.tenant)
        and (not which.states or view.state in which.states)
        and which.handler in (None, view.handler)
        and which.actor_key in (None, view.actor_key)
        and which.idempotency_key in (None, view.idempotency_key)
        and which.workflow_id in (None, view.workflow_id)
        and (which.created_after is None or view.created_at > which.created_after)
        and (which.created_before is None or view.created_at < which.created_before)
        and (which.not_lane is None or view.lane is not which.not_lane)
        and (which.error_type is None or (view.error is not None and view.error.type == which.error_type))
    )


def _by_key(which: TaskFilter, bands: Bands) -> list[Way] | None:
    """Where the filter names what an index is made of."""
    if which.ids:
        return [Way(SQL.scan_ids, (sorted(set(which.ids)),), exact=False)]
    if which.idempotency_key is not None:
        return [Way(SQL.scan_key, (bands.tenants, which.idempotency_key), exact=False)]
    if which.actor_key is not None:
        return [Way(SQL.scan_actor, (bands.tenants, which.actor_key), exact=False)]
    if which.workflow_id is not None:
        return [Way(SQL.scan_workflow, (which.workflow_id,), exact=False)]
    return [] if bands.ids == [] else None


def _by_states(
    which: TaskFilter, bands: Bands, states: frozenset[State], *, asked: bool | None = None
) -> list[Way]:
    common = _common(which, bands)
    found = []
    if which.error_type is None:
        if waiting := sorted(number for state, number in _WAITING.items() if state in states):
            which_of = None if len(waiting) == len(_WAITING) else waiting
            found.append(Way(SQL.scan_waiting, (*common, which_of)))
        if State.RUNNING in states:
            found.append(Way(SQL.scan_running, (*common, asked)))
        if State.SUCCEEDED in states:
            found.append(Way(SQL.scan_succeeded, common))
    found += [
        Way(SQL.scan_unsuccessful, (*common, int(status), which.error_type))
        for status in (Status.FAILED, Status.CANCELLED)
        if status.state in states
    ]
    return found


def _common(which: TaskFilter, bands: Bands) -> tuple[list[int] | None, datetime | None, datetime | None]:
    return bands.ids, which.created_after, which.created_before


# -- merging -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one way returned: ids that match, new to old; the last row looked at; whether the way ended."""

    ids: Sequence[UUID]
    last: UUID | None
    ended: bool


def merge(stretches: Sequence[Stretch]) -> tuple[list[UUID], UUID | None]:
    """The ids, new to old, down to where every way has looked; and that place, None at the end of all."""
    places = [stretch.last for stretch in stretches if not stretch.ended and stretch.last is not None]
    horizon = max(places, default=None)
    ids = {
        task_id for stretch in stretches for task_id in stretch.ids if horizon is None or task_id >= horizon
    }
    return sorted(ids, reverse=True), horizon
