"""@handler and @lifespan: they mark a function and return it unchanged.

Law: a marker sets one attribute and registers nothing; a Registry is built later from the modules that
settings name, and everything about the signature is checked there. So a marked function can be called like
any other.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Concatenate, Final, Protocol, TypeVar, overload

from actors.authoring.options import HandlerOptions, LimitPer, Priority
from actors.authoring.source import refusal
from runtime.core.backoff import Backoff
from runtime.core.unique import Unique
from runtime.errors import RegistrationError

if TYPE_CHECKING:
    from types import FrameType

    from actors.authoring.batching import Batch, BatchContext
    from actors.authoring.binding import Binding
    from actors.authoring.context import Context

_HANDLER: Final = "__noria_handler__"
_LIFESPAN: Final = "__noria_lifespan__"
_WORD: Final = re.compile(r"[^\W\d]\w*")

F = TypeVar(
    "F", bound="Callable[Concatenate[Context, ...], Any] | Callable[Concatenate[Any, Context, ...], Any]"
)
B = TypeVar("B", bound="Callable[[BatchContext, list[Any]], Any]")
L = TypeVar("L", bound=Callable[[], AsyncIterator[Any]])


class HandlerMark:
    """What `@handler` leaves on a function. `binding` is filled in on first use (binding.binding_of)."""

    __slots__ = ("binding", "name", "options", "scope")

    def __init__(self, name: str | None, options: HandlerOptions, scope: dict[str, Any]) -> None:
        self.name = name
        self.options = options
        self.scope = scope  # what annotations mention of an enclosing function
        self.binding: Binding | None = None


class _Marker(Protocol):
    def __call__(self, fn: F, /) -> F: ...


class _BatchMarker(Protocol):
    def __call__(self, fn: B, /) -> B: ...


@overload
def handler(fn: F, /) -> F: ...


@overload
def handler(
    name: str | None = None,
    *,
    timeout_s: float = 300.0,
    max_attempts: int = 3,
    rate_limit: str | None = None,
    burst: int | None = None,
    max_running: int | None = None,
    limit_per: LimitPer = "handler",
    unique: Unique | None = None,
    backoff: Backoff | None = None,
    give_up_on: tuple[type[BaseException], ...] = (),
    retry_on: tuple[type[BaseException], ...] = (),
    priority: Priority = "medium",
    cpu: bool = False,
    read_only: bool = False,
    batch: None = None,
) -> _Marker: ...


@overload
def handler(
    name: str | None = None,
    *,
    batch: Batch,
    timeout_s: float = 300.0,
    max_attempts: int = 3,
    rate_limit: str | None = None,
    burst: int | None = None,
    max_running: int | None = None,
    limit_per: LimitPer = "handler",
    unique: Unique | None = None,
    backoff: Backoff | None = None,
    give_up_on: tuple[type[BaseException], ...] = (),
    retry_on: tuple[type[BaseException], ...] = (),
    priority: Priority = "medium",
) -> _BatchMarker: ...


def handler(
    name: Callable[..., Any] | str | None = None,
    *,
    timeout_s: float = 300.0,
    max_attempts: int = 3,
    rate_limit: str | None = None,
    burst: int | None = None,
    max_running: int | None = None,
    limit_per: LimitPer = "handler",
    unique: Unique | None = None,
    backoff: Backoff | None = None,
    give_up_on: tuple[type[BaseException], ...] = (),
    retry_on: tuple[type[BaseException], ...] = (),
    priority: Priority = "medium",
    cpu: bool = False,
    read_only: bool = False,
    batch: Batch | None = None,
) -> Any:
    """Mark a function as a handler: an `async def` runs in the event loop, a `def` in a thread.

    `cpu=True` runs a `def` in a process of its own, which is killed at the deadline. `timeout_s` bounds one
    attempt; `max_attempts` counts failures, the first included; `backoff` is the pause between them.
    `give_up_on` are exceptions that are final; where `retry_on` is given, all others are. `unique` is
    what posted tasks are unique by, unless they say otherwise. `read_only` is for actor methods that change no
    state. `batch` makes one call take many tasks (batching.py). The name is the function's unless it is given.

    `rate_limit` ("100/s", "5/min") bounds how many attempts start in the whole cluster, `burst` how many of them
    at once after a pause, `max_running` how many run at the same time. With `limit_per="tenant"` each tenant has
    that for itself, with "key" each `limit_key` that tasks name.

    Raises RegistrationError with file and line.
    """

    def mark(fn: Callable[..., Any], frame: FrameType | None = None) -> Callable[..., Any]:
        frame = frame or _caller()
        try:
            options = HandlerOptions.make(
                timeout_s=timeout_s,
                max_attempts=max_attempts,
                rate_limit=rate_limit,
                burst=burst,
                max_running=max_running,
                limit_per=limit_per,
                unique=unique,
                backoff=Backoff() if backoff is None else backoff,
                give_up_on=give_up_on,
                retry_on=retry_on,
                priority=priority,
                cpu=cpu,
                read_only=read_only,
                batch=batch,
            )
        except RegistrationError as error:
            raise refusal(fn, str(error)) from None
        return _mark(fn, name if isinstance(name, str) else None, options, frame)

    return mark if name is None or isinstance(name, str) else mark(name, _caller())


def lifespan(fn: L) -> L:
    """Mark an async generator function that opens a resource of the node process, yields it once, and closes
    it.

    Handlers get it by type: `ctx.use(ClientSession)`. Raises RegistrationError with file and line.
    """
    marked: object = fn
    if not inspect.isasyncgenfunction(marked):
        why = "a lifespan is an async def that yields its resource once (without @asynccontextmanager)"
        raise refusal(fn, why, "lifespan")
    if inspect.signature(fn).parameters:
        raise refusal(fn, "a lifespan takes no arguments", "lifespan")
    setattr(fn, _LIFESPAN, True)
    return fn


def mark_of(thing: object) -> HandlerMark | None:
    """The mark on a function, or None."""
    found = getattr(thing, _HANDLER, None) if inspect.isfunction(thing) else None
    return found if isinstance(found, HandlerMark) else None


def is_lifespan(thing: object) -> bool:
    return inspect.isfunction(thing) and getattr(thing, _LIFESPAN, False) is True


def _mark(
    fn: Callable[..., Any], name: str | None, options: HandlerOptions, frame: FrameType | None
) -> Callable[..., Any]:
    if not inspect.isfunction(fn):
        raise RegistrationError(f"@handler marks functions and methods, not {fn!r}")
    if mark_of(fn) is not None:
        raise refusal(fn, "is marked twice")
    if options.cpu and inspect.iscoroutinefunction(fn):
        raise refusal(fn, "cpu=True is for def: an async def runs in the event loop and cannot be killed")
    setattr(fn, _HANDLER, HandlerMark(name, options, _scope_of(fn, frame)))
    return fn


# -- handlers inside functions ----------------------------------------------------------------------


def _caller() -> FrameType | None:
    """The frame that called the caller of this function: where the decorated function is being defined."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = None if frame is None else frame.f_back
    return frame


def _scope_of(fn: Callable[..., Any], frame: FrameType | None) -> dict[str, Any]:
    """What textual annotations mention of the function around `fn` (as in tests); empty for others."""
    if "<locals>" not in fn.__qualname__:
        return {}
    texts = [text for text in fn.__annotations__.values() if isinstance(text, str)]
    scope: dict[str, Any] = {}
    wanted = {word for text in texts for word in _WORD.findall(text)}
    while frame is not None and wanted:
        scope = {name: frame.f_locals[name] for name in wanted if name in frame.f_locals} | scope
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function; a class body is looked through
            break
        frame = frame.f_back
    return scope
