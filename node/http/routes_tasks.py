"""Submit, look at, wait for, cancel and retry tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from actors.authoring.options import LANES
from node.http import models, results, schemas, specs, views
from node.http.admission import demand_room
from node.http.auth import Scope
from node.http.filters import filter_of, page_of
from node.http.problems import Problem
from node.http.reading import parse, summary, validate
from node.http.route import LIST_QUERY, WAIT_QUERY, Answer, Call, Route
from runtime.core.task import Duplicate, KeyReused, NotUnique, Refused, State
from runtime.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from actors.intake.requests import TaskSpec
    from node.http.service import Submitted
    from runtime.core.task import TaskView

# -- submit -----------------------------------------------------------------------------------------


async def submit_task(call: Call) -> web.Response:
    wait_s = call.query.get("wait", 0.0)
    with call.admitted():
        spec = specs.one(await call.body(), call.request.headers, call.principal)
        [submitted] = await _accept(call, [spec], "#")
    task_id, duplicate = _found(submitted)
    view: TaskView | None
    if wait_s:
        view = await _long_poll(call, task_id, wait_s)
    elif duplicate:
        view = await call.service.store.get(task_id)
    else:
        view = views.accepted_view(submitted, call.service.node)
    if view is None:
        raise Unavailable(f"task {task_id} was deleted at this moment")
    done = duplicate or (wait_s and view.state.final)
    body = {**views.task_json(view, call.service), "duplicate": duplicate}
    return views.json_response(body, 200 if done else 202, {"Location": f"/v1/tasks/{view.id}"})


async def submit_batch(call: Call) -> web.Response:
    with call.admitted():
        asked = specs.many(await call.body(), call.request.headers, call.principal)
        done = await _accept(call, asked, "#/tasks") if asked else []
    found = [_found(submitted) for submitted in done]
    rows = [{"id": task_id, "duplicate": duplicate} for task_id, duplicate in found]
    return views.json_response({"tasks": rows}, 200 if all(duplicate for _, duplicate in found) else 202)


def _found(submitted: Submitted) -> tuple[UUID, bool]:
    """(id of the task, whether it was there before)."""
    acceptance = submitted.acceptance
    return (acceptance.id, True) if isinstance(acceptance, Duplicate) else (submitted.task.id, False)


async def _accept(call: Call, asked: Sequence[TaskSpec], place: str) -> list[Submitted]:
    """Stored or found, all of them. Raises Problem, InvalidInput with pointers below `place`."""
    await demand_room(call.service, call.api.options.backlog_max, asked)
    try:
        done = await call.service.submit(asked)
    except InvalidInput as exc:
        raise _moved(exc, place, len(asked)) from None
    if any(isinstance(s.acceptance, _REFUSALS) for s in done):
        raise refusal(done, place)
    return done


_REFUSALS: Final = (KeyReused, NotUnique, Refused)


def _moved(exc: InvalidInput, place: str, count: int) -> InvalidInput:
    """With pointers into the body: the service's start with the index only where there are several tasks."""
    if place == "#":
        return exc
    root = place if count > 1 else f"{place}/0"
    found = tuple((root + pointer.removeprefix("#"), detail) for pointer, detail in exc.errors)
    return InvalidInput(summary(found, len(found)) if found else exc.detail, found)


def refusal(done: Sequence[Submitted], place: str) -> Problem:
    """What the record refused; of a reused key both digests are told, of several the first one's."""
    found: list[tuple[str, str]] = []
    reused: tuple[Submitted, KeyReused] | None = None
    other: NotUnique | None = None
    for index, submitted in enumerate(done):
        root = place if place == "#" else f"{place}/{index}"
        match submitted.acceptance:
            case KeyReused() as refused:
                reused = reused or (submitted, refused)
                detail = f"belongs to task {refused.id}, which was asked for differently"
                found.append((f"{root}/idempotency_key", detail))
            case NotUnique(task_id) as refused:
                other = other or refused
                found.append((f"{root}/unique", f"task {task_id} stands for the same"))
            case Refused(why, pointer):
                found.append((root + pointer, why))
            case _:
                pass
    if reused is None and other is not None:
        members: dict[str, object] = {"existing_id": other.id}
        return Problem("not-unique", summary(found, len(found)), errors=found, members=members)
    if reused is None:
        return Problem("invalid-request", summary(found, len(found)), errors=found)
    members = {
        "existing_id": reused[1].id,
        "existing_digest": reused[1].existing_digest.hex(),
        "digest": (reused[0].task.digest or b"").hex(),
    }
    return Problem("idempotency-key-reused", summary(found, len(found)), errors=found, members=members)


