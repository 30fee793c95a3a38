"""The state of a keyed actor: from its class to JSON and back, across versions of the class.

Law: what a node cannot read whole it does not read at all. Fields that are missing get their first values, unknown
ones are refused (a commit would drop them), older versions go through the author's `migrate`, newer ones are never
even asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NotRequired

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from actors.authoring.actor import Actor, StateField, actor_methods, state_fields
from actors.authoring.exact import CONFIG, Converter, Inexact
from actors.authoring.exceptions import Fail
from actors.authoring.limits import name_fault
from actors.authoring.source import refusal
from runtime.errors import NoriaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATE_BYTES_MAX: Final = 1 << 20


class StateNotStorable(Fail):
    """What a handler left in the state has no exact form as JSON, or is too large; the state stays as it was."""


class StateNotLoadable(NoriaError):
    """The stored state is not what this node's class takes; the message waits for a node that has the right one."""


@dataclass(frozen=True, slots=True, eq=False)
class ActorDef:
    """A class of keyed actors as a node runs it. Raises RegistrationError from `of`."""

    name: str
    cls: type[Actor]
    state_version: int
    passes: bool  # messages pass those before them that have to wait
    idle_s: float
    fields: tuple[str, ...]
    converter: Converter

    @classmethod
    def of(cls, kind: type[Actor]) -> ActorDef:
        name = kind.__noria_name__
        if fault := name_fault(name):
            raise refusal(
                kind, f'the name {name!r} cannot be used: {fault}; class …(Actor, name="…")', "actor"
            )
        version: object = kind.state_version
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= _VERSION_MAX:
            raise refusal(kind, f"state_version={version!r} is not an int from 1 to {_VERSION_MAX}", "actor")
        policy: object = kind.head_of_line
        if policy not in ("wait", "pass"):
            raise refusal(kind, f"head_of_line={policy!r} is neither 'wait' nor 'pass'", "actor")
        idle_s: object = kind.idle_s
        if not isinstance(idle_s, int | float) or not idle_s >= 0:
            raise refusal(kind, f"idle_s={idle_s!r} is not a number of seconds", "actor")
        fields = tuple(each.name for each in state_fields(kind))
        return cls(name, kind, version, policy == "pass", idle_s, fields, _converter(kind))

    @property
    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """By full name."""
        return actor_methods(self.cls)

    def first(self) -> Actor:
        """An instance for a key that has no state yet."""
        return self.cls()

    def load(self, state: bytes, version: int) -> Actor:
        """An instance with a state that was written as `version`. Raises StateNotLoadable."""
        try:
            if version != self.state_version:
                state = to_json(self.cls.migrate(orjson.loads(state), version))
            return self.cls(**self.converter.validator.validate_json(state))
        except ValidationError as error:
            faults = "; ".join(
                f"{'/'.join(map(str, each['loc']))}: {each['msg']}"
                for each in error.errors(include_url=False, include_context=False, include_input=False)[:3]
            )
            why = f"its state (version {version}) is not that of version {self.state_version}: {faults}"
            raise StateNotLoadable(f"{self.name}: {why}") from error
        except Exception as error:
            why = f"migrate from state version {version} to {self.state_version} failed"
            raise StateNotLoadable(f"{self.name}: {why}: {type(error).__name__}: {error}") from error

    def dump(self, actor: Actor) -> bytes:
        """The state of an instance. Raises StateNotStorable."""
        try:
            raw = self.converter.write({name: getattr(actor, name) for name in self.fields})
        except Inexact as error:
            raise StateNotStorable(f"{self.name}: the state cannot be kept as JSON: {error}") from error
        if len(raw) > STATE_BYTES_MAX:
            raise StateNotStorable(f"{self.name}: {len(raw)} bytes of state; at most {STATE_BYTES_MAX}")
        return raw


_VERSION_MAX: Final = 1_000


def _converter(kind: type[Actor]) -> Converter:
    fields = state_fields(kind)
    for each in fields:
        if each.factory is None:
            why = f"state field {each.name} has no first value; a new key begins with it: {each.name}: … = …"
            raise refusal(kind, why, "actor")
    try:
        converter = Converter.of(TypeAdapter(_typed_dict(fields)))
        converter.write({each.name: each.factory() for each in fields if each.factory is not None})
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise refusal(kind, f"its state cannot be kept as JSON: {first}", "actor") from error
    return converter


def _typed_dict(fields: tuple[StateField, ...]) -> Any:
    kind = TypedDict("State", {each.name: NotRequired[each.annotation] for each in fields})  # type: ignore[misc]  # made from a class at run time
    kind.__pydantic_config__ = ConfigDict(**CONFIG, extra="forbid")  # type: ignore[attr-defined]  # pydantic reads it
    return kind
