"""@handler and @lifespan: the function stays what it was, and what is wrong names file and line."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors import Backoff, Context, RegistrationError, handler, lifespan
from actors.authoring.markers import is_lifespan, mark_of
from actors.authoring.options import HandlerOptions
from runtime.core.limits import Limit, Per, Rate
from runtime.core.task import Lane


async def test_a_marked_function_is_the_function_itself() -> None:
    async def plain(ctx: Context, x: int) -> int:
        return x + ctx.attempt

    assert handler(plain) is plain
    assert await plain(Context.for_test(), 2) == 3

    def named(ctx: Context) -> str:
        return ctx.handler

    assert handler("other", timeout_s=5)(named) is named
    assert named(Context.for_test(handler="other")) == "other"


def test_options_are_kept_with_the_contracts_defaults() -> None:
    @handler
    def bare(ctx: Context) -> None: ...

    mark = mark_of(bare)
    assert mark is not None
    assert (mark.name, mark.options) == (None, HandlerOptions())
    assert (mark.options.timeout_s, mark.options.max_attempts, mark.options.backoff) == (
        300.0,
        3,
        Backoff(1, 2, 300),
    )

    @handler(
        "scrape",
        timeout_s=30,
        max_attempts=5,
        rate_limit="100/s",
        burst=20,
        max_running=5,
        limit_per="tenant",
        backoff=Backoff(first_s=2, max_s=600),
        give_up_on=(UnicodeError,),
        retry_on=(OSError,),
        priority="high",
    )
    def full(ctx: Context) -> None: ...

    mark = mark_of(full)
    assert mark is not None
    assert mark.name == "scrape"
    assert mark.options == HandlerOptions(
        timeout_s=30,
        max_attempts=5,
        limit=Limit(Rate(100, 1.0, 20), 5, Per.TENANT),
        backoff=Backoff(first_s=2, max_s=600),
        give_up_on=(UnicodeError,),
        retry_on=(OSError,),
        priority=Lane.HIGH,
    )


def test_a_wrapper_made_with_functools_keeps_the_mark() -> None:
    @handler("inner")
    async def inner(ctx: Context) -> None: ...

    @functools.wraps(inner)
    async def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert mark_of(wrapper) is mark_of(inner)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"timeout_s": 0}, ["timeout_s", "0", "above 0"]),
        ({"timeout_s": float("nan")}, ["timeout_s", "nan"]),
        ({"timeout_s": 8 * 86400}, ["timeout_s", "604800"]),
        ({"max_attempts": 0}, ["max_attempts", "0", "1…1000"]),
        ({"max_attempts": True}, ["max_attempts", "True"]),
        ({"max_attempts": 2.5}, ["max_attempts", "2.5"]),
        ({"rate_limit": "fast"}, ["rate_limit", "'fast'", "100/s"]),
        ({"rate_limit": "0/s"}, ["rate_limit", "'0/s'"]),
        ({"rate_limit": 100}, ["rate_limit", "100"]),
        ({"burst": 5}, ["burst", "rate_limit"]),
        ({"rate_limit": "1/s", "burst": 0}, ["burst", "0", "1…1000000"]),
        ({"max_running": True}, ["max_running", "True", "1…1000000"]),
        ({"limit_per": "key"}, ["limit_per", "'key'", "max_running"]),
        ({"max_running": 1, "limit_per": "node"}, ["limit_per", "'node'", "handler, tenant, key"]),
        ({"backoff": 5}, ["backoff", "5", "Backoff("]),
        ({"give_up_on": ValueError}, ["give_up_on", "ValueError", "tuple"]),
        ({"retry_on": ("ValueError",)}, ["retry_on", "ValueError", "tuple"]),
        ({"priority": "urgent"}, ["priority", "'urgent'", "high, medium, low"]),
        ({"cpu": "yes"}, ["cpu", "'yes'"]),
    ],
)
def test_a_wrong_option_names_field_value_and_what_is_allowed(
    options: dict[str, Any], names: list[str]
) -> None:
    def fn(ctx: Context) -> None: ...

    with pytest.raises(RegistrationError) as refused:
        handler(**options)(fn)
    for name in [*names, f"{__file__}:{fn.__code__.co_firstlineno}: handler"]:
        assert name in str(refused.value)


def test_an_unknown_option_is_a_type_error_of_the_decorator() -> None:
    with pytest.raises(TypeError, match=r"handler\(\) got an unexpected keyword argument 'timeout'"):
        handler(timeout=3)  # type: ignore[call-overload]  # the point


async def _async(ctx: Context) -> None: ...
@handler
def _marked(ctx: Context) -> None: ...


class _Callable:
    def __call__(self, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("mark", "thing", "why"),
    [
        (handler(cpu=True), _async, "cpu=True is for def"),
        (handler, _marked, "marked twice"),
        (handler, _Callable(), "marks functions and methods"),
        (handler, functools.partial(_async), "marks functions and methods"),
        (handler("x"), _Callable, "marks functions and methods"),
        (lifespan, _async, "an async def that yields"),
    ],
)
def test_what_cannot_be_marked(mark: Callable[[Any], Any], thing: Any, why: str) -> None:
    with pytest.raises(RegistrationError, match=why):
        mark(thing)


def test_a_lifespan_takes_no_arguments_and_stays_itself() -> None:
    async def resource() -> AsyncIterator[int]:
        yield 1

    assert lifespan(resource) is resource
    assert is_lifespan(resource)

    async def with_argument(url: str) -> AsyncIterator[int]:
        yield 1

    with pytest.raises(RegistrationError, match="takes no arguments"):
        lifespan(with_argument)  # type: ignore[type-var]  # the point


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate.of(100, 1)),
        ("5/min", Rate.of(5, 60)),
        ("1000/10min", Rate.of(1000, 600)),
        ("1/2h", Rate.of(1, 7200)),
        ("9/d", Rate.of(9, 86400)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


def test_which_exceptions_are_tried_again() -> None:
    everything = HandlerOptions()
    assert everything.retries(ValueError())
    assert everything.retries(SystemExit())

    careful = HandlerOptions(give_up_on=(UnicodeError,), retry_on=(ValueError,))
    assert careful.retries(ValueError())
    assert not careful.retries(UnicodeDecodeError("utf-8", b"", 0, 1, ""))  # a ValueError, but given up on
    assert not careful.retries(OSError())
    assert careful.retries(ExceptionGroup("", [ValueError(), ValueError()]))
    assert not careful.retries(ExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError()])]))
