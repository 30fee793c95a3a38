"""Batch handlers: one call for many tasks.

    @handler(batch=Batch(max=100, wait_s=0.05))
    async def send(ctx: BatchContext, mail: list[Mail]) -> list[Receipt | Exception]: ...

    await client.submit(task(send, Mail(to="ada@example.org")))

Law: the batch is a matter of the call only. Every task has its own attempt, outcome, policy and context, as if it had
run by itself; a task's payload holds one element of the list, under the argument's name.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from actors.authoring.context import Context
from actors.authoring.exceptions import WrongOutcomes

BATCH_MAX: Final = 1_000
WAIT_S_MAX: Final = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """A call gets at most `max` tasks; the first of them waits at most `wait_s` for the others."""

    max: int = 100
    wait_s: float = 0.05


class BatchContext:
    """One call of a batch handler. `each` are the attempts' own contexts, in the order of the list.

    With them a task submits its children and shows its progress: `ctx.each[3].submit(…)`.
    """

    __slots__ = ("each",)

    def __init__(self, each: Sequence[Context]) -> None:
        self.each = tuple(each)

    @classmethod
    def for_test(cls, *resources: object, size: int = 1, **others: Any) -> BatchContext:
        """To call a batch handler directly with `size` values; the rest as in `Context.for_test`."""
        return cls([Context.for_test(*resources, **others) for _ in range(size)])

    def __len__(self) -> int:
        return len(self.each)

    def use(self, kind: type[T]) -> T:
        """The resource that is a `kind`. Raises ResourceNotFound, naming what exists."""
        return self.each[0].use(kind)

    @property
    def handler(self) -> str:
        return self.each[0].handler

    @property
    def cancelled(self) -> bool:
        """Whether the whole call should stop, for loops in threads. One task's own is `each[n].cancelled`."""
        return all(one.cancelled for one in self.each)

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled when the whole call should stop."""
        if self.cancelled:
            self.each[0].raise_if_cancelled()

    def request_cancel(self, reason: str) -> None:
        """Ask every one of them to stop (for the executor)."""
        for one in self.each:
            one.request_cancel(reason)

    def __repr__(self) -> str:
        return f"<BatchContext {self.handler} of {len(self.each)}>"


# -- what comes in and out ------------------------------------------------------------------------------


def batch_fault(value: object) -> str | None:
    """What is wrong with a handler's `batch`, or None."""
    if not isinstance(value, Batch):
        return f"{value!r} is not a Batch(max=…, wait_s=…)"
    if type(value.max) is not int or not 1 <= value.max <= BATCH_MAX:
        return f"max={value.max!r} is not a whole number from 1 to {BATCH_MAX}"
    number = isinstance(value.wait_s, int | float) and not isinstance(value.wait_s, bool)
    if not (number and 0 <= value.wait_s <= WAIT_S_MAX):
        return f"wait_s={value.wait_s!r} is not a number of seconds from 0 to {WAIT_S_MAX:g}"
    return None


def element_of(annotation: Any) -> Any:
    """Of `list[T]` or `Sequence[T]` the T, of a bare or missing one Any. Raises TypeError for what is no list."""
    if annotation in (Any, list, Sequence):
        return Any
    if get_origin(annotation) in (list, Sequence) and (parts := get_args(annotation)):
        return parts[0]
    raise TypeError(f"{annotation!r} is not a list")


def result_of(annotation: Any) -> Any:
    """Of `list[R | Exception]` the R, of None itself. Raises TypeError for what is no list."""
    if annotation in (None, type(None)):
        return None
    element = element_of(annotation)
    if get_origin(element) is Annotated or get_origin(element) not in (Union, types.UnionType):
        return None if _is_error(element) else element
    results = [part for part in get_args(element) if not _is_error(part)]
    return Union[tuple(results)] if results else None  # noqa: UP007 - made at run time


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def outcomes_of(name: str, returned: Any, count: int) -> Sequence[Any]:
    """One result or exception for each task, in order. Raises WrongOutcomes."""
    if returned is None:
        return [None] * count
    wanted = (
        f"a batch handler returns a list with one result or exception for each of its {count} tasks, or None"
    )
    if not isinstance(returned, Sequence) or isinstance(returned, str | bytes):
        raise WrongOutcomes(f"{name} returned a {type(returned).__qualname__}; {wanted}")
    if len(returned) != count:
        raise WrongOutcomes(f"{name} returned {len(returned)} outcomes; {wanted}")
    return returned


def alone(fn: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`fn` as a handler of one task: for those with an actor key, which run one after the other."""

    def outcome(returned: Any) -> Any:
        [one] = outcomes_of(name, returned, 1)
        if isinstance(one, BaseException):
            raise one
        return one

    def call(ctx: Context, args: dict[str, Any]) -> Any:
        return fn(BatchContext([ctx]), **{argument: [value] for argument, value in args.items()})

    if inspect.iscoroutinefunction(fn):

        @wraps(fn)
        async def waiting(ctx: Context, **args: Any) -> Any:
            return outcome(await call(ctx, args))

        return waiting

    @wraps(fn)
    def plain(ctx: Context, **args: Any) -> Any:
        return outcome(call(ctx, args))

    return plain
