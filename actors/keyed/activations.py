"""Instances of actors that stay in memory between two turns.

Law: a copy of what is on record, never more: it is used only if its version is still that of the record, and may be
dropped at any time without asking anybody. So there is nothing to hand over when a key moves to another node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

from actors.authoring.actor import Actor
from actors.authoring.registry import HandlerDef
from actors.authoring.state import ActorDef

_KEPT_MAX: Final = 10_000
_LOOKED_AT: Final = 1_000  # of those longest unused, when idle ones are looked for


@dataclass(slots=True, eq=False)
class Activation:
    """`state` is what the instance was when it was on record as `version`, written by its own class."""

    definition: ActorDef
    instance: Actor
    state: bytes
    version: int
    used_s: float = 0.0
    _bound: dict[str, HandlerDef] = field(default_factory=dict)

    def bound(self, handler: HandlerDef) -> HandlerDef:
        """The handler with this instance as its self."""
        made = self._bound.get(handler.name)
        if made is None:
            made = self._bound[handler.name] = bound(handler, self.instance)
        return made


def bound(handler: HandlerDef, instance: Actor) -> HandlerDef:
    """A method as a function of the context alone."""
    return handler.with_fn(partial(handler.fn, instance))


class Activations:
    def __init__(self) -> None:
        self._kept: OrderedDict[UUID, Activation] = OrderedDict()  # the longest unused first

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, actor: UUID) -> Activation | None:
        return self._kept.get(actor)

    def keep(self, actor: UUID, activation: Activation, now_s: float) -> None:
        activation.used_s = now_s
        self._kept[actor] = activation
        self._kept.move_to_end(actor)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)

    def drop(self, actor: UUID) -> None:
        self._kept.pop(actor, None)

    def passivate(self, now_s: float, busy: Iterable[UUID]) -> None:
        """Drop those that got no message for their class's time."""
        active = frozenset(busy)
        idle = [
            actor
            for actor, each in list(self._kept.items())[:_LOOKED_AT]
            if now_s - each.used_s >= each.definition.idle_s and actor not in active
        ]
        for actor in idle:
            del self._kept[actor]
