"""One body: run it once, and turn whatever happens into a move of its row.

Law: whatever a handler does, raises, returns or fails to return becomes an `Ended`, and an `Ended` becomes a Finish
or a Requeue with an error that its author can read. The first half also runs inside child processes.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from actors.authoring.batching import BatchContext
from actors.authoring.context import Context
from actors.authoring.exceptions import Cancelled, Fail, ResultNotSerializable, Retry, Snoozed, signal_in
from actors.authoring.limits import RESULT_BYTES_MAX
from actors.authoring.registry import HandlerDef
from runtime.core import decisions
from runtime.core.task import AttemptKind, Claim, Codec, ErrorInfo, Finish, NewTask, Requeue, light
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from actors.keyed.turn import ActiveTurn

_MESSAGE_CHARS_MAX: Final = 2_000
_TRACEBACK_CHARS_MAX: Final = 8_000
_RELEASE_S_MAX: Final = 60.0

Move = Finish | Requeue
Moves = list[tuple["Run", Move]]


class Stop(Enum):
    """Why a running body is being stopped."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    DRAIN = "drain"


@dataclass(slots=True, eq=False)
class Run:
    """One attempt on this node, from claim to commit."""

    claim: Claim
    handler: HandlerDef
    context: Context
    args: dict[str, Any] | None = None  # when they are bound already
    started_s: float = 0.0
    ended_s: float = 0.0
    deadline_s: float = 0.0
    stop: Stop | None = None
    stop_since_s: float = 0.0
    stop_count: int = 0
    abandoned: bool = False
    worker: asyncio.Task[None] | None = None
    turn: ActiveTurn | None = None  # of a keyed actor, which this message is part of


@dataclass(slots=True, eq=False)
class Lot:
    """One call of a batch handler, for the pool like one run: `live` are those of its tasks that have not ended."""

    live: dict[Run, None]
    handler: HandlerDef
    context: BatchContext
    claim: Claim  # that of the task with the least time
    parts: int  # of a place, beside what the tasks take
    started_s: float = 0.0
    deadline_s: float = 0.0
    stop: Stop | None = None
    stop_since_s: float = 0.0
    stop_count: int = 0
    abandoned: bool = False
    worker: asyncio.Task[None] | None = None
    turn: None = None


# -- how a body ended -------------------------------------------------------------------------------


@light
class Returned:
    result: bytes
    codec: Codec


@dataclass(frozen=True, slots=True)
class Raised:
    error: ErrorInfo
    final: bool = False
    after_s: float | None = None  # the handler's own wish for the next attempt


@dataclass(frozen=True, slots=True)
class Snooze:
    after_s: float


@dataclass(frozen=True, slots=True)
class Unbound:
    """The arguments do not bind here: another version of the handler's task."""

    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Crashed:
    """The child process that ran the body died by itself."""

    error: ErrorInfo


Ended = Returned | Raised | Snooze | Unbound | Crashed
Call = Callable[..., Awaitable[Any]]  # with the arguments by name


async def end_of(
    handler: HandlerDef, payload: bytes, args: dict[str, Any] | None, call: Call, result_max: int
) -> Ended:
    """Bind, call and encode, at most `result_max` bytes. Raises nothing but asyncio.CancelledError."""
    try:
        values = handler.bind(payload) if args is None else args
    except InvalidInput as unbound:
        return Unbound(describe(unbound))
    try:
        result, codec = handler.encode_result(await call(**values))
    except asyncio.CancelledError:
        raise
    except Cancelled as stopped:  # it noticed by itself that it was asked to stop
        raise asyncio.CancelledError(str(stopped)) from stopped
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit too
        return raised(handler, error)
    if len(result) > result_max:
        return Raised(_too_large(len(result), result_max), final=True)
    return Returned(result, codec)


def end_with(handler: HandlerDef, outcome: Any, result_max: int) -> Ended:
    """What one task of a batch came to: a result, or an exception that was returned in its place."""
    if isinstance(outcome, BaseException):
        return raised(handler, outcome)
    try:
        result, codec = handler.encode_result(outcome)
    except ResultNotSerializable as error:
        return raised(handler, error)
    if len(result) > result_max:
        return Raised(_too_large(len(result), result_max), final=True)
    return Returned(result, codec)


