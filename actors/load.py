"""How busy a node is, in a few numbers: what it tells with each renewal of its lease, and how the others read it.

So everybody who watches any node sees all of them, with or without a broker, and it costs the record no statement more.
What is told is for people and may be some seconds old: nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from actors.authoring.registry import Kind
from actors.world import World

_HANDLERS_MAX: Final = 20  # the busiest: the row stays small enough to be updated in place
RATES: Final = ("accepted", "succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Load:
    """`running` of at most `limit` bodies; `rates` of tasks and `handlers` (attempts that succeeded, and that failed) a
    second, means of 10 s. None: not told."""

    running: int | None = None
    limit: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    handlers: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def load_of(world: World) -> dict[str, object]:
    """Of this node, made anew each time: another thread reads it."""
    activity = world.activity
    working = {name: activity.handlers.per_s(name) for name in world.registry.names}
    busiest = sorted((name for name in working if any(working[name])), key=lambda name: -sum(working[name]))
    return {
        "running": world.capacity.taken,
        "limit": sum(world.limits.of(kind) for kind in Kind),
        "rates": {name: round(activity.rates.per_s(name), 1) for name in RATES},
        "handlers": {name: [round(per_s, 1) for per_s in working[name]] for name in busiest[:_HANDLERS_MAX]},
    }


def read_load(told: Mapping[str, object]) -> Load:
    """What a member told, perhaps of another version: what is not understood counts as not told."""
    rates, handlers = told.get("rates"), told.get("handlers")
    return Load(
        running=_whole(told.get("running")),
        limit=_whole(told.get("limit")),
        rates=_numbers(rates) if isinstance(rates, dict) else {},
        handlers={
            str(name): (float(pair[0]), float(pair[1])) for name, pair in handlers.items() if _is_pair(pair)
        }
        if isinstance(handlers, dict)
        else {},
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items() if isinstance(value, int | float)}


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(n, int | float) for n in value)
    )
