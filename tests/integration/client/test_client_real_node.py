"""The client and a node process on real PostgreSQL that is killed and started again under it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from node.client import Client
from tests.support.processes import free_port, node, wait_url

if TYPE_CHECKING:
    from pathlib import Path

HANDLERS = """
import asyncio
from actors import Context, handler

@handler(max_attempts=1)
async def slow(ctx: Context, n: int) -> int:
    await asyncio.sleep(0.02)
    return n * n
"""


def environment(folder: Path, dsn: str, port: int) -> dict[str, str]:
    (folder / "work.py").write_text(HANDLERS)
    return {
        "NORIA_POSTGRES_DSN": dsn, "NORIA_HTTP_PORT": str(port), "NORIA_HANDLERS": str(folder / "work.py"),
        "NORIA_LEASE_S": "1", "NORIA_CONCURRENCY": "4",
    }  # fmt: skip


async def test_results_come_though_the_node_is_killed_meanwhile(pg_dsn: str, tmp_path: Path) -> None:
    port = free_port()
    env, url = environment(tmp_path, pg_dsn, port), f"http://127.0.0.1:{port}"

    with node(env) as first:
        await asyncio.to_thread(wait_url, f"{url}/readyz", process=first)
        async with Client(url, retry_for_s=30.0) as client:
            handles = await client.submit_many([("slow", {"n": n}) for n in range(300)])
            waiting = asyncio.ensure_future(client.results(handles, 50))
            async for _ in client.as_ended(handles[:20], 20):
                pass
            first.kill()
            posting = asyncio.ensure_future(client.submit("slow", {"n": 1000}))  # into the gap
            with node(env):
                assert await waiting == [n * n for n in range(300)]
                assert await (await posting).result(20) == 1_000_000
                assert len([info async for info in client.tasks()]) == 301