def _too_large(size: int, result_max: int) -> ErrorInfo:
    detail = f"{size} bytes; at most {result_max} are kept (NORIA_RESULT_MAX_BYTES)"
    if result_max == RESULT_BYTES_MAX:
        detail = (
            f"{size} bytes; at most {result_max} fit in the record. Set NORIA_RESULTS_URL to a folder or bucket, "
            "and larger ones of tasks without an actor key are kept there"
        )
    return ErrorInfo("ResultTooLarge", detail)


def raised(handler: HandlerDef, error: BaseException) -> Ended:
    match signal_in(error):
        case Snoozed() as snoozed:
            return Snooze(snoozed.after_s)
        case Retry() as retry:
            return Raised(describe(retry), after_s=retry.after_s)
        case Fail() as fail:
            return Raised(describe(fail), final=True)
    return Raised(describe(error), final=not handler.options.retries(error))


# -- what becomes of the row ------------------------------------------------------------------------


def move_of(
    run: Run,
    ended: Ended,
    jitter: float,
    children: tuple[NewTask, ...] = (),
    leave_to: int | None = None,
) -> Move:
    """`leave_to` is the band of those who may bind what does not bind here."""
    if isinstance(ended, Returned):  # first, and without the price of a pattern: most do
        return decisions.after_success(run.claim, ended.result, ended.codec, children)
    backoff = run.handler.options.backoff
    match ended:
        case Raised(error, final, after_s):
            return decisions.after_failure(
                run.claim, error, backoff=backoff, jitter=jitter, final=final, after_s=after_s
            )
        case Snooze(after_s):
            return decisions.after_snooze(run.claim, after_s)
        case Unbound(error):
            # where it stays in its band, later and later: it may bind nowhere
            delay_s = 0.0 if leave_to is not None else min(run.claim.attempt, _RELEASE_S_MAX) + jitter
            return decisions.after_release(run.claim, delay_s, error, band=leave_to)
        case Crashed(error):
            return decisions.after_child_crash(run.claim, error)


def move_when_stopped(run: Run, jitter: float) -> Move:
    backoff = run.handler.options.backoff
    match run.stop:
        case Stop.TIMEOUT:
            error = ErrorInfo("TimedOut", f"did not end within timeout_s={run.claim.timeout_s:g}")
            kind = AttemptKind.TIMED_OUT
            return decisions.after_failure(run.claim, error, kind=kind, backoff=backoff, jitter=jitter)
        case Stop.CANCEL:
            return decisions.after_cancel(run.claim)
        case Stop.DRAIN:
            return decisions.after_release(run.claim, 0.0)
        case None:
            error = ErrorInfo("CancelledError", "the handler cancelled itself")
            return decisions.after_failure(run.claim, error, backoff=backoff, jitter=jitter)


def runs_of(body: Run | Lot) -> list[Run]:
    """The tasks of a body that have not ended."""
    return list(body.live) if isinstance(body, Lot) else [body]


def stopped(body: Run | Lot, jitter: Callable[[], float]) -> Move | Moves:
    """What becomes of a body that does not end by itself."""
    if isinstance(body, Run):
        return move_when_stopped(body, jitter())
    for run in body.live:
        run.stop = body.stop
        run.context.close()
    return [(run, move_when_stopped(run, jitter())) for run in body.live]


# -- readable errors --------------------------------------------------------------------------------


def describe(error: BaseException) -> ErrorInfo:
    """Type, message and the frames that are the author's, each trimmed and free of what PostgreSQL refuses."""
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ in _PLAIN_MODULES else f"{cls.__module__}.{cls.__qualname__}"
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - __str__ is the author's code
        message = f"(its message could not be read: {type(broken).__name__})"
    return ErrorInfo(name, _clean(message, _MESSAGE_CHARS_MAX), _clean(_frames(error), _TRACEBACK_CHARS_MAX))


_PLAIN_MODULES = frozenset(
    {"builtins", "__main__", "actors.authoring.exceptions", "runtime.errors", "asyncio.exceptions"}
)


def _frames(error: BaseException) -> str:
    shown = _authors_part(error.__traceback__)
    if shown is None:
        return ""
    return "".join(traceback.format_exception(type(error), error, shown, limit=-20))


def _authors_part(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith(
        ("actors.", "concurrent.futures")
    ):
        tb = tb.tb_next
    return tb


def _clean(text: str, limit: int) -> str:
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n… {len(text) - limit} characters left out …\n{text[-half:]}"
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
