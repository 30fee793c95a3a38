"""Which nodes may have a key: those whose class can read its state.

Law: a node tells the state versions it knows with its handlers. A handler of an actor is placed under its name while
a key's state is of version 1 (or there is none), and under `name@version` above; the newer nodes of a rolling deploy
own the keys whose state they have turned, the others stay with everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from actors.authoring.registry import HandlerDef


def about_actors(handlers: Iterable[HandlerDef]) -> dict[str, int]:
    """State version by name of handler: what a node tells of its actors."""
    return {each.name: each.actor.state_version for each in handlers if each.actor is not None}


def placed(about: Mapping[str, Any]) -> frozenset[str]:
    """All names under which work may be placed on a node that says this about itself."""
    names = set(about.get("handlers", ()))
    for name, newest in about.get("actors", {}).items():
        names.update(placed_as(name, version) for version in range(2, newest + 1))
    return frozenset(names)


def placed_as(handler: str, state_version: int) -> str:
    """The name under which a message to a key with that state is placed."""
    return handler if state_version <= 1 else f"{handler}@{state_version}"
