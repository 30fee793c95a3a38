"""Tasks that applications enqueue by SQL, and handlers that write in the record's own database, on a real node."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from actors import Harness, Task
from node.client import Client, TaskCancelled, TaskFailed, enqueue
from runtime.core.task import State
from tests.support.processes import free_port, node, wait_url
from tests.support.writing_handlers import TABLES, plain, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HANDLERS: Final = Path(__file__).parent.parent / "support" / "writing_handlers.py"
WITHIN_S: Final = 20.0

pytestmark = pytest.mark.allow_blocking("processes are started, and it reads sources")


@asynccontextmanager
async def running(dsn: str, **settings: str) -> AsyncIterator[tuple[Client, asyncpg.Connection[Any]]]:
    """A client of a node, and an application's connection to its database."""
    port = free_port()
    environment = {
        "NORIA_POSTGRES_DSN": dsn, "NORIA_HTTP_PORT": str(port), "NORIA_HANDLERS": str(HANDLERS), **settings,
    }  # fmt: skip
    app = await asyncpg.connect(dsn)
    try:
        await app.execute(TABLES)
        with node(environment) as process:
            url = f"http://127.0.0.1:{port}"
            await asyncio.to_thread(wait_url, f"{url}/readyz", process=process, timeout_s=WITHIN_S)
            async with Client(url) as client:
                yield client, app
    finally:
        await app.close()


async def ended(client: Client, task_id: Any) -> tuple[str, str]:
    """How it ended: "succeeded" with its result, or "failed" with the error's message."""
    try:
        return "succeeded", str(await client.handle(str(task_id)).result(WITHIN_S))
    except TaskFailed as failed:
        return "failed", str(failed)


async def test_what_sql_enqueues_runs_or_ends_with_an_error_that_names_the_field(pg_dsn: str) -> None:
    async with running(pg_dsn) as (client, app):
        async with app.transaction():
            first = await enqueue(app, "mail.send", {"to": "a"}, idempotency_key="k")
            no_field = await enqueue(app, "mail.send", {"tu": "a"})
            wrong = await app.fetchval(
                """SELECT noria_api.enqueue('mail.send', '{"to": "a", "n": "many"}')"""
            )
            nul = await app.fetchval(r"""SELECT noria_api.enqueue('mail.send', '{"to": "\u0000"}')""")
            blocks = await enqueue(app, "box.put", {"n": "x"}, actor_key="b")
            behind = await enqueue(app, "box.put", {"n": 2}, actor_key="b")
        assert await ended(client, first) == ("succeeded", "a")
        for task_id, named in (
            (no_field, "to is required"),
            (wrong, "n should be"),
            (nul, "NUL"),
            (blocks, "n should be"),
        ):
            state, text = await ended(client, task_id)
            assert (state, named in text) == ("failed", True), text
        assert await ended(client, behind) == ("succeeded", "2")
        again = await client.submit("mail.send", {"to": "a"}, idempotency_key="k")
        assert again.id == str(first)
        assert (await client.get(str(wrong))).failures == 1, "nobody tries again what can only fail"


ENDS: Final[dict[str, tuple[str, str, list[int]]]] = {  # state, text, attempts whose writes are there
    "works": ("succeeded", "1", [1]),
    "is nested": ("succeeded", "1", [0, 1]),
    "has a child": ("succeeded", "1", [1]),
    "fails in it": ("succeeded", "2", [2]),
    "fails after it": ("succeeded", "2", [2]),
    "snoozes": ("succeeded", "2", [2]),
    "loses the connection": ("succeeded", "2", [2]),
    "is final": ("failed", "is final", []),
    "begins again": ("failed", "once in each attempt", []),
    "goes on after an error": ("failed", "current transaction is aborted", []),
    "breaks a rule at the commit": ("failed", "duplicate key value violates unique constraint", []),
    "commits by itself": ("failed", "ended the transaction of ctx.transaction() by itself", [1, 2]),
}


async def writes(app: asyncpg.Connection[Any], task_id: str) -> list[int]:
    rows = await app.fetch("SELECT attempt FROM effect WHERE task = $1::uuid ORDER BY attempt", task_id)
    return [row["attempt"] for row in rows]


async def test_what_a_handler_writes_is_there_when_its_outcome_is(pg_dsn: str) -> None:
    async with running(pg_dsn) as (client, app):
        handles = {name: await client.submit("write", {"name": name}) for name in ENDS}
        others = {name: await client.submit(name) for name in ("times_out", "large")}
        keyed = await client.submit("box.write", {}, actor_key="b")
        found = {}
        for name, (_, text, _) in ENDS.items():
            state, told = await ended(client, handles[name].id)
            found[name] = (state, text if text in told else told, await writes(app, handles[name].id))
        assert found == ENDS
        assert "timeout_s" in (await ended(client, others["times_out"].id))[1]
        assert "at most 262144" in (await ended(client, others["large"].id))[1]
        assert [await writes(app, handle.id) for handle in others.values()] == [[], []]
        assert "with an actor key" in (await ended(client, keyed.id))[1]
        children = [one async for one in client.tasks(handler="mail.send")]
        assert len(children) == 1
        assert await app.fetchval("SELECT count(*) FROM once") == 0


async def test_transactions_wait_for_a_place_and_nothing_else_does(pg_dsn: str) -> None:
    async with running(pg_dsn, NORIA_TRANSACTIONS="1", NORIA_LEASE_S="2") as (client, app):
        holding = await client.submit("write", {"name": "waits in the database"})
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'noria handlers' AND wait_event = 'PgSleep'"
        async with asyncio.timeout(WITHIN_S):
            while not await app.fetchval(asleep):
                pass
        waits = await client.submit("write", {"name": "works"})
        assert await client.call("mail.send", {"to": "a"}, timeout_s=WITHIN_S) == "a"
        row = await app.fetchrow("SELECT state, alive_until > clock_timestamp() AS alive FROM noria.lease")
        assert row is not None
        assert row["alive"]
        assert (await waits.status()).state is State.RUNNING
        await holding.cancel()
        with pytest.raises(TaskCancelled):
            await holding.result(WITHIN_S)
        assert await waits.result(WITHIN_S) == 1
        assert await writes(app, holding.id) == []
        assert await app.fetchval(asleep) == 0


async def test_a_harness_takes_a_connection_of_the_test(pg_dsn: str) -> None:
    async with Harness(plain) as harness:
        refused = await harness.submit(Task(handler="plain"))
        assert refused.error is not None
        assert "a Harness takes connection=" in refused.error.message
    app = await asyncpg.connect(pg_dsn)
    try:
        await app.execute(TABLES)
        mine = app.transaction()
        await mine.start()
        async with Harness(write, connection=app) as harness:
            for name in ("works", "fails after it"):
                handle = await harness.submit(Task(handler="write", payload={"name": name}))
                await harness.run_until_idle()
                _, text, attempts = ENDS[name]
                assert (str(handle.result), await writes(app, str(handle.id))) == (text, attempts)
        await mine.rollback()
        assert await app.fetchval("SELECT count(*) FROM effect") == 0
    finally:
        await app.close()
