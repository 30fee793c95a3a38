"""Group commit of accepted tasks: whenever a connection is free, everything that waits goes in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from actors.intake.intake import Prepared
from runtime.core.task import Acceptance
from runtime.kernel.actor import Reply
from runtime.kernel.batcher import Batcher
from runtime.ports import TaskStore

_BATCH_TASKS_MAX: Final = 500
_BATCH_BYTES_MAX: Final = 4 << 20
_ROW_BYTES: Final = 200  # beside the payload
_FLUSHERS: Final = 2
_UNIQUE_FLUSHERS: Final = 1  # they may wait for each other, and nobody else for them


@dataclass(frozen=True, slots=True)
class Group:
    """One request's tasks and where its answer goes."""

    tasks: tuple[Prepared, ...]
    reply: Reply[list[Acceptance]]


Accepted = tuple[Group, list[Acceptance] | Exception]


class Accepting:
    """`told` hears what became of groups, `told_unique` of those with a unique task: these go a way of their own."""

    def __init__(
        self,
        store: TaskStore,
        waiting_max: int,
        told: Callable[[Sequence[Accepted]], None],
        told_unique: Callable[[Sequence[Accepted]], None],
    ) -> None:
        self._store = store
        self._waiting_max = waiting_max
        self._batcher = self._make("accepting", _FLUSHERS, told)
        self._unique = self._make("accepting unique tasks", _UNIQUE_FLUSHERS, told_unique)

    def put(self, group: Group) -> None:
        """Raises Overloaded when too many wait already."""
        unique = any(prepared.task.unique is not None for prepared in group.tasks)
        (self._unique if unique else self._batcher).put(group, weight=len(group.tasks))

    async def close(self) -> None:
        await self._batcher.close()
        await self._unique.close()

    def _make(
        self, name: str, flushers: int, told: Callable[[Sequence[Accepted]], None]
    ) -> Batcher[Group, list[Acceptance]]:
        return Batcher(
            self._flush,
            name=name,
            flushers=flushers,
            max_items=_BATCH_TASKS_MAX,
            max_bytes=_BATCH_BYTES_MAX,
            capacity=self._waiting_max,
            size=lambda group: sum(len(p.task.payload) + _ROW_BYTES for p in group.tasks),
            on_done=told,
        )

    async def _flush(self, groups: list[Group]) -> Sequence[list[Acceptance]]:
        return await self._store.accept([[prepared.task for prepared in group.tasks] for group in groups])
