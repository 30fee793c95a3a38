"""The application: the table of routes, and what they share."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from node.http import (
    openapi,
    pages,
    problems,
    routes_bulk,
    routes_cluster,
    routes_handlers,
    routes_health,
    routes_limits,
    routes_schedules,
    routes_tasks,
    routes_tenants,
    routes_workflows,
)
from node.http.admission import Bodies
from node.http.models import BATCH_BYTES_MAX
from node.http.polls import LongPolls
from node.http.route import Api, Options, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from node.http.service import Service

API: Final = web.AppKey("api", Api)

# Fixed paths stand before those with a variable at the same place.
ROUTES: Final[tuple[Route, ...]] = (
    *routes_bulk.ROUTES,
    *routes_tasks.ROUTES,
    *routes_workflows.ROUTES,
    *routes_handlers.ROUTES,
    *routes_limits.ROUTES,
    *routes_schedules.ROUTES,
    *routes_tenants.ROUTES,
    *routes_cluster.ROUTES,
    *routes_health.ROUTES,
    *pages.ROUTES,
)


def make_app(service: Service, options: Options | None = None) -> web.Application:
    """Everything the node serves. Streams of events end at shutdown, long polls when the service drains."""
    options = options or Options()
    api = Api(
        service=service,
        options=options,
        bodies=Bodies(options.bodies_max, options.body_bytes_max),
        start=secrets.token_hex(4),
        long_polls=LongPolls(options.long_polls_max),
        downloads=asyncio.Semaphore(options.downloads_max),
    )
    app = web.Application(middlewares=[problems.middleware], client_max_size=BATCH_BYTES_MAX)
    app[API] = api
    for route in ROUTES:
        app.router.add_route(route.method, route.pattern, route.dispatcher(api))
        if route.method == "GET" and not route.streams:
            app.router.add_route("HEAD", route.pattern, route.dispatcher(api))
    app.on_startup.append(_prepare)
    app.cleanup_ctx.append(_watch_long_polls)
    app.on_shutdown.append(_end_streams)
    return app


async def _prepare(app: web.Application) -> None:
    """What takes some 50 ms and reads files, beside the event loop."""
    app[pages.FILES] = await asyncio.to_thread(pages.read_files)
    app[routes_health.OPENAPI] = await asyncio.to_thread(_document)


@cache
def _document() -> bytes:
    return orjson.dumps(openapi.document(ROUTES, version("noria")))


async def _watch_long_polls(app: web.Application) -> AsyncIterator[None]:
    watcher = asyncio.create_task(app[API].long_polls.watch())
    yield
    watcher.cancel()
    with suppress(asyncio.CancelledError):
        await watcher


async def _end_streams(app: web.Application) -> None:
    for stream in app[API].streams:
        stream.stop()
