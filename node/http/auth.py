"""Who asks, and what they may do.

Law: every route declares one scope, every request gets one Principal, and both meet here and nowhere else.
In this version everybody who reaches the node is the local principal, which is why a node listens on loopback
only. Because a browser reaches loopback too, requests that a foreign web page made are refused.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from node.http.problems import Problem
from runtime.core.task import DEFAULT_TENANT

if TYPE_CHECKING:
    from aiohttp import web


class Scope(StrEnum):
    PUBLIC = "public"  # liveness, the API's description, the console's files: nothing about tasks
    TASKS_READ = "tasks:read"
    TASKS_WRITE = "tasks:write"
    OPS = "ops"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """`tenant` owns what is submitted and is all that is seen; `subject` is noted as who submitted it."""

    tenant: str
    subject: str
    scopes: frozenset[Scope]


class Authenticator(Protocol):
    async def __call__(self, request: web.Request, /) -> Principal:
        """Raises Problem('unauthenticated')."""
        ...


NOBODY: Final = Principal(DEFAULT_TENANT, "nobody", frozenset())  # asks for what is public
LOCAL: Final = Principal(DEFAULT_TENANT, "local", frozenset(Scope))


async def local(_request: web.Request) -> Principal:
    return LOCAL


def demand(principal: Principal, scope: Scope) -> None:
    """Raises Problem('forbidden')."""
    if scope not in principal.scopes:
        raise Problem("forbidden", f"{principal.subject} lacks the scope {scope}")


def refuse_foreign_pages(request: web.Request, *, loopback: bool) -> None:
    """Raises Problem('forbidden') for what a web page of another origin makes a browser send.

    With `loopback` the Host must be this machine as well: else a page could rebind its own name to 127.0.0.1
    and count as the same origin.
    """
    if request.method not in _SAFE:
        headers = request.headers
        site = headers.get("Sec-Fetch-Site")
        origin = headers.get("Origin")
        if site is not None:
            foreign = site not in {"same-origin", "none"}
        else:
            foreign = origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
        if foreign:
            raise Problem("forbidden", f"a page of {origin or 'another site'} may not do this here")
    if loopback and not _is_loopback(request.host):
        raise Problem("forbidden", f"Host {request.host!r} is not this machine: use localhost or 127.0.0.1")


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
