"""Keyed actors as their authors see them: a class with state fields and handler methods.

Law: state is what is annotated and public; its defaults are immutable, or come from
`field(default_factory=…)`, so that no two keys ever share an object. Defining a class registers nothing and
checks nothing but its own syntax. An instance is plain: a test may make one with some state and call its
methods.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    dataclass_transform,
    overload,
)

from actors.authoring.binding import binding_of
from actors.authoring.limits import key_fault
from actors.authoring.markers import mark_of
from actors.authoring.source import refusal
from actors.authoring.task import Task
from runtime.errors import InvalidInput

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from actors.authoring.context import Context

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_MUTABLE: Final = (list, dict, set, bytearray)
_STATE: Final = "__noria_state__"


@dataclass(frozen=True, slots=True)
class Default:
    """What `field()` leaves on the class: how the first value of a new key is made."""

    factory: Callable[[], Any]


@overload
def field(*, default: T) -> T: ...


@overload
def field(*, default_factory: Callable[[], T]) -> T: ...


def field(*, default: Any = None, default_factory: Callable[[], Any] | None = None) -> Any:
    """A state field's first value: `items: list[str] = field(default_factory=list)`."""
    return Default((lambda: default) if default_factory is None else default_factory)


@dataclass(frozen=True, slots=True)
class StateField:
    """One field of an actor's state. `factory` is None where a new key would have no value."""

    name: str
    annotation: Any
    factory: Callable[[], Any] | None


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Actor:
    """Base of keyed actors. Handlers are named `<name>.<method>`; the name is the class's in lower case
    unless `class Account(Actor, name="account")` gives it.

    Raise `state_version` when the meaning of the state changes, and let `migrate` turn an older state into
    the new. `head_of_line` says what the messages behind one that has to wait (for a retry, a snooze, a pause) do:
    "wait", so that the order is kept, or "pass". An instance that got no message for `idle_s` seconds is dropped
    from memory; its state is on record.
    """

    state_version: ClassVar[int] = 1
    head_of_line: ClassVar[Literal["wait", "pass"]] = "wait"
    idle_s: ClassVar[float] = 300.0
    __noria_name__: ClassVar[str] = "actor"

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__noria_name__ = cls.__name__.lower() if name is None else name

    def __init__(self, **state: Any) -> None:
        """An instance with the first values of its fields, but for those given. Raises TypeError."""
        fields = state_fields(type(self))
        unknown = state.keys() - {each.name for each in fields}
        if unknown:
            raise TypeError(f"{type(self).__qualname__} has no state field {', '.join(sorted(unknown))}")
        for each in fields:
            if each.name in state:
                value = state[each.name]
            elif each.factory is not None:
                value = each.factory()
            else:
                raise TypeError(f"{type(self).__qualname__} needs a value for its state field {each.name}")
            setattr(self, each.name, value)

    @classmethod
    def migrate(cls, state: dict[str, Any], from_version: int) -> dict[str, Any]:
        """`state` as version `from_version` stored it, turned into that of `state_version`. By default
        unchanged.
        """
        del from_version
        return state

    def __repr__(self) -> str:
        state = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in state_fields(type(self)))
        return f"{type(self).__qualname__}({state})"


A = TypeVar("A", bound=Actor)


@dataclass(frozen=True, slots=True)
class ActorRef(Generic[A]):
    """One actor by class and key; made by `actor(Account, "42")`."""

    cls: type[A]
    key: str

    @overload
    def task(
        self,
        method: Callable[Concatenate[A, Context, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Task[R]: ...

    @overload
    def task(
        self, method: Callable[Concatenate[A, Context, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[R]: ...

    def task(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task[Any]:
        """A message to this actor, as a value to submit: `actor(Account, "42").task(Account.deposit,
        amount_cents=5)`.

        Raises InvalidInput naming each wrong argument, RegistrationError where `method` is no handler of the
        class.
        """
        names = [name for name, each in actor_methods(self.cls).items() if each is method]
        if not names:
            raise refusal(method, f"is not a handler of {self.cls.__qualname__}", "method")
        binding = binding_of(method)
        return Task(
            handler=names[0], payload=binding.encode(args, kwargs), actor_key=self.key, result=binding.result
        )


def actor(cls: type[A], key: str) -> ActorRef[A]:
    """The actor of this class with this key. Raises InvalidInput where it cannot be a key."""
    if fault := key_fault(key):
        raise InvalidInput(f"actor key: {fault}", (("#/actor_key", fault),))
    return ActorRef(cls, key)


def actor_methods(cls: type[Actor]) -> Mapping[str, Callable[..., Any]]:
    """The handlers of a class by their full names; inherited ones count under this class's name."""
    found: dict[str, Callable[..., Any]] = {}
    for attribute in dir(cls):
        method = getattr(cls, attribute)
        mark = mark_of(method)
        if mark is not None:
            found[f"{cls.__noria_name__}.{mark.name or attribute}"] = method
    return found


def state_fields(cls: type[Actor]) -> tuple[StateField, ...]:
    """The fields of its state, bases first. Raises RegistrationError."""
    known: tuple[StateField, ...] | None = cls.__dict__.get(_STATE)
    if known is None:
        known = tuple(_read_state(cls))
        setattr(cls, _STATE, known)
    return known


def _read_state(cls: type[Actor]) -> list[StateField]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        why = (
            f"the annotation {error.name!r} is not known at run time; import it outside of `if TYPE_CHECKING`"
        )
        raise refusal(cls, why, "actor") from error
    fields: list[StateField] = []
    for name, annotation in hints.items():
        if name.startswith("_") or typing.get_origin(annotation) is ClassVar or annotation is ClassVar:
            continue
        fields.append(StateField(name, annotation, _factory(cls, name)))
    return fields


def _factory(cls: type[Actor], name: str) -> Callable[[], Any] | None:
    if not hasattr(cls, name):
        return None
    default = getattr(cls, name)
    if isinstance(default, Default):
        return default.factory
    if isinstance(default, _MUTABLE):
        kind = type(default).__name__
        why = f"state field {name}: a {kind} would be shared; write field(default_factory={kind})"
        raise refusal(cls, why, "actor")
    return lambda: default