# -- look -------------------------------------------------------------------------------------------


async def get_task(call: Call) -> web.Response:
    task_id, wait_s = call.task_id(), call.query.get("wait", 0.0)
    view = await _visible(call, task_id)
    if wait_s and not view.state.final:
        view = await _long_poll(call, task_id, wait_s) or view
    return views.json_response(views.task_json(view, call.service))


async def get_result(call: Call) -> web.StreamResponse:
    view = await _visible(call, call.task_id())
    match view.state:
        case State.SUCCEEDED:
            pass
        case State.FAILED:
            error = view.error
            detail = f"{error.type}: {error.message}" if error else "no error is on record"
            raise Problem("task-failed", detail)
        case State.CANCELLED:
            raise Problem("task-cancelled", f"task {view.id} was cancelled")
        case _:
            detail = f"task {view.id} is {view.state}"
            raise Problem("task-not-finished", detail, members={"state": view.state})
    return await results.answer(call, view)


async def list_attempts(call: Call) -> web.Response:
    task_id = call.task_id()
    view = await _visible(call, task_id)
    met = await call.service.store.attempts(task_id)
    return views.json_response({"attempts": views.attempts_json(met, view)})


async def list_tasks(call: Call) -> web.Response:
    query = call.query
    page = await call.service.store.list(filter_of(query, call.principal, "?"), *page_of(query))
    return views.json_response(views.page_json(page, call.service))


# -- act --------------------------------------------------------------------------------------------


async def cancel_task(call: Call) -> web.Response:
    task_id = call.task_id()
    await _visible(call, task_id)
    return views.json_response(views.task_json(await call.service.cancel(task_id), call.service))


async def retry_task(call: Call) -> web.Response:
    task_id = call.task_id()
    await _visible(call, task_id)
    return views.json_response(views.task_json(await call.service.retry(task_id), call.service), 202)


async def change_task(call: Call) -> web.Response:
    task_id = call.task_id()
    with call.admitted():
        change = validate(models.TASK_CHANGE, parse(await call.body()))
    await _visible(call, task_id)
    view = await call.service.prioritize(task_id, LANES[change["priority"]])
    return views.json_response(views.task_json(view, call.service))


async def _visible(call: Call, task_id: UUID) -> TaskView:
    """The task, if it is the principal's. Raises Problem('task-not-found')."""
    view = await call.service.store.get(task_id)
    if view is None or view.tenant != call.principal.tenant:
        raise Problem("task-not-found", f"there is no task {task_id}")
    return view


async def _long_poll(call: Call, task_id: UUID, wait_s: float) -> TaskView | None:
    return await call.api.long_polls.wait(call.service, call.request, task_id, wait_s)


_TASK: Final = Answer("The task.", schemas.Task)
_SUBMISSION: Final = schemas.Submission
_LOCATION: Final = {"Location": "Path of the task."}
SUBMIT_PROBLEMS: Final = (
    "malformed-json", "request-timeout", "too-large", "unsupported-media-type", "invalid-request",
    "idempotency-key-reused", "not-unique", "encryption-not-configured", "backlog-full", "overloaded",
)  # fmt: skip

