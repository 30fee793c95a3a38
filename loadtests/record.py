"""What the record says when all is over, read straight from its tables: no node is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from tests.support.history import Attempt, Member, Outcome, Stored

_TASKS: Final = """
    SELECT t.id::text, t.idempotency_key, b.handler, b.lane, extract(epoch FROM t.created_at)::float8 AS created_s,
           CASE WHEN b.handler = 'load.receipt' THEN convert_from(t.payload, 'UTF8')::jsonb ->> 'order' END AS order_id
    FROM noria.task t JOIN noria.band b ON b.id = t.band
"""
_OUTCOMES: Final = """
    SELECT o.id::text, o.attempt, o.status, o.failures, o.crashes, convert_from(o.result, 'UTF8') AS result, l.node,
           extract(epoch FROM o.finished_at)::float8 AS finished_s
    FROM noria.outcome o LEFT JOIN noria.lease l USING (incarnation)
"""
_ATTEMPTS: Final = (
    "SELECT id::text, attempt, kind, extract(epoch FROM ended_at)::float8 AS ended_s FROM noria.attempt"
)
LANES: Final = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Task:
    """Times are Unix time by the record's clock, which is this machine's."""

    id: str
    key: str | None
    handler: str
    lane: str
    created_s: float
    order_id: str | None = None  # of a receipt: the order that made it


@dataclass(frozen=True, slots=True)
class End:
    finished_s: float
    node: str | None


@dataclass(slots=True)
class Record:
    tasks: dict[str, Task]
    outcomes: list[Outcome]
    ends: dict[str, End] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    crashed_s: list[float] = field(default_factory=list)  # when attempts of a dead node were taken over
    waiting: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    postgres: str = ""

    @property
    def stored(self) -> list[Stored]:
        return [Stored(id=task.id, key=task.key) for task in self.tasks.values()]


async def read_record(dsn: str) -> Record:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection)
    finally:
        await connection.close()


async def _read(connection: asyncpg.Connection[Any]) -> Record:
    tasks = {
        row["id"]: Task(
            row["id"], row["idempotency_key"], row["handler"], LANES[row["lane"]], row["created_s"], row["order_id"]
        )
        for row in await connection.fetch(_TASKS)
    }  # fmt: skip
    ended = await connection.fetch(_OUTCOMES)
    attempts = await connection.fetch(_ATTEMPTS)
    return Record(
        tasks=tasks,
        outcomes=[
            Outcome(
                id=row["id"],
                attempt=row["attempt"],
                status=row["status"],
                failures=row["failures"],
                crashes=row["crashes"],
                result_attempt=None if row["result"] is None else int(row["result"]),
            )
            for row in ended
        ],
        ends={row["id"]: End(row["finished_s"], row["node"]) for row in ended},
        attempts=[Attempt(id=row["id"], attempt=row["attempt"], kind=row["kind"]) for row in attempts],
        crashed_s=[row["ended_s"] for row in attempts if row["kind"] == _CRASHED],
        waiting=[row["id"] for row in await connection.fetch("SELECT id::text FROM noria.waiting")],
        running=[row["id"] for row in await connection.fetch("SELECT id::text FROM noria.running")],
        members=[
            Member(**row)
            for row in await connection.fetch("SELECT incarnation, node, state FROM noria.lease")
        ],
        postgres=await connection.fetchval("SHOW server_version"),
    )


_CRASHED: Final = 4  # attempt.kind
