"""The arguments of a handler, read once, with errors that name the line to fix.

Law: a handler is `fn(ctx: Context, …)`, or a method `fn(self, ctx: Context, …)` of an actor; what follows can
be given by name, because a payload is an object. Un-annotated arguments and results are Any. A batch handler is
`fn(ctx: BatchContext, values: list[T]) -> list[R | Exception]`; it reads here as what one task of it is: T in, R out.
"""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from typing import Any, Final

from actors.authoring.batching import BatchContext, element_of, result_of
from actors.authoring.context import Context
from actors.authoring.markers import mark_of
from actors.authoring.source import refusal

if typing.TYPE_CHECKING:
    from collections.abc import Callable

_REFUSED_KINDS: Final = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only; a payload gives arguments by name",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of positions; a payload gives arguments by name",
    inspect.Parameter.VAR_KEYWORD: "takes any name; name what the handler takes, or take one dict",
}
_CONTEXTS: Final[dict[str, Any]] = {"Context": Context, "BatchContext": BatchContext}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument after ctx. `default` is the function's own, or inspect.Parameter.empty."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Signature:
    arguments: tuple[Argument, ...]
    returns: Any
    is_method: bool


def read_signature(fn: Callable[..., Any]) -> Signature:
    """Raises RegistrationError."""
    _check_kind(fn)
    parameters = list(inspect.signature(fn).parameters.values())
    is_method = bool(parameters) and parameters[0].name == "self" and _unannotated(parameters[0])
    others = parameters[is_method:]
    hints = _resolve(fn)
    is_batch = (mark := mark_of(fn)) is not None and mark.options.batch is not None
    if is_batch and is_method:
        raise refusal(fn, "batch= is for functions: the messages of a keyed actor run one after the other")
    _check_context(fn, others.pop(0) if others else None, hints, BatchContext if is_batch else Context)
    for parameter in others:
        if parameter.kind in _REFUSED_KINDS:
            raise refusal(fn, f"argument {parameter.name!r} {_REFUSED_KINDS[parameter.kind]}")
    arguments = tuple(Argument(p.name, hints.get(p.name, Any), p.default) for p in others)
    if is_batch:
        return _of_one(fn, arguments, hints.get("return", Any))
    return Signature(arguments, hints.get("return", Any), is_method)


def _of_one(fn: Callable[..., Any], arguments: tuple[Argument, ...], returns: Any) -> Signature:
    """What one task of a batch handler takes and returns."""
    wanted = "(ctx: BatchContext, mail: list[Mail]) -> list[Receipt | Exception]"
    try:
        [argument] = arguments
        value = Argument(argument.name, element_of(argument.annotation), inspect.Parameter.empty)
    except (ValueError, TypeError):
        raise refusal(fn, f"a batch handler takes one list after the context: {wanted}") from None
    if not argument.required:
        raise refusal(
            fn, f"argument {argument.name!r} has a default; every task of a batch has a value: {wanted}"
        )
    try:
        return Signature((value,), result_of(returns), is_method=False)
    except TypeError:
        raise refusal(fn, f"a batch handler returns a list or None, not {returns!r}: {wanted}") from None


def _check_kind(fn: Callable[..., Any]) -> None:
    inner = inspect.unwrap(fn)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise refusal(fn, "yields; a handler returns one result (ctx.progress and ctx.submit work meanwhile)")
    if inspect.iscoroutinefunction(inner) and not inspect.iscoroutinefunction(fn):
        raise refusal(
            fn, "a decorator around it hides that it is an async def; make its wrapper an async def, too"
        )


def _check_context(
    fn: Callable[..., Any], ctx: inspect.Parameter | None, hints: dict[str, Any], kind: type
) -> None:
    if ctx is None or ctx.kind in (ctx.VAR_POSITIONAL, ctx.VAR_KEYWORD, ctx.KEYWORD_ONLY):
        raise refusal(fn, f"its first argument must be the context: (ctx: {kind.__name__}, …)")
    if hints.get(ctx.name) is kind:
        return
    if _unannotated(ctx):
        why = f"its first argument must be annotated as the context: ({ctx.name}: {kind.__name__}, …)"
        raise refusal(fn, why)
    if hints[ctx.name] is BatchContext:
        raise refusal(
            fn, "takes a BatchContext; say how many tasks a call gets: @handler(batch=Batch(max=100))"
        )
    why = f"its first argument must be the context ({ctx.name}: {kind.__name__}), not {hints[ctx.name]!r}"
    raise refusal(fn, why)


def _resolve(fn: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as types. The contexts may be imported for type checkers only; nothing else can."""
    mark = mark_of(fn)
    scope = dict(mark.scope) if mark is not None else {}
    try:
        try:
            return typing.get_type_hints(fn, localns=scope, include_extras=True)
        except NameError as error:
            if error.name not in _CONTEXTS:
                raise
            return typing.get_type_hints(fn, localns=_CONTEXTS | scope, include_extras=True)
    except NameError as error:
        why = (
            f"the annotation {error.name!r} is not known at run time; import it outside of `if TYPE_CHECKING`"
        )
        raise refusal(fn, why) from error
    except Exception as error:
        raise refusal(fn, f"its annotations cannot be read: {type(error).__name__}: {error}") from error


def _unannotated(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is inspect.Parameter.empty
