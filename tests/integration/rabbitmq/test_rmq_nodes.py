"""Two whole nodes on a real RabbitMQ and a real PostgreSQL: offers, ends told, cancels, events."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aiohttp import ClientSession

from node.settings import Settings
from node.wiring import Node, open_node
from runtime.adapters.rabbitmq import topology
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.allow_blocking("nodes load their handlers as they start")

HANDLERS = """
import asyncio
from actors import Context, handler

@handler("quick")
async def quick(ctx: Context) -> int:
    return ctx.attempt

@handler("doomed", max_attempts=1)
async def doomed(ctx: Context) -> None:
    raise ValueError("as it was meant")

@handler("endless")
async def endless(ctx: Context) -> None:
    await asyncio.Event().wait()
"""


class Pair:
    """Nodes a and b, and a caller of a."""

    def __init__(self, a: Node, b: Node, http: ClientSession) -> None:
        self.a, self.b, self._http = a, b, http

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        async with self._http.request(method, self.a.url + path, json=body) as answer:
            assert answer.ok, await answer.text()
            return await answer.json()

    async def post(self, handler: str, wait_s: int = 20) -> Any:
        return await self.ask("POST", f"/v1/tasks?wait={wait_s}", {"handler": handler})

    async def claimed(self, via: str) -> int:
        total = 0
        for node in (self.a, self.b):
            async with self._http.get(f"{node.url}/metrics") as answer:
                name = f'noria_tasks_claimed_total{{via="{via}"}} '
                lines = [line for line in (await answer.text()).splitlines() if line.startswith(name)]
                total += sum(int(float(line.removeprefix(name))) for line in lines)
        return total


async def holds(condition: Callable[[], Awaitable[bool]], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - what other nodes know is no event here
            await asyncio.sleep(0.02)


SELDOM_S = 15.0


@pytest.fixture
async def pair(
    pg_dsn: str, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    """What they find in the record by themselves, they find seldom."""
    monkeypatch.setattr("actors.router.router._LOOK_S", SELDOM_S)
    monkeypatch.setattr("actors.executor.executor._SECOND_S", SELDOM_S / 0.6)
    handlers = tmp_path / "handlers.py"
    handlers.write_text(HANDLERS)

    @asynccontextmanager
    async def node(name: str) -> AsyncIterator[Node]:
        settings = Settings(
            postgres_dsn=pg_dsn, amqp_url=amqp_url, node_name=name, handlers=(str(handlers),), http_port=free_port()
        )  # fmt: skip
        async with open_node(settings) as opened:
            yield opened
            await opened.drain(1)

    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(node(name)) for name in "ab"]
        http = await stack.enter_async_context(ClientSession())
        made = Pair(a, b, http)

        async def both_see_both() -> bool:
            clusters = [each.service.cluster for each in (a, b)]
            return all(len(c.view.active) == 2 and len(c.peers) == 1 for c in clusters)

        await holds(both_see_both)
        yield made


async def test_tasks_are_offered_to_their_owner_whose_ends_are_told(pair: Pair) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    ends = await asyncio.gather(*(pair.post("quick") for _ in range(40)))
    took_s = loop.time() - began_s
    assert {(end["state"], end["node"] == end["home"]) for end in ends} == {("succeeded", True)}
    assert {end["node"] for end in ends} == {"a", "b"}
    assert 0 < await pair.claimed("offer") <= sum(end["node"] == "b" for end in ends), "a sweep may be faster"
    assert took_s < SELDOM_S, "those who wait were not told"


async def test_a_task_that_runs_elsewhere_is_cancelled_at_once(pair: Pair) -> None:
    posted = [await pair.post("endless", wait_s=0) for _ in range(12)]

    async def all_run() -> bool:
        return all(
            [(await pair.ask("GET", f"/v1/tasks/{one['id']}"))["state"] == "running" for one in posted]
        )

    await holds(all_run)
    elsewhere = [one for one in posted if (await pair.ask("GET", f"/v1/tasks/{one['id']}"))["node"] == "b"]
    assert elsewhere
    began_s = asyncio.get_running_loop().time()
    for one in posted:
        await pair.ask("POST", f"/v1/tasks/{one['id']}/cancel")
    ends = [await pair.ask("GET", f"/v1/tasks/{one['id']}?wait=10") for one in elsewhere]
    assert {end["state"] for end in ends} == {"cancelled"}
    assert asyncio.get_running_loop().time() - began_s < SELDOM_S, "the node that runs them was not told"


async def test_other_services_hear_how_tasks_end_and_dead_letters_are_kept(pair: Pair, amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        dead = await channel.get_queue(topology.DEAD)
        await dead.purge()
        mine = await channel.declare_queue(exclusive=True)
        await mine.bind(topology.EVENTS, "task.*.quick")
        succeeded = {(await pair.post("quick"))["id"] for _ in range(5)}
        failed = await pair.post("doomed")
        assert failed["state"] == "failed"
        async with asyncio.timeout(10), dead.iterator() as letters:
            letter = await anext(letters)
            await letter.ack()
        [told] = json.loads(letter.body)
        assert (told["task_id"], told["state"], told["error_type"]) == (failed["id"], "failed", "ValueError")
        heard: set[str] = set()
        async with asyncio.timeout(10), mine.iterator() as messages:
            async for message in messages:
                await message.ack()
                assert message.routing_key == "task.succeeded.quick"
                heard |= {event["task_id"] for event in json.loads(message.body)}
                if heard >= succeeded:
                    break
        assert heard == succeeded
