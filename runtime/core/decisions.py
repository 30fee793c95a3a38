"""What the end of an attempt leads to, as data: finish, or back to waiting.

Law: decisions are returned, never performed, and never raise for what a handler did. Three counters, three
meanings: `attempt` only grows, and fences; `failures` counts against `max_attempts`; `crashes` counts deaths
of the process around the task. Snooze, release and cancel burn nothing. Randomness is passed in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from runtime.core.backoff import Backoff
from runtime.core.backoff import delay_s as backoff_s
from runtime.core.task import AttemptKind, Codec, ErrorInfo, Finish, NewTask, Reason, Requeue, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CRASHES: Final = 3
SUSPECT_FROM_CRASHES: Final = 2
DELAY_S_MAX: Final = 10 * 365.25 * 86_400  # ten years; what is more would only overflow an instant somewhere

EXPIRED: Final = ErrorInfo("Expired", "not started before its expires_at")


class Counters(Protocol):
    """What the decisions need to know of a task, as it was when the attempt began: a Claim, an Orphan."""

    @property
    def failures(self) -> int: ...
    @property
    def crashes(self) -> int: ...
    @property
    def max_attempts(self) -> int: ...


def after_success(
    counters: Counters, result: bytes, codec: Codec = Codec.JSON, children: Sequence[NewTask] = ()
) -> Finish:
    """The outcome with its result; `children` are committed with it."""
    return Finish(
        status=Status.SUCCEEDED,
        result=result,
        result_codec=codec,
        failures=counters.failures,
        crashes=counters.crashes,
        children=tuple(children),
    )


def after_failure(
    counters: Counters,
    error: ErrorInfo,
    *,
    kind: AttemptKind = AttemptKind.FAILED,
    backoff: Backoff,
    jitter: float,
    final: bool = False,
    after_s: float | None = None,
) -> Finish | Requeue:
    """One failure more: a dead letter when it is `final` or the last allowed one, else a retry.

    `kind` is FAILED or TIMED_OUT. `after_s`, where the handler asked for it, replaces the back-off.
    """
    failures = counters.failures + 1
    if final or failures >= counters.max_attempts:
        return Finish(status=Status.FAILED, error=error, failures=failures, crashes=counters.crashes)
    wait_s = backoff_s(backoff, failures, jitter) if after_s is None else after_s
    return _requeue(kind, Reason.RETRY_BACKOFF, wait_s, (failures, counters.crashes), error)


def after_snooze(counters: Counters, after_s: float) -> Requeue:
    """The handler asked to be called again later."""
    budgets = (counters.failures, counters.crashes)
    return _requeue(AttemptKind.SNOOZED, Reason.SNOOZED, after_s, budgets)


def after_release(
    counters: Counters, delay_s: float = 0.0, error: ErrorInfo | None = None, *, band: int | None = None
) -> Requeue:
    """This node hands it back, to those who serve `band`: drain, or as `error` says: arguments that do not bind."""
    budgets = (counters.failures, counters.crashes)
    move = _requeue(AttemptKind.RELEASED, Reason.RELEASED, delay_s, budgets, error)
    return move if band is None else replace(move, band=band)


def after_cancel(counters: Counters, error: ErrorInfo | None = None) -> Finish:
    """Somebody asked for it, and the body has ended. Without an error, like one cancelled while it waited."""
    return Finish(status=Status.CANCELLED, error=error, failures=counters.failures, crashes=counters.crashes)


def after_expiry(counters: Counters) -> Finish:
    """Its `expires_at` had passed when its turn came."""
    return after_cancel(counters, EXPIRED)


def after_crash(counters: Counters, *, alone: bool, max_crashes: int = MAX_CRASHES) -> Finish | Requeue:
    """The process died while it ran; `alone` says that nothing ran beside it.

    The first crash is taken for innocent (an operator's kill -9, a neighbour's fault): back among the
    ordinary at once. If every task that ran beside a crash became a suspect, one kill -9 would serialise all
    work of a node, because suspects run one at a time. From the second crash on it is a suspect, until it
    ends; and a suspect's crash is proof: with its budget used up it becomes a dead letter. So a poison task
    goes and its neighbours stay, for one that never crashed alone is never given up.
    Crashes do not touch `failures`.
    """
    crashes = counters.crashes + 1
    error = ErrorInfo("NodeCrashed", _crash_message(crashes, alone=alone))
    if alone and crashes >= max_crashes:
        return Finish(status=Status.FAILED, error=error, failures=counters.failures, crashes=crashes)
    return _requeue(AttemptKind.CRASHED, Reason.CRASHED, 0.0, (counters.failures, crashes), error)


def after_child_crash(
    counters: Counters, error: ErrorInfo, *, max_crashes: int = MAX_CRASHES
) -> Finish | Requeue:
    """Only the child process that ran its body died (`cpu=True`).

    Nothing ran beside it there, so each such crash counts as proof; and it endangers nobody, so it needs not
    run alone.
    """
    crashes = counters.crashes + 1
    if crashes >= max_crashes:
        return Finish(status=Status.FAILED, error=error, failures=counters.failures, crashes=crashes)
    move = _requeue(AttemptKind.CRASHED, Reason.CRASHED, 0.0, (counters.failures, crashes), error)
    return replace(move, suspect=False)


def _crash_message(crashes: int, *, alone: bool) -> str:
    times = "once" if crashes == 1 else f"{crashes} times"
    beside = ", the last time with nothing beside it" if alone else ""
    return f"the process that ran this task died {times}{beside}"


def _requeue(
    kind: AttemptKind, reason: Reason, wait_s: float, budgets: tuple[int, int], error: ErrorInfo | None = None
) -> Requeue:
    failures, crashes = budgets
    return Requeue(
        kind=kind,
        # Authors' numbers are checked where they enter. This keeps the others of a batch safe; NaN becomes 0.
        delay_s=min(max(0.0, wait_s), DELAY_S_MAX),
        reason=reason,
        failures=failures,
        crashes=crashes,
        error=error,
        suspect=crashes >= SUSPECT_FROM_CRASHES,
    )
