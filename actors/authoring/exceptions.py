"""The ways out of a handler, beside returning.

Law: `Fail` and `Retry` are ordinary exceptions, because authors raise and may catch them. `Snoozed` and
`Cancelled` are not subclasses of Exception (like asyncio.CancelledError), so that `except Exception` in a
handler cannot swallow them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from runtime.errors import NoriaError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fail(NoriaError):
    """Final: the task becomes a dead letter now, whatever attempts are left."""


class Retry(NoriaError):
    """This attempt failed; try again after `after_s`, or after the handler's back-off when it is None.

    It counts as a failure: with `max_attempts` failures the task is a dead letter. Raises ValueError where
    `after_s` is negative or not finite.
    """

    def __init__(self, why: str = "", *, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = None if after_s is None else delay_s(after_s)


class ResultNotSerializable(Fail):
    """What the handler returned has no exact form as bytes; another attempt would not change that."""


class WrongOutcomes(NoriaError):
    """What a batch handler returned is not one outcome for each of its tasks. All of them have failed."""


class ResourceNotFound(NoriaError, LookupError):
    """`ctx.use(T)` found no resource that is a T; the message lists those that exist."""


class LifespanFailed(NoriaError):
    """A resource could not be opened or closed; names the lifespan, the cause is chained."""


class Snoozed(BaseException):
    """What `ctx.snooze` raises: this attempt ends without an outcome and burns nothing."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"snoozed for {after_s:g} s")
        self.after_s = after_s


class Cancelled(BaseException):
    """What `ctx.raise_if_cancelled()` raises in a thread: the attempt was cancelled, timed out or drained."""


def delay_s(value: float) -> float:
    """`value` as seconds. Raises ValueError unless it is finite and at least 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise ValueError(f"after_s={value!r} is not a finite number of seconds >= 0")
    return float(value)


def signal_in(error: BaseException) -> Fail | Retry | Snoozed | None:
    """The author's own verdict in `error`, also inside exception groups (a handler's TaskGroup raises those).

    Where a group holds several, Fail wins over Retry and Retry over Snoozed.
    """
    leaves = list(_leaves(error))
    for kind in (Fail, Retry, Snoozed):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
