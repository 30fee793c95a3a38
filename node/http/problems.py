"""Errors as RFC 9457 problem+json.

Law: `PROBLEMS` lists every kind of error there is, and only `problem_of` makes one of an exception.
A slug is part of the contract: it never changes its meaning or its status.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from runtime import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

log = logging.getLogger(__name__)

PREFIX: Final = "urn:noria:error:"
ERRORS_MAX: Final = 100
CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    status: int
    title: str


PROBLEMS: Final[Mapping[str, Kind]] = {
    "malformed-json": Kind(400, "The body is not JSON"),
    "bad-request": Kind(400, "The request cannot be understood"),
    "unauthenticated": Kind(401, "Say who you are"),
    "forbidden": Kind(403, "You may not do this"),
    "not-found": Kind(404, "There is nothing here"),
    "task-not-found": Kind(404, "There is no such task"),
    "workflow-not-found": Kind(404, "There is no such workflow"),
    "handler-not-found": Kind(404, "There is no such handler"),
    "limit-not-found": Kind(404, "There is no such limit"),
    "schedule-not-found": Kind(404, "There is no such schedule"),
    "node-not-found": Kind(404, "There is no such node"),
    "method-not-allowed": Kind(405, "This path has no such method"),
    "request-timeout": Kind(408, "The body did not arrive in time"),
    "not-unique": Kind(409, "Another task stands for the same"),
    "wrong-state": Kind(409, "The task's state forbids this"),
    "task-not-finished": Kind(409, "The task has no result yet"),
    "task-failed": Kind(409, "The task failed, so it has no result"),
    "task-cancelled": Kind(409, "The task was cancelled, so it has no result"),
    "result-expired": Kind(410, "The result is no longer kept"),
    "too-large": Kind(413, "The request is too large"),
    "range-not-satisfiable": Kind(416, "The result has no such range"),
    "unsupported-media-type": Kind(415, "The body must be application/json"),
    "invalid-request": Kind(422, "Some values are not allowed"),
    "idempotency-key-reused": Kind(422, "The idempotency key belongs to a different request"),
    "encryption-not-configured": Kind(422, "Sensitive tasks need encryption keys"),
    "backlog-full": Kind(429, "Too many tasks wait already"),
    "internal": Kind(500, "The node failed; this is our fault"),
    "overloaded": Kind(503, "The node has too much to do"),
    "unavailable": Kind(503, "The record cannot be reached"),
    "not-ready": Kind(503, "The node takes no work now"),
}


class Problem(Exception):
    """An answer of status 400 and above. `members` are further fields of the document."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.kind = PROBLEMS[slug]
        self.detail = detail
        self.errors = tuple(errors[:ERRORS_MAX])
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        self.members = members or {}

    def document(self) -> dict[str, object]:
        document: dict[str, object] = {
            "type": PREFIX + self.slug,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            **self.members,
        }
        if self.errors:
            document["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors]
        return document

    def response(self) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", **self.headers}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return web.Response(status=self.kind.status, body=_encode(self.document()), headers=headers)


def problem_of(exc: Exception) -> Problem:
    """What to answer. Anything unexpected is `internal`, without its text: that may not be public."""
    match exc:
        case Problem():
            return exc
        case errors.InvalidInput():
            return Problem("invalid-request", exc.detail, errors=exc.errors)
        case errors.TaskNotFound():
            return Problem("task-not-found", str(exc))
        case errors.WrongState():
            return Problem("wrong-state", str(exc), members={"state": exc.state})
        case errors.Overloaded():
            return Problem("overloaded", str(exc), retry_after_s=exc.retry_after_s)
        case errors.Unavailable() | errors.AskError() | errors.IncarnationDead():
            return Problem("unavailable", _unavailable(exc), retry_after_s=1)
        case web.HTTPException():
            return _of_aiohttp(exc)
        case _:
            return Problem("internal", "unexpected error; the node's log has the details")


@web.middleware
async def middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every exception becomes a problem; unexpected ones are logged with their traceback."""
    try:
        return await handler(request)
    except Exception as exc:  # the last place that can answer
        problem = problem_of(exc)
        if problem.slug == "internal":
            log.exception("%s %s failed", request.method, request.path)
        return problem.response()


def _unavailable(exc: Exception) -> str:
    return f"{exc}; what was asked may have happened: repeat it with the same idempotency key"


def _of_aiohttp(exc: web.HTTPException) -> Problem:
    match exc:
        case web.HTTPNotFound():
            return Problem("not-found", "no such path; /openapi.json lists all of them")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(exc.allowed_methods))
            return Problem(
                "method-not-allowed", f"{exc.method} is not one of {allowed}", headers={"Allow": allowed}
            )
        case web.HTTPRequestEntityTooLarge():
            return Problem("too-large", "the body is larger than this path takes")
        case _ if exc.status == HTTPStatus.EXPECTATION_FAILED or 400 <= exc.status < 500:
            return Problem("bad-request", exc.text or exc.reason)
        case _:
            return Problem("internal", "unexpected error; the node's log has the details")


def _encode(document: Mapping[str, object]) -> bytes:
    """Details may quote what was sent, and that may hold what is no text."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return orjson.dumps(_clean(document))


def _clean(value: object) -> object:
    if isinstance(value, dict):
        return {key: _clean(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_clean(member) for member in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value
