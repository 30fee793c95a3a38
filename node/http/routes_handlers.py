"""Handlers as nodes have published them, and their pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from node.http import schemas, views
from node.http.auth import Scope
from node.http.problems import Problem
from node.http.route import Answer, Call, Route

if TYPE_CHECKING:
    from aiohttp import web


async def list_handlers(call: Call) -> web.Response:
    store = call.service.store
    entries, nodes = await store.handlers(), await store.nodes()
    rows = [views.handler_json(entry, nodes) for entry in sorted(entries, key=lambda entry: entry.name)]
    return views.json_response({"handlers": rows})


async def get_handler(call: Call) -> web.Response:
    name = call.request.match_info["name"]
    store = call.service.store
    entry = next((entry for entry in await store.handlers() if entry.name == name), None)
    if entry is None:
        raise Problem("handler-not-found", f"no node has published a handler {name!r}")
    return views.json_response(views.handler_json(entry, await store.nodes()))


async def pause_handler(call: Call) -> web.Response:
    return await _set_paused(call, paused=True)


async def resume_handler(call: Call) -> web.Response:
    return await _set_paused(call, paused=False)


async def _set_paused(call: Call, *, paused: bool) -> web.Response:
    name = call.request.match_info["name"]
    if "\0" in name or not await call.service.store.set_paused(name, paused=paused):
        raise Problem("handler-not-found", f"no node has published a handler {name!r}")
    return await get_handler(call)


_NAMED: Final = ("handler-not-found",)
_HANDLER: Final = {200: Answer("The handler.", schemas.Handler)}

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/handlers",
        scope=Scope.TASKS_READ,
        tag="handlers",
        handle=list_handlers,
        summary="Every handler that nodes have published.",
        answers={200: Answer("All of them, by name.", schemas.Handlers)},
    ),
    Route(
        method="GET",
        path="/v1/handlers/{name}",
        scope=Scope.TASKS_READ,
        tag="handlers",
        handle=get_handler,
        summary="A handler: schema of its payload, defaults, nodes that have it.",
        answers=_HANDLER,
        problems=_NAMED,
    ),
    Route(
        method="POST",
        path="/v1/handlers/{name}/pause",
        scope=Scope.OPS,
        tag="handlers",
        handle=pause_handler,
        summary="Start none of its tasks on any node; what runs goes on, what is submitted waits.",
        answers=_HANDLER,
        problems=_NAMED,
    ),
    Route(
        method="POST",
        path="/v1/handlers/{name}/resume",
        scope=Scope.OPS,
        tag="handlers",
        handle=resume_handler,
        summary="Go on with its tasks.",
        answers=_HANDLER,
        problems=_NAMED,
    ),
)
