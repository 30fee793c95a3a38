"""Actions on all tasks that match a filter, and dead letters."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from actors.authoring.options import LANES
from node.http import models, schemas, views
from node.http.auth import Scope
from node.http.filters import filter_of, page_of
from node.http.reading import parse, validate
from node.http.route import LIST_QUERY, Answer, Call, Route
from runtime.core.task import State, TaskFilter
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from aiohttp import web

_CHUNK: Final = 500  # rows of one statement
_COUNT_MAX: Final = 1_000_000  # what a dry run counts


class _Action(Protocol):
    async def __call__(self, which: TaskFilter, limit: int, *, dry_run: bool = False) -> tuple[int, int]: ...


async def cancel_tasks(call: Call) -> web.Response:
    return await _act(call, call.service.store.cancel_matching)


async def prioritize_tasks(call: Call) -> web.Response:
    with call.admitted():
        request = validate(models.PRIORITY, parse(await call.body()))
    action = partial(call.service.store.prioritize_matching, lane=LANES[request["priority"]])
    return await _do(call, request, action)


async def replay_dead(call: Call) -> web.Response:
    return await _act(call, call.service.store.replay_matching, comes_back=True)


async def purge_dead(call: Call) -> web.Response:
    return await _act(call, call.service.store.purge_matching)


async def list_dead(call: Call) -> web.Response:
    query = call.query
    which = filter_of(query, call.principal, "?")
    if not which.states:
        which = replace(which, states=(State.FAILED,))
    page = await call.service.store.list(which, *page_of(query))
    return views.json_response(views.page_json(page, call.service))


async def _act(call: Call, action: _Action, *, comes_back: bool = False) -> web.Response:
    """What the body asks for. `comes_back`: what was changed may match again soon (a replayed task that fails at once)."""
    with call.admitted():
        request = validate(models.BULK, parse(await call.body()))
    return await _do(call, request, action, comes_back=comes_back)


async def _do(
    call: Call, request: models.BulkRequest, action: _Action, *, comes_back: bool = False
) -> web.Response:
    which = filter_of(request.get("filter", {}), call.principal, "#/filter/")
    if which.empty and not request.get("all"):
        detail = "has no condition; give all: true if every task is meant"
        raise InvalidInput(f"#/filter: {detail}", (("#/filter", detail),))
    at_most = sys.maxsize
    if comes_back or request.get("dry_run"):
        at_most, _ = await action(which, _COUNT_MAX, dry_run=True)
    if request.get("dry_run"):
        return views.json_response({"matched": at_most, "changed": 0, "more": at_most >= _COUNT_MAX})
    return views.json_response(await _in_chunks(which, action, call.api.options.bulk_s, at_most))


async def _in_chunks(which: TaskFilter, action: _Action, within_s: float, at_most: int) -> dict[str, object]:
    """Many small transactions, so that nothing else waits for locks; what changed stays changed."""
    end_s = time.monotonic() + within_s
    total = 0
    while True:
        matched, changed = await action(which, _CHUNK)
        total += changed
        if changed == 0 or matched < _CHUNK or total >= at_most:
            return {"matched": total + matched - changed, "changed": total, "more": False}
        if time.monotonic() >= end_s:
            return {"matched": total, "changed": total, "more": True}


_PROBLEMS: Final = (
    "malformed-json", "request-timeout", "too-large", "unsupported-media-type", "invalid-request",
    "overloaded",
)  # fmt: skip
_ANSWERS: Final = {200: Answer("How many matched, and how many were changed.", schemas.Bulk)}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/tasks/cancel",
        scope=Scope.OPS,
        tag="tasks",
        handle=cancel_tasks,
        summary="Cancel every task that matches and is not final.",
        body=models.BulkRequest,
        body_max=models.BULK_BYTES_MAX,
        answers=_ANSWERS,
        problems=_PROBLEMS,
    ),
    Route(
        method="POST",
        path="/v1/tasks/priority",
        scope=Scope.OPS,
        tag="tasks",
        handle=prioritize_tasks,
        summary="Give every waiting task that matches this priority, at once.",
        body=models.PriorityRequest,
        body_max=models.BULK_BYTES_MAX,
        answers=_ANSWERS,
        problems=_PROBLEMS,
    ),
    Route(
        method="GET",
        path="/v1/dead",
        scope=Scope.TASKS_READ,
        tag="dead letters",
        handle=list_dead,
        summary="Tasks that failed for good, newest first.",
        parameters=LIST_QUERY,
        answers={200: Answer("One page.", schemas.TaskPage)},
        problems=("invalid-request",),
    ),
    Route(
        method="POST",
        path="/v1/dead/replay",
        scope=Scope.OPS,
        tag="dead letters",
        handle=replay_dead,
        summary="Open a new run of every dead letter that matches.",
        body=models.BulkRequest,
        body_max=models.BULK_BYTES_MAX,
        answers=_ANSWERS,
        problems=_PROBLEMS,
    ),
    Route(
        method="DELETE",
        path="/v1/dead",
        scope=Scope.OPS,
        tag="dead letters",
        handle=purge_dead,
        summary="Delete every dead letter that matches, for good; their idempotency keys are free again.",
        body=models.BulkRequest,
        body_max=models.BULK_BYTES_MAX,
        answers=_ANSWERS,
        problems=_PROBLEMS,
    ),
)
