"""Group commit of accepted tasks: whenever a connection is free, everything that waits goes in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from actors.intake import Prepared
from runtime.core.task import Acceptance
from runtime.kernel.actor import Reply
from runtime.kernel.batcher import Batcher
from runtime.ports import TaskStore

_BATCH_TASKS_MAX: Final = 500
_BATCH_BYTES_MAX: Final = 4 << 20
_ROW_BYTES: Final = 200  # beside the payload
_FLUSHERS: Final = 2


@dataclass(frozen=True, slots=True)
class Group:
    """One request's tasks and where its answer goes."""

    tasks: tuple[Prepared, ...]
    reply: Reply[list[Acceptance]]


Accepted = tuple[Group, list[Acceptance] | Exception]


class Accepting:
    def __init__(
        self, store: TaskStore, waiting_max: int, told: Callable[[Sequence[Accepted]], None]
    ) -> None:
        self._store = store
        self._batcher: Batcher[Group, list[Acceptance]] = Batcher(
            self._flush,
            name="accepting",
            flushers=_FLUSHERS,
            max_items=_BATCH_TASKS_MAX,
            max_bytes=_BATCH_BYTES_MAX,
            capacity=waiting_max,
            size=lambda group: sum(len(p.task.payload) + _ROW_BYTES for p in group.tasks),
            on_done=told,
        )

    def put(self, group: Group) -> None:
        """Raises Overloaded when too many wait already."""
        self._batcher.put(group, weight=len(group.tasks))

    async def close(self) -> None:
        await self._batcher.close()

    async def _flush(self, groups: list[Group]) -> Sequence[list[Acceptance]]:
        return await self._store.accept([[prepared.task for prepared in group.tasks] for group in groups])
