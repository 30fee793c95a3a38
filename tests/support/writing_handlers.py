"""Handlers that write in the record's own database: a row of `effect` each time their body gets so far."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from actors import Actor, Backoff, Context, Fail, handler, task

QUICK = Backoff(first_s=0.05, max_s=0.1)
TABLES = """
CREATE TABLE effect (task uuid NOT NULL, attempt integer NOT NULL, name text NOT NULL);
CREATE TABLE once (name text UNIQUE DEFERRABLE INITIALLY DEFERRED);
"""


@handler("mail.send")
async def send(ctx: Context, to: str, n: int = 0) -> str:
    return to


class Box(Actor, name="box"):
    count: int = 0

    @handler
    async def put(self, ctx: Context, n: int) -> int:
        self.count += n
        return self.count

    @handler(max_attempts=1)
    async def write(self, ctx: Context) -> None:
        async with ctx.transaction():
            pass


@handler("write", backoff=QUICK, max_attempts=2, timeout_s=30)
async def write(ctx: Context, name: str) -> int:
    """Writes, and then does what its name says; what it says at first it does in the first attempt only."""
    async with ctx.transaction() as connection:
        await connection.execute("INSERT INTO effect VALUES ($1, $2, $3)", ctx.task_id, ctx.attempt, name)
        await _do(ctx, name, connection)
    if ctx.attempt == 1 and name == "fails after it":
        raise ValueError(name)
    if name == "is final":
        raise Fail(name)
    if ctx.attempt == 1 and name == "snoozes":
        ctx.snooze(0.01)
    if name == "begins again":
        async with ctx.transaction():
            pass
    if name == "has a child":
        ctx.submit(task(send, to="child"))
    if name == "returns much":
        await asyncio.sleep(0)
    return ctx.attempt


async def _do(ctx: Context, name: str, connection: object) -> None:
    execute = connection.execute  # type: ignore[attr-defined]
    match name:
        case "fails in it" if ctx.attempt == 1:
            raise ValueError(name)
        case "goes on after an error":
            with suppress(Exception):  # the mistake
                await execute("SELECT 1 / 0")
        case "breaks a rule at the commit":
            await execute("INSERT INTO once VALUES ('twice'), ('twice')")
        case "commits by itself":
            await execute("COMMIT")
        case "loses the connection" if ctx.attempt == 1:
            await execute("SELECT pg_terminate_backend(pg_backend_pid())")
        case "waits":
            await asyncio.sleep(60)
        case "waits in the database":
            await execute("SELECT pg_sleep(60)")
        case "is nested":
            async with connection.transaction():  # type: ignore[attr-defined]
                await execute("INSERT INTO effect VALUES ($1, 0, 'savepoint')", ctx.task_id)


@handler("times_out", backoff=QUICK, max_attempts=1, timeout_s=0.5)
async def times_out(ctx: Context) -> None:
    async with ctx.transaction() as connection:
        await connection.execute("INSERT INTO effect VALUES ($1, 1, 'times out')", ctx.task_id)
        await connection.execute("SELECT pg_sleep(60)")


@handler("plain", max_attempts=1)
async def plain(ctx: Context) -> None:
    async with ctx.transaction():
        pass


@handler("large", max_attempts=1)
async def large(ctx: Context) -> str:
    async with ctx.transaction() as connection:
        await connection.execute("INSERT INTO effect VALUES ($1, 1, 'large')", ctx.task_id)
    return "x" * 300_000
