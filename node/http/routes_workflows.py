"""Workflows: tasks that wait for each other, stored together."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Final
from uuid import UUID

from node.http import models, schemas, specs, views
from node.http.admission import demand_room
from node.http.auth import Scope
from node.http.filters import page_of
from node.http.problems import Problem
from node.http.reading import summary
from node.http.route import WORKFLOW_QUERY, WORKFLOWS_QUERY, Answer, Call, Route
from node.http.routes_tasks import SUBMIT_PROBLEMS, refusal
from runtime.core.canonical import pointer_to
from runtime.core.ids import ENTROPY_BYTES, IdSequence
from runtime.core.task import Duplicate, KeyReused, Refused, TaskFilter
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from node.http.service import Submitted
    from runtime.core.workflow import WorkflowView

_CANCELLED_AT_ONCE: Final = 10_000
_PLACE: Final = re.compile(r"#/(?:tasks/)?(\d+)(?=/|$)")

# -- submit -----------------------------------------------------------------------------------------


async def submit_workflow(call: Call) -> web.Response:
    with call.admitted():
        asked = specs.workflow(await call.body(), call.request.headers, call.principal, _new_id())
        names = [spec.name or "" for spec in asked]
        await demand_room(call.service, call.api.options.backlog_max, asked)
        try:
            done = await call.service.submit(asked)
        except InvalidInput as exc:
            raise _named(exc, names) from None
    if any(isinstance(one.acceptance, KeyReused | Refused) for one in done):
        raise _refused(done, names)
    ids = [one.acceptance.id if isinstance(one.acceptance, Duplicate) else one.task.id for one in done]
    duplicate = all(isinstance(one.acceptance, Duplicate) for one in done)
    workflow_id = asked[0].workflow_id
    if duplicate:
        first = await call.service.store.get(ids[0])
        workflow_id = workflow_id if first is None else first.workflow_id
    body = {"id": workflow_id, "duplicate": duplicate, "tasks": dict(zip(names, ids, strict=True))}
    return views.json_response(body, 200 if duplicate else 202, {"Location": f"/v1/workflows/{workflow_id}"})


def _new_id() -> UUID:
    return IdSequence().take(time.time_ns() // 1_000_000, os.urandom(ENTROPY_BYTES))[0]


def _named(exc: InvalidInput, names: Sequence[str]) -> InvalidInput:
    """With pointers into the body: the service's start with a place, where there are several tasks."""
    found = tuple((_pointer(pointer, names), detail) for pointer, detail in exc.errors)
    return InvalidInput(summary(found, len(found)) if found else exc.detail, found)


def _refused(done: Sequence[Submitted], names: Sequence[str]) -> Problem:
    problem = refusal(done, "#/tasks")
    found = [(_pointer(pointer, names), detail) for pointer, detail in problem.errors]
    return Problem(problem.slug, summary(found, len(found)), errors=found, members=problem.members)


def _pointer(pointer: str, names: Sequence[str]) -> str:
    place = _PLACE.match(pointer)
    if place is None:
        return pointer_to("#/tasks", names[0]) + pointer.removeprefix("#")
    return pointer_to("#/tasks", names[int(place[1])]) + pointer[place.end() :]


# -- look and act -----------------------------------------------------------------------------------


async def get_workflow(call: Call) -> web.Response:
    view = await _existing(call, call.query.get("tasks", models.WORKFLOW_TASKS_DEFAULT))
    return views.json_response(views.workflow_json(view))


async def list_workflows(call: Call) -> web.Response:
    limit, before = page_of(call.query)
    found = await call.service.store.workflows(call.principal.tenant, limit, before)
    cursor = found[-1].id if len(found) == limit else None
    rows = [views.workflow_json(view, with_tasks=False) for view in found]
    return views.json_response({"workflows": rows, "next_cursor": cursor})


async def cancel_workflow(call: Call) -> web.Response:
    """Again and again while something is left to cancel: a task that ends meanwhile may have freed or made others."""
    workflow_id = (await _existing(call, 0)).id
    which = TaskFilter(tenant=call.principal.tenant, workflow_id=workflow_id)
    end_s = time.monotonic() + call.api.options.bulk_s
    while time.monotonic() < end_s:
        _, changed = await call.service.store.cancel_matching(which, _CANCELLED_AT_ONCE)
        if not changed:
            break
    view = await _existing(call, call.query.get("tasks", models.WORKFLOW_TASKS_DEFAULT))
    return views.json_response(views.workflow_json(view))


async def _existing(call: Call, tasks: int) -> WorkflowView:
    """The workflow, if it is the principal's. Raises Problem('workflow-not-found')."""
    text = call.request.match_info["id"]
    view = None
    try:
        if len(text) == 36:
            view = await call.service.store.workflow(UUID(text), tasks)
    except ValueError:
        pass
    if view is None or view.tenant != call.principal.tenant:
        raise Problem("workflow-not-found", f"there is no workflow {text!r}")
    return view


_WORKFLOW: Final = {200: Answer("The workflow.", schemas.Workflow)}
_LOCATION: Final = {"Location": "Path of the workflow."}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/workflows",
        scope=Scope.TASKS_WRITE,
        tag="workflows",
        handle=submit_workflow,
        summary="Submit tasks that wait for each other: all are stored, in one transaction, or none.",
        headers={specs.KEY_HEADER: "One key, one workflow.", "traceparent": "W3C trace context."},
        body=models.WorkflowRequest,
        body_max=models.BATCH_BYTES_MAX,
        answers={
            200: Answer("It was there already.", schemas.WorkflowSubmission, headers=_LOCATION),
            202: Answer("Stored; it will be done.", schemas.WorkflowSubmission, headers=_LOCATION),
        },
        problems=SUBMIT_PROBLEMS,
    ),
    Route(
        method="GET",
        path="/v1/workflows",
        scope=Scope.TASKS_READ,
        tag="workflows",
        handle=list_workflows,
        summary="Workflows, newest first, without their tasks.",
        parameters=WORKFLOWS_QUERY,
        answers={200: Answer("One page.", schemas.WorkflowPage)},
        problems=("invalid-request",),
    ),
    Route(
        method="GET",
        path="/v1/workflows/{id}",
        scope=Scope.TASKS_READ,
        tag="workflows",
        handle=get_workflow,
        summary="How far a workflow is, with its tasks.",
        parameters=WORKFLOW_QUERY,
        answers=_WORKFLOW,
        problems=("workflow-not-found", "invalid-request"),
    ),
    Route(
        method="POST",
        path="/v1/workflows/{id}/cancel",
        scope=Scope.TASKS_WRITE,
        tag="workflows",
        handle=cancel_workflow,
        summary="Cancel all of its tasks that have not ended; those that run are asked to.",
        parameters=WORKFLOW_QUERY,
        answers=_WORKFLOW,
        problems=("workflow-not-found", "invalid-request"),
    ),
)
