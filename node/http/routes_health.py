"""Is it alive, is it ready, what does it measure, and what can be asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from node.http import schemas, views
from node.http.auth import Scope
from node.http.problems import Problem
from node.http.route import Answer, Call, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

OPENAPI: Final = web.AppKey("openapi", bytes)


async def get_liveness(_call: Call) -> web.Response:
    return views.json_response({"status": "alive"})


async def get_readiness(call: Call) -> web.Response:
    reason = await call.service.ready()
    if reason is not None:
        raise Problem("not-ready", reason, retry_after_s=1)
    return views.json_response({"status": "ready"})


async def get_metrics(call: Call) -> web.Response:
    return web.Response(body=call.service.metrics(), headers={"Content-Type": _METRICS})


async def get_openapi(call: Call) -> web.Response:
    headers: Mapping[str, str] = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
    return web.Response(body=call.request.app[OPENAPI], headers=headers)


_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"

ROUTES: Final = (
    Route(
        method="GET",
        path="/livez",
        scope=Scope.PUBLIC,
        tag="health",
        handle=get_liveness,
        summary="The process answers.",
        answers={200: Answer("Alive.", schemas.Health)},
    ),
    Route(
        method="GET",
        path="/readyz",
        scope=Scope.PUBLIC,
        tag="health",
        handle=get_readiness,
        summary="The node takes work: its lease is held and the record answers.",
        answers={200: Answer("Ready.", schemas.Health)},
        problems=("not-ready",),
    ),
    Route(
        method="GET",
        path="/metrics",
        scope=Scope.OPS,
        tag="health",
        handle=get_metrics,
        summary="Prometheus metrics.",
        answers={200: Answer("Text format.", content_type="text/plain")},
    ),
    Route(
        method="GET",
        path="/openapi.json",
        scope=Scope.PUBLIC,
        tag="health",
        handle=get_openapi,
        summary="This description.",
        answers={200: Answer("OpenAPI 3.1.", dict[str, object])},
    ),
)
