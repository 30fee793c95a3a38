"""What the world hears of unique tasks beside what it hears of any: metrics, and the ends of those that were replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from actors.router.accepting import Accepted
from actors.world import World
from runtime.core.task import Duplicate, NotUnique, State, StoredInstead
from runtime.core.unique import REPLACED

_METRIC: Final = "unique_tasks_total"


def tell_of_unique(world: World, batch: Sequence[Accepted]) -> list[UUID]:
    """The tasks that were cancelled, because others took their places."""
    counts: Counter[str] = Counter()
    replaced: list[UUID] = []
    for group, answer in batch:
        if isinstance(answer, Exception):
            continue
        for prepared, acceptance in zip(group.tasks, answer, strict=True):
            match acceptance:
                case StoredInstead():
                    counts["replaced"] += 1
                    replaced.append(acceptance.replaced)
                    world.activity.events.publish(
                        acceptance.replaced,
                        world.bands[prepared.task.band].handler,
                        State.CANCELLED,
                        acceptance.replaced_attempt,
                        REPLACED,
                    )
                case NotUnique():
                    counts["rejected"] += 1
                case Duplicate() if prepared.task.unique is not None:
                    counts["found"] += 1
                case _:
                    pass
    for what, count in counts.items():
        world.telemetry.count(_METRIC, count, what=what)
    return replaced
