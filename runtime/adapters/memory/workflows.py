"""Tasks that wait for others: linking, passing on the ends of parents, reading workflows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from runtime.core.task import Reason, State, Status
from runtime.core.workflow import (
    Freed,
    ParentEnd,
    ParentView,
    PassedOn,
    WorkflowTask,
    WorkflowView,
    fate,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from runtime.adapters.memory.reading import Reader
    from runtime.adapters.memory.rows import WaitingRow
    from runtime.adapters.memory.tables import Tables

BLOCKED_UNTIL: Final = datetime(9999, 1, 1, tzinfo=UTC)


def blocked(row: WaitingRow, parents: Sequence[UUID]) -> WaitingRow:
    """The same row while these have not ended."""
    return replace(row, due=BLOCKED_UNTIL, reason=Reason.PARENTS, open_parents=len(parents))


def link(tables: Tables, child: UUID, parents: Sequence[UUID]) -> None:
    """The child, which is blocked, hears of their ends; of those that were before, at the next passing on."""
    for parent in parents:
        tables.dependences.setdefault(parent, {})[child] = False
        outcome = tables.outcomes.get(parent)
        if outcome is not None:
            tables.parent_ends.append((parent, outcome.status))
        elif parent not in tables.tasks:  # of a replayed task: not kept any more, so not waited for
            tables.parent_ends.append((parent, Status.SUCCEEDED))


def pass_on(tables: Tables, limit: int, now: datetime) -> PassedOn:
    ends_of: dict[UUID, list[ParentEnd]] = {}
    counted = 0
    ends = dict(tables.parent_ends)
    tables.parent_ends.clear()
    for parent, status in ends.items():
        children = tables.dependences.get(parent, {})
        task = tables.tasks.get(parent)
        end = ParentEnd(parent, status, "" if task is None else task.new.name or "")
        for child in [child for child, done in children.items() if not done]:
            if counted == limit:
                tables.parent_ends.append((parent, status))
                break
            counted += 1
            children[child] = True
            ends_of.setdefault(child, []).append(end)
    freed = [_count_down(tables, child, met, now) for child, met in ends_of.items()]
    return PassedOn(tuple(each for each in freed if each is not None), more=bool(tables.parent_ends))


def _count_down(tables: Tables, child: UUID, ends: Sequence[ParentEnd], now: datetime) -> Freed | None:
    row = tables.waiting.get(child)
    if row is None or row.open_parents is None:
        return None
    task = tables.tasks[child]
    decided = fate(task.new.on_parent_failure, row.open_parents, ends)
    if decided.status is not None:
        tables.end_waiting(child, now, decided.status, decided.error)
        return Freed(child, row.attempt, row.band, task.new.slot, status=decided.status, error=decided.error)
    tables.unwait(child)
    if decided.open_parents:
        tables.wait(replace(row, open_parents=decided.open_parents))
        return None
    due = max(now, task.run_at)
    tables.wait(replace(row, due=due, reason=Reason.NONE, open_parents=None))
    due_in_s = (due - now).total_seconds()
    return Freed(child, row.attempt, row.band, task.new.slot, task.new.prefers, row.actor, due_in_s)


def tidy(tables: Tables) -> None:
    """Forget dependences that were counted and whose child has ended."""
    for parent, children in list(tables.dependences.items()):
        for child, done in list(children.items()):
            if done and child not in tables.waiting and child not in tables.running:
                del children[child]
        if not children:
            del tables.dependences[parent]


# -- reading -----------------------------------------------------------------------------------------


def parents(reader: Reader, ids: Sequence[UUID], inline_bytes: int) -> list[ParentView]:
    found: list[ParentView] = []
    up_to = 0
    for parent in ids:
        view = reader.view(parent)
        if view is None:
            found.append(ParentView(parent))
            continue
        size = len(view.result or b"")
        up_to += size
        inline = up_to <= inline_bytes or view.result_codec.is_apart
        state = view.state if view.state.final or view.state is State.RUNNING else State.READY
        found.append(
            ParentView(
                parent,
                view.name or "",
                view.handler,
                state,
                view.result if inline else None,
                size,
                view.result_codec,
                view.error,
            )
        )
    return found


def workflow(reader: Reader, workflow_id: UUID, tasks: int) -> WorkflowView | None:
    ids = reader.tables.workflows.get(workflow_id)
    if not ids:
        return None
    rows = [reader.tables.tasks[task_id] for task_id in ids]
    oldest = sorted(ids, key=lambda task_id: task_id.int)[:tasks]
    return WorkflowView(
        id=workflow_id,
        tenant=rows[0].new.tenant,
        created_at=min(row.created_at for row in rows),
        counts=dict(Counter(reader.state_of(task_id) for task_id in ids)),
        tasks=tuple(_task(reader, task_id) for task_id in oldest),
    )


def _task(reader: Reader, task_id: UUID) -> WorkflowTask:
    view = reader.existing(task_id, with_result=False)
    return WorkflowTask(
        id=task_id,
        name=view.name or "",
        handler=view.handler,
        state=view.state,
        parents=view.parents,
        attempt=view.attempt,
        started_at=view.started_at,
        finished_at=view.finished_at,
        error=view.error,
    )


def workflows(reader: Reader, tenant: str, limit: int, before: UUID | None) -> list[WorkflowView]:
    ids = sorted(reader.tables.workflows, key=lambda each: each.int, reverse=True)
    found = (workflow(reader, each, 0) for each in ids if before is None or each.int < before.int)
    return [view for view in found if view is not None and view.tenant == tenant][:limit]
