"""Limits of handlers: what the code says, and what operators set before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actors.authoring.options import limit_of
from node.http import models, schemas, views
from node.http.auth import Scope
from node.http.problems import Problem
from node.http.reading import parse, validate
from node.http.route import Answer, Call, Route
from runtime.core.limits import HandlerLimit, Limit
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from aiohttp import web

_BODY_BYTES_MAX: Final = 4096


async def list_limits(call: Call) -> web.Response:
    found = await call.service.store.limits()
    shown = [_json(each) for each in found if not each.limit.is_open or each.declared is not None]
    return views.json_response({"limits": shown})


async def get_limit(call: Call) -> web.Response:
    name = call.request.match_info["name"]
    found = next((each for each in await call.service.store.limits() if each.handler == name), None)
    if found is None or (found.limit.is_open and found.declared is None):
        raise _no_limit(name)
    return views.json_response(_json(found))


async def set_limit(call: Call) -> web.Response:
    name, store = call.request.match_info["name"], call.service.store
    with call.admitted():
        request = validate(models.LIMIT, parse(await call.body()))
    limit = limit_of(request.get("rate_limit"), request.get("burst"), request.get("max_running"))
    if limit.is_open:
        detail = "give rate_limit or max_running; to go back to what the code says, DELETE it"
        raise InvalidInput(detail, (("#", detail),))
    entry = next((entry for entry in await store.handlers() if entry.name == name), None)
    if entry is None:
        raise Problem("handler-not-found", f"no node has published a handler {name!r}")
    if entry.defaults.get("actor"):
        detail = f"{name} is a message to a keyed actor; limits are for functions"
        raise InvalidInput(detail, (("#", detail),))
    await store.set_limit(name, limit, call.principal.subject)
    call.service.nudge()
    return await get_limit(call)


async def unset_limit(call: Call) -> web.Response:
    name = call.request.match_info["name"]
    if "\0" in name or not await call.service.store.unset_limit(name):
        raise _no_limit(name, "set by hand ")
    call.service.nudge()
    found = {each.handler: each for each in await call.service.store.limits()}
    return views.json_response(_json(found.get(name, HandlerLimit(name, Limit()))))


def _no_limit(name: str, what: str = "") -> Problem:
    return Problem("limit-not-found", f"there is no limit {what}for a handler {name!r}")


def _json(found: HandlerLimit) -> dict[str, object]:
    declared = None if found.declared is None else _rules(found.declared)
    return {"handler": found.handler, **_rules(found.limit), "declared": declared, "set_by": found.set_by}


def _rules(limit: Limit) -> dict[str, object]:
    return {
        "rate_limit": None if limit.rate is None else str(limit.rate),
        "burst": None if limit.rate is None else limit.rate.burst,
        "max_running": limit.max_running,
        "limit_per": limit.per.value,
    }


_LIMIT: Final = {200: Answer("The limit.", schemas.HandlerLimit)}

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/limits",
        scope=Scope.TASKS_READ,
        tag="limits",
        handle=list_limits,
        summary="Every handler with a limit: what counts, and what its code declares.",
        answers={200: Answer("All of them, by name.", schemas.Limits)},
    ),
    Route(
        method="GET",
        path="/v1/limits/{name}",
        scope=Scope.TASKS_READ,
        tag="limits",
        handle=get_limit,
        summary="The limit of a handler.",
        answers=_LIMIT,
        problems=("limit-not-found",),
    ),
    Route(
        method="PUT",
        path="/v1/limits/{name}",
        scope=Scope.OPS,
        tag="limits",
        handle=set_limit,
        summary="Limit a handler, whatever its code says. All nodes go by it within seconds; what runs goes on.",
        body=models.LimitRequest,
        body_max=_BODY_BYTES_MAX,
        answers=_LIMIT,
        problems=(
            "handler-not-found", "malformed-json", "request-timeout", "too-large", "unsupported-media-type",
            "invalid-request", "overloaded",
        ),
    ),
    Route(
        method="DELETE",
        path="/v1/limits/{name}",
        scope=Scope.OPS,
        tag="limits",
        handle=unset_limit,
        summary="Go back to what the code of the handler declares, which may be nothing.",
        answers={200: Answer("What counts now; all null: nothing.", schemas.HandlerLimit)},
        problems=("limit-not-found",),
    ),
)  # fmt: skip