_LARGE_REQUEST: Final = {
    "Range": "bytes=FIRST-LAST, of a large result.",
    "If-Range": "Its ETag: the range only if it still is that one.",
    "If-None-Match": "Its ETag.",
}
_LARGE_ANSWER: Final = {
    "ETag": "Of a large result: its SHA-256.",
    results.DIGEST_HEADER: "Of a large result: its SHA-256 in hexadecimal.",
}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/tasks",
        scope=Scope.TASKS_WRITE,
        tag="tasks",
        handle=submit_task,
        summary="Submit a task. After a 5xx or a broken connection repeat it with the same idempotency key.",
        parameters=WAIT_QUERY,
        headers={specs.KEY_HEADER: "Equals the field idempotency_key.", "traceparent": "W3C trace context."},
        body=models.TaskRequest,
        body_max=models.TASK_BYTES_MAX,
        answers={
            200: Answer(
                "Was there already (by its key, or as it is unique), or became final in time.",
                _SUBMISSION,
                headers=_LOCATION,
            ),
            202: Answer("Stored; it will be done.", _SUBMISSION, headers=_LOCATION),
        },
        problems=SUBMIT_PROBLEMS,
    ),
    Route(
        method="POST",
        path="/v1/tasks/batch",
        scope=Scope.TASKS_WRITE,
        tag="tasks",
        handle=submit_batch,
        summary="Submit many tasks: all are stored, in one transaction, or none.",
        headers={"traceparent": "W3C trace context."},
        body=models.BatchRequest,
        body_max=models.BATCH_BYTES_MAX,
        answers={
            200: Answer("All of them were there already.", schemas.Batch),
            202: Answer("Stored; they will be done.", schemas.Batch),
        },
        problems=SUBMIT_PROBLEMS,
    ),
    Route(
        method="GET",
        path="/v1/tasks",
        handle=list_tasks,
        summary="Tasks that match, newest first, results left out.",
        parameters=LIST_QUERY,
        answers={200: Answer("One page.", schemas.TaskPage)},
        problems=("invalid-request",),
        scope=Scope.TASKS_READ,
        tag="tasks",
    ),
    Route(
        method="GET",
        path="/v1/tasks/{id}",
        handle=get_task,
        summary="One task; with `wait` as soon as it is final.",
        parameters=WAIT_QUERY,
        answers={200: _TASK},
        problems=("task-not-found", "invalid-request"),
        scope=Scope.TASKS_READ,
        tag="tasks",
    ),
    Route(
        method="PATCH",
        path="/v1/tasks/{id}",
        scope=Scope.TASKS_WRITE,
        tag="tasks",
        handle=change_task,
        summary="Give a waiting task another priority.",
        body=models.TaskChange,
        body_max=models.CHANGE_BYTES_MAX,
        answers={200: _TASK},
        problems=(
            "malformed-json",
            "request-timeout",
            "too-large",
            "unsupported-media-type",
            "invalid-request",
            "task-not-found",
            "wrong-state",
            "overloaded",
        ),
    ),
    Route(
        method="GET",
        path="/v1/tasks/{id}/result",
        handle=get_result,
        summary="The result as it was stored. Large ones are streamed.",
        headers=_LARGE_REQUEST,
        answers={
            200: Answer(
                "JSON, or application/octet-stream for bytes.", content_type="*/*", headers=_LARGE_ANSWER
            ),
            206: Answer("The range of a large result.", content_type="*/*", headers=_LARGE_ANSWER),
            304: Answer("It is the one that the client has.", content_type="*/*"),
        },
        problems=(
            "task-not-found",
            "task-not-finished",
            "task-failed",
            "task-cancelled",
            "result-expired",
            "range-not-satisfiable",
            "overloaded",
        ),
        scope=Scope.TASKS_READ,
        tag="tasks",
    ),
    Route(
        method="GET",
        path="/v1/tasks/{id}/attempts",
        handle=list_attempts,
        summary="What each attempt met.",
        answers={200: Answer("All attempts.", schemas.Attempts)},
        problems=("task-not-found",),
        scope=Scope.TASKS_READ,
        tag="tasks",
    ),
    Route(
        method="POST",
        path="/v1/tasks/{id}/cancel",
        scope=Scope.TASKS_WRITE,
        tag="tasks",
        handle=cancel_task,
        summary="Cancel: a waiting task ends now, a running one is asked to, a final one stays as it is.",
        answers={200: _TASK},
        problems=("task-not-found",),
    ),
    Route(
        method="POST",
        path="/v1/tasks/{id}/retry",
        scope=Scope.TASKS_WRITE,
        tag="tasks",
        handle=retry_task,
        summary="Open a new run of a failed or cancelled task; its failure budget starts anew.",
        answers={202: _TASK},
        problems=("task-not-found", "wrong-state"),
    ),
)
