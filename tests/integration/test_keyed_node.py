"""Keyed actors through the client and real node processes: the example, and a rolling deploy of a changed class."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from actors import Registry, actor
from examples.account.handlers import Account
from node.client import Client, InvalidTask, TaskFailed
from tests.support.processes import free_port, node, wait_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import Spawned

EXAMPLE: Final = Path(__file__).parent.parent.parent / "examples" / "account" / "handlers.py"
WITHIN_S: Final = 30.0

Registry(Account)  # reads sources, which a test in the loop may not

COUNTER: Final = """
from typing import Any, ClassVar
from actors import Actor, Context, handler

class Counter(Actor, name="counter"):
    state_version: ClassVar[int] = {version}
    {field}: int = 0

    @classmethod
    def migrate(cls, state: dict[str, Any], from_version: int) -> dict[str, Any]:
        assert from_version == 1
        return {{"hundredths": state["total"] * 100}}

    @handler(max_attempts=1)
    async def add(self, ctx: Context, n: int) -> int:
        self.{field} += {step} * n
        return self.{field}
"""


def environment(dsn: str, name: str, handlers: Path, port: int) -> dict[str, str]:
    return {
        "NORIA_POSTGRES_DSN": dsn, "NORIA_HTTP_PORT": str(port), "NORIA_HANDLERS": str(handlers),
        "NORIA_NODE_NAME": name, "NORIA_LEASE_S": "2",
    }  # fmt: skip


async def until_ready(port: int, process: Spawned) -> str:
    url = f"http://127.0.0.1:{port}"
    await asyncio.to_thread(wait_url, f"{url}/readyz", process=process, timeout_s=WITHIN_S)
    return url


async def test_the_example_through_the_client(pg_dsn: str) -> None:
    port = free_port()
    with node(environment(pg_dsn, "a", EXAMPLE, port)) as process:
        async with Client(await until_ready(port, process)) as client:
            mine, other = actor(Account, "42"), actor(Account, "43")
            handles = await client.submit_many(
                mine.task(Account.deposit, amount_cents=cents) for cents in (5, 10, 20)
            )
            assert await client.results(handles, WITHIN_S) == [5, 15, 35]
            left = await client.call(
                mine.task(Account.transfer, to="43", amount_cents=30), timeout_s=WITHIN_S
            )
            assert left == 5
            assert await client.call(other.task(Account.close), timeout_s=WITHIN_S) == 30
            assert await client.call(mine.task(Account.balance), timeout_s=WITHIN_S) == 5
            with pytest.raises(TaskFailed, match="closed"):
                await client.call(other.task(Account.deposit, amount_cents=1), timeout_s=WITHIN_S)
            with pytest.raises(InvalidTask, match="actor_key"):
                await client.submit("account.deposit", {"amount_cents": 1})
            info = await client.get(handles[0].id)
            assert (info.actor_key, info.state) == ("42", "succeeded")


async def states(dsn: str) -> dict[str, tuple[int, int]]:
    """State version and hundredths by key."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT key, state_version, state FROM noria.actor")
    finally:
        await connection.close()
    found = {}
    for key, version, state in rows:
        value = json.loads(state)
        found[key] = version, value["hundredths"] if version == 2 else value["total"] * 100
    return found


@pytest.mark.timeout(120)
async def test_a_rolling_deploy_turns_the_state_and_fails_nothing(pg_dsn: str, tmp_path: Path) -> None:
    """Two nodes are replaced one after the other under load; keys whose state is of version 2 never go back."""
    old, new = tmp_path / "old" / "counter.py", tmp_path / "new" / "counter.py"
    for path, version, field, step in ((old, 1, "total", 1), (new, 2, "hundredths", 100)):
        path.parent.mkdir()
        path.write_text(COUNTER.format(version=version, field=field, step=step))
    ports = {name: free_port() for name in ("a", "b")}
    stop = asyncio.Event()
    sent = dict.fromkeys(map(str, range(8)), 0)
    tasks: list[str] = []

    async def load(client: Client) -> None:
        while not stop.is_set():
            for key in sent:
                handle = await client.submit("counter.add", {"n": 1}, actor_key=key)
                tasks.append(handle.id)
                sent[key] += 1
                await asyncio.sleep(0.01)  # a load, not a flood

    with (
        node(environment(pg_dsn, "a", old, ports["a"])) as a,
        node(environment(pg_dsn, "b", old, ports["b"])) as b,
    ):
        urls = [await until_ready(ports["a"], a), await until_ready(ports["b"], b)]
        async with Client(urls[0], retry_for_s=30) as one, Client(urls[1], retry_for_s=30) as two:
            loading = [asyncio.ensure_future(load(client)) for client in (one, two)]
            await until(lambda: len(tasks) > 60)
            a.signal(signal.SIGTERM)
            await asyncio.to_thread(a.wait_exit, WITHIN_S)
            with node(environment(pg_dsn, "a", new, ports["a"])) as newer:
                await until_ready(ports["a"], newer)
                at = len(tasks)
                await until(lambda: len(tasks) > at + 100)
                mixed = {version for version, _ in (await states(pg_dsn)).values()}
                b.signal(signal.SIGTERM)
                await asyncio.to_thread(b.wait_exit, WITHIN_S)
                with node(environment(pg_dsn, "b", new, ports["b"])) as newest:
                    await until_ready(ports["b"], newest)
                    stop.set()
                    await asyncio.gather(*loading)
                    results = await one.results([one.handle(each) for each in tasks], WITHIN_S)
    assert len(results) == len(tasks)
    assert mixed == {1, 2}, "the deploy was mixed for a while"
    assert {key: hundredths for key, (_, hundredths) in (await states(pg_dsn)).items()} == {
        key: count * 100 for key, count in sent.items()
    }


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - the world outside sends no events
            await asyncio.sleep(0.02)
