"""On a real node and a real record: a tenant's ten tasks beside a hundred thousand of another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from node.client import Client
from tests.support.processes import free_port, node, wait_url

if TYPE_CHECKING:
    from pathlib import Path

MANY: Final = 100_000
SLOTS: Final = 4
HANDLERS: Final = """
import asyncio
from actors import Context, handler

@handler
async def work(ctx: Context) -> None:
    await asyncio.sleep(0.02)
"""
# As if the tenant had posted them a minute ago; none of them is looked at one by one.
FILL: Final = """
WITH band AS (
    INSERT INTO noria.band (handler, lane, tenant, keyed) VALUES ('work', 1, 'much', false) RETURNING id
), made AS (
    INSERT INTO noria.task (id, seq, created_at, run_at, timeout_s, band, max_attempts, slot, tenant, payload)
    SELECT gen_random_uuid(), nextval('noria.task_seq'), now() - interval '1 minute', now() - interval '1 minute', 60,
           band.id, 3, n % 4096, 'much', '{}'
      FROM band, generate_series(1, $1::integer) n
    RETURNING id, seq, run_at, band, slot
)
INSERT INTO noria.waiting (id, due, seq, band, attempt, slot) SELECT id, run_at, seq, band, 1, slot FROM made
"""
# What ended between the first acceptance and the last end of the few.
PASSED: Final = """
SELECT count(*) FROM noria.outcome o JOIN noria.task t ON t.id = o.id
 WHERE t.tenant = 'much'
   AND o.finished_at BETWEEN (SELECT min(created_at) FROM noria.task WHERE tenant = 'default')
                         AND (SELECT max(f.finished_at) FROM noria.outcome f JOIN noria.task d ON d.id = f.id
                               WHERE d.tenant = 'default')
"""


async def ended(admin: asyncpg.Connection[Any]) -> int:
    return int(await admin.fetchval("SELECT count(*) FROM noria.outcome"))


async def test_ten_tasks_wait_for_a_few_of_a_hundred_thousand(pg_dsn: str, tmp_path: Path) -> None:
    handlers, port = tmp_path / "work.py", free_port()
    await asyncio.to_thread(handlers.write_text, HANDLERS)
    environment = {
        "NORIA_POSTGRES_DSN": pg_dsn, "NORIA_HTTP_PORT": str(port), "NORIA_HANDLERS": str(handlers),
        "NORIA_NODE_NAME": "a", "NORIA_CONCURRENCY": str(SLOTS),
    }  # fmt: skip
    admin = await asyncpg.connect(pg_dsn)
    try:
        await admin.execute(FILL.replace("$1::integer", str(MANY)))
        with node(environment) as process:
            url = f"http://127.0.0.1:{port}"
            await asyncio.to_thread(wait_url, f"{url}/readyz", process=process, timeout_s=30)
            async with asyncio.timeout(20):
                while await ended(admin) < 100:  # noqa: ASYNC110 - another process says nothing
                    await asyncio.sleep(0.05)
            async with Client(url) as client:
                few = await client.submit_many([("work", {})] * 10)
                await client.results(few, 20)
            passed = int(await admin.fetchval(PASSED))
            # One for one while they wait, what runs, and the claimed work of 50 ms that was there first: 22 to 26 were
            # seen. The rest is for machines that are busy with something else.
            assert passed <= 100, passed
            assert await admin.fetchval("SELECT count(*) FROM noria.waiting") > MANY * 0.9
    finally:
        await admin.close()
