"""A session that can be stopped between the statements of a store's call.

Every statement becomes a transaction of its own kind: begun, run, and committed as a step of its own. So a call can be
held where its rows are locked and its changes are not yet seen, which is where races live.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from runtime.adapters.postgres.connections import Session
from runtime.adapters.postgres.queries import SQL, Query

if TYPE_CHECKING:
    import asyncpg


class Steps:
    """What a store does, step by step. Stops before the step numbered `stop_at`, once, until `go_on` is set."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.stop_at: int | None = None
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()
        self.pids: set[int] = set()  # of the backends that took a step

    async def step(self, name: str, pid: int) -> None:
        self.pids.add(pid)
        if self.stop_at == len(self.done):
            self.stop_at = None
            self.stopped.set()
            await self.go_on.wait()
        self.done.append(name)


class SteppedSession(Session):
    """Make a subclass per store."""

    steps: ClassVar[Steps]

    @classmethod
    def of(cls, steps: Steps) -> type[SteppedSession]:
        return type("Stepped", (cls,), {"steps": steps})

    async def fetch(self, query: Query, *values: Any) -> list[asyncpg.Record]:
        if self.connection.is_in_transaction():
            await self._step(query.name)
            return await super().fetch(query, *values)
        async with self.transaction():
            return await self.fetch(query, *values)

    async def run(self, query: Query) -> None:
        if query is SQL.commit:
            await self._step("commit")
        await super().run(query)

    async def _step(self, name: str) -> None:
        await self.steps.step(name, self.connection.get_server_pid())
