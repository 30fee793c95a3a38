"""Tenants: what of each waits and runs, and what share of the nodes it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from node.http import models, schemas, views
from node.http.auth import Scope
from node.http.reading import parse, validate
from node.http.route import TENANTS_QUERY, Answer, Call, Route
from node.http.stats import TenantRow
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from aiohttp import web

NAME_CHARS_MAX: Final = 200
_BODY_BYTES_MAX: Final = 4096


async def list_tenants(call: Call) -> web.Response:
    limit: int = call.query.get("limit", models.PAGE_DEFAULT)
    after = call.query.get("cursor", "")
    found = [row for row in await call.service.tenants() if row["name"] > after]
    shown = found[:limit]
    cursor = shown[-1]["name"] if len(found) > limit else None
    return views.json_response({"tenants": shown, "next_cursor": cursor})


async def pause_tenant(call: Call) -> web.Response:
    return views.json_response(await call.service.set_tenant_paused(_name(call), paused=True))


async def resume_tenant(call: Call) -> web.Response:
    return views.json_response(await call.service.set_tenant_paused(_name(call), paused=False))


def _name(call: Call) -> str:
    """Raises InvalidInput."""
    name = call.request.match_info["tenant"]
    if not name.isprintable() or len(name) > NAME_CHARS_MAX:
        fault = f"allowed are 1 to {NAME_CHARS_MAX} printable characters"
        raise InvalidInput(f"#/name: {fault}", (("#/name", fault),))
    return name


async def weigh_tenant(call: Call) -> web.Response:
    name = _name(call)
    with call.admitted():
        request = validate(models.TENANT, parse(await call.body()))
    return views.json_response(await call.service.weigh_tenant(name, request["weight"]))


_TENANT: Final = {200: Answer("The tenant.", TenantRow)}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/tenants/{tenant}/pause",
        scope=Scope.OPS,
        tag="tenants",
        handle=pause_tenant,
        summary="Start none of its tasks on any node; what runs goes on, what is submitted waits.",
        answers=_TENANT,
        problems=("invalid-request",),
    ),
    Route(
        method="POST",
        path="/v1/tenants/{tenant}/resume",
        scope=Scope.OPS,
        tag="tenants",
        handle=resume_tenant,
        summary="Go on with its tasks.",
        answers=_TENANT,
        problems=("invalid-request",),
    ),
    Route(
        method="GET",
        path="/v1/tenants",
        scope=Scope.OPS,
        tag="tenants",
        handle=list_tenants,
        summary="Tenants by name: their weight, and what of them waits and runs, as last counted.",
        parameters=TENANTS_QUERY,
        answers={200: Answer("One page.", schemas.TenantPage)},
        problems=("invalid-request",),
    ),
    Route(
        method="PUT",
        path="/v1/tenants/{tenant}",
        scope=Scope.OPS,
        tag="tenants",
        handle=weigh_tenant,
        summary="Give a tenant a weight: its turns in a round beside those of the others, 1 if none is given.",
        body=models.TenantRequest,
        body_max=_BODY_BYTES_MAX,
        answers=_TENANT,
        problems=(
            "malformed-json", "request-timeout", "too-large", "unsupported-media-type", "invalid-request", "overloaded",
        ),
    ),
)  # fmt: skip
