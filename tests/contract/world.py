"""A store, its time, and the few steps that every test of the contract takes.

Time passes through `advance` only. Memory: the clock that the store was given moves. PostgreSQL: nobody moves
its clock, so every instant on record moves back by as much, which no statement can tell from passed time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from runtime.adapters.memory import MemoryStore
from runtime.adapters.postgres import PostgresStore
from runtime.core.keyed import Ask, actor_id
from runtime.core.task import Band, Claim, Finish, Lane, NewTask, Requeue, Stored, Take, TaskView, Verdict
from tests.support.factories import LONG_S, band_key, new_task, settlement, succeeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from runtime.ports import Store

ALL: Final = 1_000  # a limit that no test reaches
LEASE_S: Final = 100.0


class World(ABC):
    """What a test acts on."""

    store: Store

    @abstractmethod
    async def advance(self, seconds: float) -> None:
        """Let time pass, by the record's clock."""

    @abstractmethod
    async def clear(self) -> None:
        """An empty record."""

    # -- steps ---------------------------------------------------------------------------------------

    async def band(self, handler: str = "echo", lane: Lane = Lane.MEDIUM, **fields: Any) -> Band:
        return (await self.store.intern([band_key(handler, lane, **fields)]))[0]

    async def member(self, node: str = "n1", lease_s: float = LONG_S) -> int:
        """A new, active incarnation."""
        incarnation = await self.store.join(node, lease_s, {})
        await self.store.set_state(incarnation, "active")
        return incarnation

    async def dead_member(self, node: str = "gone") -> int:
        """An incarnation that was declared dead."""
        incarnation = await self.member(node, lease_s=1.0)
        await self.declare_dead(incarnation)
        return incarnation

    async def declare_dead(self, incarnation: int) -> None:
        """Its lease runs out, the others renew theirs, and one that is unbroken for a lease buries it.

        Takes 1.2 leases of time.
        """
        witness = await self.store.join("witness", LEASE_S, {})
        others = [node.incarnation for node in await self.store.nodes() if node.state not in {"left", "dead"}]
        others.remove(incarnation)
        await self.store.renew(incarnation, 1.0)
        await self.keep_alive(*others)
        assert await self.store.bury(witness, LEASE_S) == [incarnation]
        for other in others:
            await self.store.renew(other, LONG_S)
        await self.store.set_state(witness, "left")

    async def keep_alive(self, *members: int) -> None:
        """1.2 leases pass, in which these renew theirs in time; at the end 0.6 leases are left."""
        for _ in range(3):
            for member in members:
                await self.store.renew(member, LEASE_S)
            await self.advance(0.4 * LEASE_S)

    async def submit(self, band: Band, **fields: Any) -> NewTask:
        """A task that was stored."""
        task = new_task(band, **fields)
        await self.accept(task)
        return task

    async def accept(self, *tasks: NewTask) -> list[Stored]:
        """Each task as its own group; all must be stored."""
        answers = [group[0] for group in await self.store.accept([[task] for task in tasks])]
        stored = [answer for answer in answers if isinstance(answer, Stored)]
        assert len(stored) == len(tasks), answers
        return stored

    async def pull(self, band: Band | int, incarnation: int, limit: int = ALL, **how: Any) -> list[Claim]:
        number = band if isinstance(band, int) else band.id
        return await self.store.pull([Take(number, limit)], incarnation, **how)

    async def start(self, band: Band, incarnation: int, **fields: Any) -> Claim:
        """A new task that runs, as its only claim."""
        [claim] = await self.start_all(band, incarnation, 1, **fields)
        return claim

    async def start_all(self, band: Band, incarnation: int, count: int, **fields: Any) -> list[Claim]:
        """As many new tasks that run. With an actor key they are one turn: nothing of the key may wait before them."""
        tasks = [await self.submit(band, **fields) for _ in range(count)]
        one = tasks[0]
        if one.actor_type is None or one.actor_key is None:
            return await self.store.claim([(task.id, 1) for task in tasks], incarnation)
        actor = actor_id(one.tenant, one.actor_type, one.actor_key)
        [turn] = await self.store.begin_turns([Ask(actor=actor, limit=count)], [band.id], incarnation)
        return list(turn.claims)

    async def settle(self, claim: Claim, incarnation: int, move: Finish | Requeue) -> Verdict:
        [verdict] = await self.store.settle([settlement(claim, incarnation, move)])
        return verdict

    async def end(self, band: Band, incarnation: int, move: Finish | None = None, **fields: Any) -> TaskView:
        """A new task that has an outcome."""
        claim = await self.start(band, incarnation, **fields)
        assert await self.settle(claim, incarnation, move or succeeded()) is Verdict.COMMITTED
        return await self.view(claim.id)

    async def view(self, task_id: UUID) -> TaskView:
        view = await self.store.get(task_id)
        assert view is not None, f"no task {task_id}"
        return view


# -- memory ------------------------------------------------------------------------------------------


class MovableClock:
    """Stands still but for a microsecond per reading, so that what was asked later is later."""

    def __init__(self) -> None:
        self.instant = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.move(0.000_001)
        return self.instant

    def move(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


class MemoryWorld(World):
    def __init__(self) -> None:
        self.clock = MovableClock()
        self.store = MemoryStore(self.clock)

    async def advance(self, seconds: float) -> None:
        self.clock.move(seconds)

    async def clear(self) -> None:
        self.store = MemoryStore(self.clock)


# -- PostgreSQL --------------------------------------------------------------------------------------

_INSTANTS: Final = """
SELECT table_name, array_agg(column_name::text) AS columns
  FROM information_schema.columns
 WHERE table_schema = 'noria' AND data_type = 'timestamp with time zone' AND table_name <> 'migration'
 GROUP BY table_name
"""
_EMPTY: Final = """
DELETE FROM noria.lease; DELETE FROM noria.band; DELETE FROM noria.handler; DELETE FROM noria.task;
DELETE FROM noria.waiting; DELETE FROM noria.running; DELETE FROM noria.actor; DELETE FROM noria.outcome; DELETE FROM noria.attempt;
DELETE FROM noria.schedule; DELETE FROM noria.handler_limit; DELETE FROM noria.limiter;
DELETE FROM noria.dependence; DELETE FROM noria.parent_end; DELETE FROM noria.unique_task; DELETE FROM noria.tenant_pause
"""


class PostgresWorld(World):
    def __init__(self, store: Store, admin: asyncpg.Connection[Any], shifts: str) -> None:
        self.store = store
        self._admin = admin
        self._shifts = shifts

    async def advance(self, seconds: float) -> None:
        await self._admin.execute(self._shifts.replace("$1", f"{seconds:.6f}"))

    async def clear(self) -> None:
        await self._admin.execute(_EMPTY)


@asynccontextmanager
async def postgres_world(dsn: str) -> AsyncIterator[PostgresWorld]:
    """An empty world on a migrated database that nobody else uses now."""
    admin = await asyncpg.connect(dsn)
    try:
        async with PostgresStore.open(dsn) as store:
            world = PostgresWorld(store, admin, await _shifts(admin))
            await world.clear()
            yield world
    finally:
        await admin.close()


async def _shifts(admin: asyncpg.Connection[Any]) -> str:
    """Statements that move every instant on record back by $1 seconds."""
    return ";".join(
        f"UPDATE noria.{row['table_name']} SET {_back(row['columns'])}"
        for row in await admin.fetch(_INSTANTS)
    )


def _back(columns: list[str]) -> str:
    return ", ".join(f"{column} = {column} - interval '$1 s'" for column in columns)
