"""What the record knows of tasks, as the JSON of the contract.

Law: stored JSON (results, metadata) goes out as the bytes it is, never parsed and written again. Instants are
UTC with Z. Fields that the contract marks with "?" are left out when there is nothing to say; others never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import orjson
from aiohttp import web

from node.http.cluster import is_live, names_in
from runtime.core.objects import Reference
from runtime.core.task import Codec, Lane, Reason, State, Stored, TaskView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from node.http.service import Service, Submitted
    from runtime.core.task import AttemptView, ErrorInfo, HandlerEntry, NodeView, Page
    from runtime.core.workflow import WorkflowTask, WorkflowView

_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_LANES: Final = {lane: lane.name.lower() for lane in Lane}
_REASONS: Final = {
    Reason.NONE: "due_later",
    Reason.RETRY_BACKOFF: "retry_backoff",
    Reason.SNOOZED: "snoozed",
    Reason.RELEASED: "due_later",
    Reason.CRASHED: "retry_backoff",
}
_EMPTY: Final = orjson.Fragment(b"{}")


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z),
        status=status,
        headers=_HEADERS if headers is None else {**_HEADERS, **headers},
    )


def _plain(value: object) -> object:
    if isinstance(value, UUID):  # a driver's own subclass
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# -- one task ---------------------------------------------------------------------------------------


def task_json(view: TaskView, service: Service) -> dict[str, object]:
    task: dict[str, object] = {
        "id": view.id,
        "handler": view.handler,
        "state": view.state.value,
        "tenant": view.tenant,
        "idempotency_key": view.idempotency_key,
        "actor_key": view.actor_key,
        "limit_key": view.limit_key,
        "priority": _LANES[view.lane],
        "requires": view.requires,
        "prefers": view.prefers,
        "attempt": view.attempt,
        "failures": view.failures,
        "crashes": view.crashes,
        "max_attempts": view.max_attempts,
        "timeout_s": view.timeout_s,
        "slot": view.slot,
        "home": service.home(view),
        "node": view.node,
        "created_at": view.created_at,
        "run_at": view.run_at,
        "started_at": view.started_at,
        "finished_at": view.finished_at,
        "trace_id": _trace_id(view.trace_context),
        "created_by": view.created_by or None,
        "metadata": _EMPTY if view.metadata is None else orjson.Fragment(view.metadata),
    }
    if view.state in _WAITING:
        task["waiting"] = _waiting(view, service)
    elif view.state is State.SUCCEEDED:
        _add_result(task, view)
    elif view.progress is not None and view.progress.result_waits:
        task["waiting"] = {"reason": "result_store", "detail": view.progress.result_waits}
    _add_rare(task, view)
    return task


_WAITING: Final = frozenset({State.BLOCKED, State.SCHEDULED, State.READY})


def _add_result(task: dict[str, object], view: TaskView) -> None:
    if view.result is None:
        return
    if view.result_codec.is_apart:
        lies = Reference.from_bytes(view.result)
        kind = "application/json" if view.result_codec.inner is Codec.JSON else "application/octet-stream"
        task["result_ref"] = {"bytes": lies.size, "sha256": lies.sha256, "content_type": kind}
    elif view.result_codec is Codec.BYTES:
        task["result_bytes"] = len(view.result)
    else:
        task["result"] = orjson.Fragment(view.result)


def _add_rare(task: dict[str, object], view: TaskView) -> None:
    if view.expires_at is not None:
        task["expires_at"] = view.expires_at
    if view.cancel_requested_at is not None:
        task["cancel_requested_at"] = view.cancel_requested_at
    if view.workflow_id is not None:
        task["workflow_id"] = view.workflow_id
    if view.name is not None:
        task["name"] = view.name
    if view.parents:
        task["depends_on"] = view.parents
        task["on_parent_failure"] = view.on_parent_failure.name.lower()
    if view.error is not None:
        task["error"] = {**_error(view.error), "attempt": view.attempt}
    if view.progress is not None:
        progress = view.progress
        task["progress"] = {"done": progress.done, "total": progress.total, "message": progress.message}


def _waiting(view: TaskView, service: Service) -> dict[str, object]:
    if view.state is State.BLOCKED:
        total = len(view.parents)
        what = "tasks that it depends on have" if view.open_parents != 1 else "task that it depends on has"
        of_total = f" of {total}" if total != view.open_parents else ""
        return {"reason": "parents", "detail": f"{view.open_parents}{of_total} {what} not ended"}
    if view.state is State.READY:
        reason, detail = service.waits_for(view)
        return {"reason": reason, "detail": detail}
    return {
        "reason": _REASONS[view.reason],
        "detail": _why_later(view),
        "until": view.due or view.run_at,
    }


def _why_later(view: TaskView) -> str:
    match view.reason:
        case Reason.RETRY_BACKOFF:
            return f"failed {_times(view.failures)}; {view.max_attempts} are allowed"
        case Reason.CRASHED:
            return f"its node died {_times(view.crashes)} while it ran"
        case Reason.SNOOZED:
            return "its handler asked to be called later"
        case Reason.RELEASED:
            return "a node handed it back"
        case _:
            return "was asked for at a later time"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _error(error: ErrorInfo) -> dict[str, object]:
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def _trace_id(traceparent: str | None) -> str | None:
    return None if traceparent is None else traceparent[3:35]


def accepted_view(submitted: Submitted, node: str) -> TaskView:
    """A task that was stored just now, without asking the record. Only for `Stored`."""
    task, stored, band = submitted.task, submitted.acceptance, submitted.band
    if not isinstance(stored, Stored):
        raise TypeError(f"{stored} was not stored")
    born = task.born_on is not None
    later = stored.due > stored.created_at
    return TaskView(
        id=task.id,
        tenant=task.tenant,
        handler=band.handler,
        lane=band.lane,
        state=State.BLOCKED if task.parents else _first_state(born=born, later=later),
        slot=task.slot,
        attempt=1 if born else 0,
        failures=0,
        crashes=0,
        max_attempts=task.max_attempts,
        timeout_s=task.timeout_s,
        created_at=stored.created_at,
        run_at=stored.due,
        requires=band.requires,
        prefers=task.prefers,
        idempotency_key=task.idempotency_key,
        actor_key=task.actor_key,
        limit_key=task.limit_key,
        started_at=stored.created_at if born else None,
        node=node if born else None,
        expires_at=task.expires_at,
        due=None if task.parents else stored.due,
        name=task.name,
        parents=task.parents,
        on_parent_failure=task.on_parent_failure,
        open_parents=len(task.parents),
        metadata=task.metadata,
        created_by=task.created_by,
        trace_context=task.trace_context,
        workflow_id=task.workflow_id,
    )


def _first_state(*, born: bool, later: bool) -> State:
    return State.RUNNING if born else State.SCHEDULED if later else State.READY


# -- workflows --------------------------------------------------------------------------------------


def workflow_json(view: WorkflowView, *, with_tasks: bool = True) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": view.id,
        "state": view.state,
        "created_at": view.created_at,
        "total": view.total,
        "ended": view.ended,
        "counts": {state.value: view.counts[state] for state in State if view.counts.get(state)},
    }
    if with_tasks:
        shown["tasks"] = [_workflow_task(task) for task in view.tasks]
    return shown


def _workflow_task(task: WorkflowTask) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": task.id,
        "name": task.name or None,
        "handler": task.handler,
        "state": task.state.value,
        "depends_on": task.parents,
        "attempt": task.attempt,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
    }
    if task.error is not None:
        shown["error"] = {"type": task.error.type, "message": task.error.message}
    return shown


# -- several ----------------------------------------------------------------------------------------


def page_json(page: Page, service: Service) -> dict[str, object]:
    return {"tasks": [task_json(view, service) for view in page.tasks], "next_cursor": page.next_cursor}


def attempts_json(attempts: Sequence[AttemptView], view: TaskView) -> list[dict[str, object]]:
    """All attempts, oldest first; the one that runs or committed the outcome is told by the task itself."""
    rows: list[dict[str, object]] = [
        {
            "attempt": each.attempt,
            "kind": each.kind.name.lower(),
            "node": each.node,
            "started_at": each.started_at,
            "ended_at": each.ended_at,
            "error": None if each.error is None else _error(each.error),
        }
        for each in attempts
    ]
    told = {each.attempt for each in attempts}
    if view.attempt and view.attempt not in told and view.state not in _WAITING:
        rows.append(
            {
                "attempt": view.attempt,
                "kind": view.state.value,
                "node": view.node,
                "started_at": view.started_at,
                "ended_at": view.finished_at,
                "error": None if view.error is None else _error(view.error),
            }
        )
    return rows


# -- handlers ----------------------------------------------------------------------------


def handler_json(entry: HandlerEntry, nodes: Sequence[NodeView]) -> dict[str, object]:
    return {
        "name": entry.name,
        "doc": entry.doc,
        "source": entry.source,
        "schema": entry.schema,
        "defaults": entry.defaults,
        "digest": entry.digest,
        "paused": entry.paused,
        "nodes": sorted(
            {node.node for node in nodes if is_live(node) and entry.name in names_in(node, "handlers")}
        ),
    }
