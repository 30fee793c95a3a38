"""How much the node lets in at once.

Law: a body is counted before it is read and until it is stored, so what clients can make the node hold is
bounded by two numbers. Full means 503 with Retry-After, never a queue. A full backlog (optional) means 429,
but whoever repeats a request under its key is answered: the task exists already, and nothing is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.http.problems import Problem
from runtime.core.task import TaskFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.intake.requests import TaskSpec
    from node.http.service import Service

_RETRY_AFTER_S = 1
_BACKLOG_RETRY_AFTER_S = 5


@dataclass(slots=True)
class Bodies:
    """Request bodies that are being read, validated or stored."""

    count_max: int
    bytes_max: int
    count: int = 0
    bytes: int = 0

    def enter(self, size: int) -> None:
        """Raises Problem('overloaded'). `size` in bytes, or the most that a body of unknown size may have."""
        if self.count >= self.count_max:
            raise Problem(
                "overloaded", f"{self.count} requests are being stored already", retry_after_s=_RETRY_AFTER_S
            )
        if self.bytes + size > self.bytes_max and self.count:
            raise Problem(
                "overloaded", f"{self.bytes} bytes are being stored already", retry_after_s=_RETRY_AFTER_S
            )
        self.count += 1
        self.bytes += size

    def leave(self, size: int) -> None:
        self.count -= 1
        self.bytes -= size


async def demand_room(service: Service, backlog_max: int | None, specs: Sequence[TaskSpec]) -> None:
    """Raises Problem('backlog-full') when `backlog_max` tasks wait, unless all of `specs` exist already."""
    if backlog_max is None or service.backlog() < backlog_max:
        return
    # the last one first: what is new is mostly new as a whole, and is found out by one look
    for spec in reversed(specs):
        if not await _exists(service, spec):
            raise Problem(
                "backlog-full",
                f"{service.backlog()} tasks wait; {backlog_max} are allowed",
                retry_after_s=_BACKLOG_RETRY_AFTER_S,
            )


async def _exists(service: Service, spec: TaskSpec) -> bool:
    if spec.idempotency_key is None:
        return False
    which = TaskFilter(tenant=spec.tenant, idempotency_key=spec.idempotency_key)
    return bool((await service.store.list(which, 1)).tasks)
