"""The resources of a node process, found by type.

Law: a resource matches by what its lifespan says it yields, or by what it is. One of exactly that type wins
over subclasses; among equals the question is ambiguous and refused.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.authoring.exceptions import ResourceNotFound

if typing.TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """`declared` is the type its lifespan's annotation yields; None where it says nothing."""

    name: str
    value: Any
    declared: type | None = None

    @property
    def types(self) -> tuple[type, ...]:
        return (type(self.value),) if self.declared is None else (self.declared, type(self.value))

    def __str__(self) -> str:
        kind = (self.declared or type(self.value)).__name__
        return kind if kind == self.name else f"{self.name} ({kind})"


class Resources:
    """What `ctx.use` searches. `missing` is added to the message when nothing is found."""

    def __init__(self, resources: Iterable[Resource] = (), missing: str = "") -> None:
        self._resources = tuple(resources)
        self._missing = missing
        self._found: dict[type, Any] = {}

    @classmethod
    def of(cls, *values: object) -> Resources:
        """Resources that exist already, as tests have them."""
        return cls(Resource(type(value).__name__, value) for value in values)

    def __len__(self) -> int:
        return len(self._resources)

    def find(self, kind: type[T]) -> T:
        """Raises ResourceNotFound."""
        wanted = typing.get_origin(kind) or kind
        if wanted not in self._found:
            self._found[wanted] = self._search(wanted)
        found: T = self._found[wanted]
        return found

    def _search(self, kind: type) -> Any:
        exact = [resource for resource in self._resources if kind in resource.types]
        matches = exact or [resource for resource in self._resources if _is_a(resource, kind)]
        if len(matches) == 1:
            return matches[0].value
        name = getattr(kind, "__name__", repr(kind))
        if matches:
            raise ResourceNotFound(
                f"several resources are a {name}: {_listed(matches)}; ask for a narrower type"
            )
        hint = f"; {self._missing}" if self._missing else ""
        exist = f"there are {_listed(self._resources)}" if self._resources else "there are none"
        raise ResourceNotFound(
            f"no resource is a {name}; {exist} (resources come from @lifespan functions){hint}"
        )


def _is_a(resource: Resource, kind: type) -> bool:
    try:
        return isinstance(resource.value, kind) or any(issubclass(have, kind) for have in resource.types)
    except TypeError:  # a Protocol that cannot be checked at run time
        return False


def _listed(resources: Iterable[Resource]) -> str:
    return ", ".join(str(resource) for resource in resources)
