"""What a handler's signature may be; what it may not be names the line to fix."""

from __future__ import annotations

import functools
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from pydantic import SecretStr

from actors import Context, RegistrationError, handler
from actors.authoring.binding import binding_of
from actors.authoring.signature import read_signature

if TYPE_CHECKING:
    from pathlib import Path


class Opaque:
    pass


class BareTypedDict(TypedDict):
    x: int


def refused(fn: Callable[..., Any]) -> str:
    if not hasattr(fn, "__noria_handler__"):
        fn = handler(fn)
    with pytest.raises(RegistrationError) as error:
        binding_of(fn)
    text = str(error.value)
    assert text.startswith(f"{__file__}:{fn.__code__.co_firstlineno}: handler "), text
    return text


def test_arguments_with_their_defaults() -> None:
    def fn(ctx: Context, a: int, b: str = "x", *, c: Decimal | None = None, d=3) -> list[int]: ...  # type: ignore[no-untyped-def,empty-body]  # noqa: ANN001 - the point

    signature = read_signature(fn)
    assert [(each.name, each.annotation, each.required) for each in signature.arguments] == [
        ("a", int, True),
        ("b", str, False),
        ("c", Decimal | None, False),
        ("d", Any, False),
    ]
    assert signature.returns == list[int]
    assert not signature.is_method


def test_methods_are_recognised_by_self() -> None:
    class Thing:
        def method(self, ctx: Context, a: int) -> None: ...

    signature = read_signature(Thing.method)
    assert signature.is_method
    assert [each.name for each in signature.arguments] == ["a"]


def test_the_context_may_be_imported_for_type_checkers_only() -> None:
    scope: dict[str, Any] = {"__name__": "elsewhere"}
    exec("from __future__ import annotations\ndef fn(ctx: Context, x: int) -> None: ...", scope)  # noqa: S102 - a module without the import
    assert [each.annotation for each in read_signature(scope["fn"]).arguments] == [int]


def test_classes_of_an_enclosing_function_are_found() -> None:
    @dataclass
    class Local:
        x: int

    @handler
    def bare(ctx: Context, local: Local) -> Local: ...  # type: ignore[empty-body]

    @handler("named")
    def named(ctx: Context, local: list[Local]) -> None: ...

    class Group:
        @handler
        def method(self, ctx: Context, local: Local) -> None: ...

    assert binding_of(bare).bind(b'{"local":{"x":1}}') == {"local": Local(1)}
    assert binding_of(named).bind(b'{"local":[{"x":1}]}') == {"local": [Local(1)]}
    assert binding_of(Group.method).bind(b'{"local":{"x":1}}') == {"local": Local(1)}


def test_no_context() -> None:
    def nothing() -> None: ...
    def unannotated(ctx, x: int) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001 - the point
    def other(x: int) -> None: ...
    def keyword(*, ctx: Context) -> None: ...
    def splat(*ctx: Context) -> None: ...

    assert "must be the context" in refused(nothing)
    assert "must be annotated as the context: (ctx: Context, …)" in refused(unannotated)
    assert "must be the context (x: Context), not <class 'int'>" in refused(other)
    assert "must be the context" in refused(keyword)
    assert "must be the context" in refused(splat)


def test_arguments_that_a_payload_cannot_name() -> None:
    def positional(ctx: Context, x: int, /) -> None: ...
    def args(ctx: Context, *xs: int) -> None: ...
    def kwargs(ctx: Context, **xs: int) -> None: ...

    assert "argument 'x' is positional-only" in refused(positional)
    assert "argument 'xs' takes any number of positions" in refused(args)
    assert "argument 'xs' takes any name" in refused(kwargs)


def test_annotations_that_do_not_exist_at_run_time() -> None:
    def fn(ctx: Context, path: Path) -> None: ...

    assert "'Path' is not known at run time" in refused(fn)


def test_types_that_json_cannot_carry() -> None:
    def argument(ctx: Context, x: Opaque) -> None: ...
    def result(ctx: Context) -> Opaque: ...  # type: ignore[empty-body]
    def callback(ctx: Context, x: Callable[[int], int]) -> None: ...
    def secret(ctx: Context, x: SecretStr) -> None: ...
    def stream(ctx: Context, x: typing.Iterable[int]) -> None: ...
    def nested(ctx: Context, x: dict[str, list[typing.Iterable[int]]]) -> None: ...

    assert "cannot be carried as JSON" in refused(argument)
    assert "Opaque" in refused(result)
    assert "cannot be carried as JSON" in refused(callback)
    assert "asterisks" in refused(secret)
    assert "read only once" in refused(stream)
    assert "read only once" in refused(nested)


@pytest.mark.skipif("sys.version_info >= (3, 12)", reason="typing.TypedDict is fine from 3.12 on")
def test_the_typed_dict_of_old_pythons_gets_a_hint() -> None:
    def fn(ctx: Context, x: BareTypedDict) -> None: ...

    assert "import TypedDict from typing_extensions" in refused(fn)


def test_generators_are_no_handlers() -> None:
    def sync(ctx: Context) -> Iterator[int]:
        yield 1

    async def asynchronous(ctx: Context) -> AsyncIterator[int]:
        yield 1

    assert "yields; a handler returns one result" in refused(sync)
    assert "yields; a handler returns one result" in refused(asynchronous)


def test_a_wrapper_that_hides_an_async_def() -> None:
    async def inner(ctx: Context) -> None: ...

    @functools.wraps(inner)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    marked = handler(wrapper)
    with pytest.raises(RegistrationError, match="make its wrapper an async def"):
        binding_of(marked)


def test_an_unmarked_function_is_no_handler() -> None:
    def fn(ctx: Context) -> None: ...

    with pytest.raises(RegistrationError, match="not marked with @handler"):
        binding_of(fn)
