"""Nodes, their ring, numbers and the stream of events."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from actors.authoring.limits import key_fault
from node.http import cluster, models, schemas, sse, views
from node.http.auth import Scope
from node.http.problems import Problem
from node.http.route import EVENTS_QUERY, LOCATE_QUERY, VIEWS_QUERY, Answer, Call, Route
from node.http.stats import Stats
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from aiohttp import web

    from node.http.service import Service
    from runtime.core.task import NodeView

log = logging.getLogger(__name__)

# -- nodes and ring ---------------------------------------------------------------------------------


async def get_cluster(call: Call) -> web.Response:
    service = call.service
    leases = await service.store.nodes()
    loads = {lease.incarnation: await _load(service, lease) for lease in leases}
    return views.json_response(cluster.cluster_json(leases, service.cluster, loads))


async def _load(service: Service, lease: NodeView) -> cluster.Load:
    """As it was heard; else what the record holds as running there (without a broker nodes hear nothing)."""
    if not cluster.is_live(lease):
        return None, None
    running, credit = service.load(lease.incarnation)
    return len(await service.store.held(lease.incarnation)) if running is None else running, credit


async def get_ring(call: Call) -> web.Response:
    return views.json_response(cluster.ring_json(call.service.cluster))


async def locate_key(call: Call) -> web.Response:
    key = call.query["key"]
    if fault := key_fault(key):
        raise InvalidInput(f"key: {fault}", (("?key", fault),))
    return views.json_response(cluster.locate_json(call.service.cluster, key, call.query.get("handler")))


async def list_views(call: Call) -> web.Response:
    limit = call.query.get("limit", models.VIEWS_DEFAULT)
    return views.json_response(cluster.views_json(await call.service.views(limit)))


async def drain_node(call: Call) -> web.Response:
    name = call.request.match_info["node"]
    if "\0" in name or not await call.service.store.request_drain(name):
        raise Problem("node-not-found", f"no node {name!r} is alive")
    log.info("%s asked the node %s to drain", call.principal.subject, name)
    return views.json_response({"name": name, "drain_requested": True}, 202)


# -- numbers and events -----------------------------------------------------------------------------


async def get_stats(call: Call) -> web.Response:
    return views.json_response(await call.service.live_stats())


async def stream_events(call: Call) -> web.StreamResponse:
    return await sse.serve(call)


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/cluster",
        scope=Scope.OPS,
        tag="cluster",
        handle=get_cluster,
        summary="The nodes: leases, places in the ring, load.",
        answers={
            200: Answer("All nodes; those that left or died within the last hour too.", schemas.Cluster)
        },
    ),
    Route(
        method="GET",
        path="/v1/cluster/ring",
        scope=Scope.OPS,
        tag="cluster",
        handle=get_ring,
        summary="How the slots are shared out among the members of the present view.",
        answers={200: Answer("All members of the view.", schemas.Ring)},
    ),
    Route(
        method="GET",
        path="/v1/cluster/locate",
        scope=Scope.OPS,
        tag="cluster",
        handle=locate_key,
        summary="The slot of a key, and the node that owns it.",
        parameters=LOCATE_QUERY,
        answers={200: Answer("The place; `node` is null where nobody owns it.", schemas.Place)},
        problems=("invalid-request",),
    ),
    Route(
        method="GET",
        path="/v1/cluster/views",
        scope=Scope.OPS,
        tag="cluster",
        handle=list_views,
        summary="The log of views: who came, went, or fell silent.",
        parameters=VIEWS_QUERY,
        answers={200: Answer("The newest views.", schemas.Views)},
        problems=("invalid-request",),
    ),
    Route(
        method="POST",
        path="/v1/cluster/nodes/{node}/drain",
        scope=Scope.OPS,
        tag="cluster",
        handle=drain_node,
        summary="Ask a node to end or hand back its work and leave; repeatable.",
        answers={202: Answer("It was asked; its state tells how far it is.", schemas.DrainRequested)},
        problems=("node-not-found",),
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
