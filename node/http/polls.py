"""Long polls: answers that wait for the end of a task.

Law: they are bounded, and more are answered at once with the present state. aiohttp does not tell a handler that
its client has left; without looking, clients with a short timeout would fill the bound with polls that nobody
waits for any more. So once a second those are ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from uuid import UUID

    from aiohttp import web

    from node.http.service import Service
    from runtime.core.task import TaskView

LOOK_S: Final = 1.0


class LongPolls:
    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[asyncio.Task[Any], web.Request] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(
        self, service: Service, request: web.Request, task_id: UUID, wait_s: float
    ) -> TaskView | None:
        """The task when it is final, or its present state in time, at drain, or when too many wait already."""
        poll = asyncio.current_task()
        if poll is None or len(self._waiting) >= self._most:
            return await service.store.get(task_id)
        self._waiting[poll] = request
        try:
            return await service.wait(task_id, wait_s)
        finally:
            del self._waiting[poll]

    def end_abandoned(self) -> int:
        """End the polls whose client has left; how many."""
        abandoned = [poll for poll, request in self._waiting.items() if request.transport is None]
        for poll in abandoned:
            poll.cancel()
        return len(abandoned)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.end_abandoned()
