"""Large results when something fails: the store away, the node killed between storing and committing, wrong keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from actors.authoring.registry import Registry
from actors.collecting import Collecting
from actors.world import Keeping
from node.client import Client, TaskFailed
from runtime.adapters.objects import open_objects, parse
from runtime.adapters.postgres.store import PostgresStore
from runtime.core.task import State
from tests.integration.results.results_handlers import content
from tests.support.memory_node import memory_node
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from tests.integration.results.conftest import Stand
    from tests.support.s3_server import S3Server

SIZE = 9_000_000  # goes to S3 in two parts


@pytest.fixture
def healed(s3_server: S3Server) -> Any:
    """The server, which runs again when the test is over."""
    yield s3_server
    s3_server.kill()
    s3_server.start()


async def test_s3_away_the_outcome_is_not_lost_and_the_body_runs_once(
    s3_stand: Stand, healed: S3Server
) -> None:
    with s3_stand.node() as process:
        await asyncio.to_thread(s3_stand.wait_ready, process)
        async with Client(s3_stand.url) as client:
            await asyncio.to_thread(healed.kill)
            t = await client.submit("blob", {"size": SIZE})
            async with asyncio.timeout(40):
                while (info := await client.get(t.id)).waiting is None:  # noqa: ASYNC110 - nobody tells of progress
                    await asyncio.sleep(0.05)
            assert (info.state, info.waiting.reason) == (State.RUNNING, "result_store")
            assert "does not answer" in info.waiting.detail
            # the server blocks to be ready, and belongs to the thread that starts it
            healed.start()
            assert await t.result(50) == content(SIZE, 1)
            assert s3_stand.starts(t.id) == [1]


async def test_killed_between_storing_and_committing(stand: Stand) -> None:
    """The commit waits for a lock that the test holds; the node is killed there. The task runs again, and what the
    dead attempt stored is an orphan."""
    locker = await asyncpg.connect(stand.dsn)
    try:
        with stand.node() as process:
            await asyncio.to_thread(stand.wait_ready, process)
            async with Client(stand.url) as client:
                gate = stand.folder / "gate"
                t = await client.submit("blob", {"size": SIZE, "gate": str(gate)})
                await asyncio.to_thread(
                    wait_until, lambda: bool(stand.starts(t.id)), 30, lambda: process.output
                )
                lock = locker.transaction()
                await lock.start()
                locked = await locker.fetch("SELECT FROM noria.running WHERE id = $1 FOR UPDATE", UUID(t.id))
                assert len(locked) == 1
                await asyncio.to_thread(gate.touch)
                await asyncio.to_thread(wait_until, lambda: bool(stand.objects()), 30, lambda: process.output)
                await asyncio.to_thread(process.kill)
                await lock.rollback()
        with stand.node():
            async with Client(stand.url, retry_for_s=50) as client:
                assert await client.handle(t.id).result(50) == content(SIZE, 1)
        assert stand.starts(t.id) == [1, 2]
        assert sorted(path.name for path in stand.objects()) == [f"{t.id}.1", f"{t.id}.2"]
        await collect(stand)
        assert [path.name for path in stand.objects()] == [f"{t.id}.2"]
        await locker.execute("DELETE FROM noria.outcome")  # retention
        await collect(stand)
        assert stand.objects() == []
    finally:
        locker.terminate()


async def collect(stand: Stand) -> None:
    """As the oldest member does from time to time, but whatever the age."""
    async with PostgresStore.open(stand.dsn) as store, memory_node(Registry()) as node:
        where = parse(stand.results["NORIA_RESULTS_URL"])
        async with open_objects(where, None, str(await store.identity())) as objects:
            keeping = Keeping(orphans_s=0.0)
            world = replace(node.world, store=store, keeping=keeping, jitter=lambda: 0.0)
            await Collecting(world, objects).once()


@pytest.mark.allow_blocking("the test itself")
async def test_without_a_place_a_large_result_fails_with_a_hint(stand: Stand) -> None:
    with replace(stand, results={}).node() as process:
        stand.wait_ready(process)
        async with Client(stand.url) as client:
            with pytest.raises(TaskFailed, match="Set NORIA_RESULTS_URL"):
                await client.call("blob", {"size": 300_000}, timeout_s=30)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("S3_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"),
        ("S3_ACCESS_KEY_ID", "nobody", "InvalidAccessKeyId"),
        ("RESULTS_URL", "s3://no-such-bucket?endpoint={endpoint}", "NoSuchBucket"),
        ("RESULTS_URL", "file:///proc/results", "cannot be written"),
        ("RESULTS_URL", "gopher://x", "allowed are file and s3"),
        ("S3_ACCESS_KEY_ID", "", "set both or none"),
    ],
)
def test_a_place_that_will_not_do_is_told_at_the_start(
    s3_stand: Stand, s3_server: S3Server, setting: str, value: str, said: str
) -> None:
    with s3_stand.node(**{setting: value.format(endpoint=s3_server.endpoint)}) as process:
        assert process.wait_exit(40) == 2, process.output
        assert said in process.output
        assert "a secret of the tests" not in process.output
        assert "Traceback" not in process.output
