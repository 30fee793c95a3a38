"""Everything the client raises, split by what the caller can do about it.

The node answers errors as problem+json (RFC 9457) with `type: urn:noria:error:<slug>`; `from_problem` turns one
into the exception that says the same. Where a request never got an answer, it is `Unreachable`.
All of them are `ClientError`, which is a `NoriaError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.errors import InvalidInput, NoriaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


SLUG_PREFIX = "urn:noria:error:"


class ClientError(NoriaError):
    """Base. `status` is the HTTP status and `slug` the problem's type, where the node answered at all.

    `handles` is set by `submit_many` only: one entry per task of the call, in order, None where nothing is stored.
    """

    def __init__(self, detail: str, *, status: int | None = None, slug: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.slug = slug
        self.handles: Sequence[Any] = ()  # of TaskHandle, or of SyncTaskHandle


# -- fix the request; repeating it changes nothing --------------------------------------------------


class InvalidTask(ClientError, InvalidInput):
    """A value is not allowed (422, 400, or found before sending). `errors` lists (JSON pointer, detail) pairs.

    It is an InvalidInput too, which is what `task(fn, …)` raises: one `except InvalidInput` covers both.
    """

    def __init__(
        self,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        *,
        status: int | None = None,
        slug: str = "",
    ) -> None:
        ClientError.__init__(self, detail, status=status, slug=slug)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        lines = (f"\n  {pointer}: {text}" for pointer, text in self.errors)
        return self.detail + "".join(lines)


class KeyReused(ClientError):
    """The idempotency key belongs to a task that was asked for differently.

    `existing_id` is that task; the digests are hexadecimal SHA-256 of both requests, '' where not told.
    """

    def __init__(
        self, detail: str, *, existing_id: str, existing_digest: str, digest: str, status: int
    ) -> None:
        super().__init__(detail, status=status, slug="idempotency-key-reused")
        self.existing_id = existing_id
        self.existing_digest = existing_digest
        self.digest = digest


class TooLarge(ClientError):
    """A task is larger than a node takes (413, or found before sending)."""


class NotFound(ClientError):
    """No such task or handler (404)."""


class Refused(ClientError):
    """The node understood and will not: 401 and 403 (who you are), 409 (the task's `state` forbids it)."""

    def __init__(self, detail: str, *, status: int, slug: str = "", state: str = "") -> None:
        super().__init__(detail, status=status, slug=slug)
        self.state = state


class NotUnique(Refused):
    """Another task stands for the same, and the task's `unique` says to reject it (409). `existing_id` is that one."""

    def __init__(self, detail: str, *, existing_id: str, status: int) -> None:
        super().__init__(detail, status=status, slug="not-unique")
        self.existing_id = existing_id


class ResultExpired(ClientError):
    """The task succeeded, but its result is no longer kept (410)."""


# -- try again later --------------------------------------------------------------------------------


class Overloaded(ClientError):
    """The node cannot now (429, 503), still so after all retries; `retry_after_s` is its advice."""

    def __init__(self, detail: str, *, retry_after_s: float, status: int, slug: str = "") -> None:
        super().__init__(detail, status=status, slug=slug)
        self.retry_after_s = retry_after_s


class Unreachable(ClientError):
    """No answer from `url`, after all retries. A task sent under an idempotency key may have been stored."""

    def __init__(self, detail: str, *, url: str) -> None:
        super().__init__(detail)
        self.url = url


# -- a fault that is not yours ----------------------------------------------------------------------


class ServerFault(ClientError):
    """The node failed (500), or what answered does not speak Noria's contract."""


# -- how a task ended -------------------------------------------------------------------------------


class TaskError(ClientError):
    """Base of what `result()` raises for a task that gives none."""

    def __init__(self, detail: str, *, task_id: str) -> None:
        super().__init__(detail)
        self.task_id = task_id


class TaskFailed(TaskError):
    """The task is a dead letter. `type`, `message`, `traceback` are the handler's last error, `attempt` whose."""

    def __init__(self, task_id: str, handler: str, error: Mapping[str, Any]) -> None:
        self.handler = handler
        self.type = str(error.get("type", ""))
        self.message = str(error.get("message", ""))
        self.traceback = str(error.get("traceback") or "")
        self.attempt = int(error.get("attempt") or 0)
        what = ": ".join(part for part in (self.type, self.message) if part) or "no error recorded"
        super().__init__(f"{handler} {task_id} failed in attempt {self.attempt}: {what}", task_id=task_id)


class TaskCancelled(TaskError):
    """The task was cancelled (or expired) before it could succeed; `reason` says which where the node tells."""

    def __init__(self, task_id: str, handler: str, reason: str = "") -> None:
        self.handler = handler
        self.reason = reason
        super().__init__(
            f"{handler} {task_id} was cancelled" + (f": {reason}" if reason else ""), task_id=task_id
        )


class WaitTimeout(TaskError):
    """The task is not final yet; it goes on. `state` is where it was when the time was up."""

    def __init__(self, task_id: str, timeout_s: float, state: str) -> None:
        self.timeout_s = timeout_s
        self.state = state
        super().__init__(f"task {task_id} is still {state} after {timeout_s:g} s", task_id=task_id)


# -- from the wire ----------------------------------------------------------------------------------


def from_problem(
    status: int, problem: Mapping[str, Any] | None, *, retry_after_s: float | None = None
) -> ClientError:
    """The exception for an answer of 400 and above; `problem` is None where the body is no problem+json."""
    if problem is None:
        problem = {}
    slug = str(problem.get("type") or "").removeprefix(SLUG_PREFIX)
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    if slug == "idempotency-key-reused":
        return _key_reused(status, detail, problem)
    if slug == "not-unique":
        return NotUnique(detail, existing_id=str(problem.get("existing_id") or ""), status=status)
    if status in {400, 415, 422}:
        return InvalidTask(detail, _pairs(problem), status=status, slug=slug)
    if status == 404:
        return NotFound(detail, status=status, slug=slug)
    if status in {401, 403, 409}:
        return Refused(detail, status=status, slug=slug, state=str(problem.get("state") or ""))
    if status == 410:
        return ResultExpired(detail, status=status, slug=slug)
    if status == 413:
        return TooLarge(detail, status=status, slug=slug)
    if status in {429, 503}:
        advice_s = 1.0 if retry_after_s is None else retry_after_s
        return Overloaded(detail, retry_after_s=advice_s, status=status, slug=slug)
    return ServerFault(detail, status=status, slug=slug)


def _pairs(problem: Mapping[str, Any]) -> list[tuple[str, str]]:
    errors = problem.get("errors")
    if not isinstance(errors, list):
        return []
    return [(str(e.get("pointer", "#")), str(e.get("detail", ""))) for e in errors if isinstance(e, dict)]


def _key_reused(status: int, detail: str, problem: Mapping[str, Any]) -> KeyReused:
    return KeyReused(
        detail,
        existing_id=str(problem.get("existing_id") or ""),
        existing_digest=str(problem.get("existing_digest") or ""),
        digest=str(problem.get("digest") or ""),
        status=status,
    )
