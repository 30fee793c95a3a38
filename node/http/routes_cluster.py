"""Handlers, nodes, numbers and the stream of events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from node.http import schemas, sse, views
from node.http.auth import Scope
from node.http.problems import Problem
from node.http.route import EVENTS_QUERY, Answer, Call, Route
from node.http.stats import Stats

if TYPE_CHECKING:
    from aiohttp import web

# -- handlers ---------------------------------------------------------------------------------------


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


# -- nodes and numbers ------------------------------------------------------------------------------


async def get_cluster(call: Call) -> web.Response:
    service = call.service
    nodes = await service.store.nodes()
    newest = {node.node: node.incarnation for node in sorted(nodes, key=lambda node: node.incarnation)}
    owned = Counter(service.home(slot) for slot in range(views.SLOTS))  # a table in memory
    running = await _running(call)
    rows = []
    for node in nodes:
        current = views.is_live(node) and newest[node.node] == node.incarnation
        rows.append(
            views.node_json(
                node,
                slots=owned[node.node] if current else 0,
                running=running if current and node.node == service.node else None,
            )
        )
    return views.json_response({"view": None, "nodes": rows})


async def _running(call: Call) -> int | None:
    """How much runs on this node; others do not tell yet."""
    capacity = (await call.service.live_stats()).get("capacity")
    if not isinstance(capacity, dict):
        return None
    return sum(int(room["taken"]) for room in capacity.values())


async def get_stats(call: Call) -> web.Response:
    return views.json_response(await call.service.live_stats())


async def stream_events(call: Call) -> web.StreamResponse:
    return await sse.serve(call)


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
    Route(
        method="GET",
        path="/v1/cluster",
        scope=Scope.OPS,
        tag="cluster",
        handle=get_cluster,
        summary="The nodes, by their leases.",
        answers={200: Answer("All nodes; those that left within the last hour too.", schemas.Cluster)},
    ),
    Route(
        method="GET",
        path="/v1/stats",
        scope=Scope.OPS,
        tag="cluster",
        handle=get_stats,
        summary="Counts, rates and ages, as this node knows them; cheap.",
        answers={200: Answer("What is known; any field may be missing.", Stats)},
    ),
    Route(
        method="GET",
        path="/v1/events",
        scope=Scope.TASKS_READ,
        tag="cluster",
        handle=stream_events,
        summary="Changes of tasks as they happen (server-sent events).",
        parameters=EVENTS_QUERY,
        streams=True,
        headers={"Last-Event-ID": "Go on after this event."},
        answers={
            200: Answer(
                "`event: task` with {id, handler, state, attempt, at, error_type, run_s}; `event: gap` with"
                " {missed} where the reader was too slow; a comment every 15 s.",
                content_type="text/event-stream",
            )
        },
        problems=("invalid-request", "overloaded"),
    ),
)
