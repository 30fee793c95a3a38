"""What a task says of where it belongs and where it ran, and what nodes count of how they came by their work: one truth.

Two whole nodes on a real RabbitMQ and a real PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from node.settings import Settings
from node.wiring import Node, open_node
from runtime.core.ring import build_table
from runtime.core.slots import slot_of
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.allow_blocking("nodes load their handlers as they start")

ROOM = 4  # bodies of a node
HANDLERS = """
import asyncio
from actors import Context, handler

@handler("quick")
async def quick(ctx: Context) -> None: ...

@handler("endless")
async def endless(ctx: Context) -> None:
    await asyncio.Event().wait()
"""


def keys_of(owner: str) -> Iterator[str]:
    """Idempotency keys whose slots that node owns."""
    table = build_table({"a": 1.0, "b": 1.0})
    return (key for key in map("key-{}".format, count()) if table[slot_of(key)] == owner)


class Pair:
    def __init__(self, nodes: dict[str, Node], http: ClientSession) -> None:
        self.nodes, self._http = nodes, http

    async def post(self, node: str, **task: Any) -> dict[str, Any]:
        """Accepted by that node; the task as it is when it has ended, or runs on for ever."""
        wait = 0 if task["handler"] == "endless" else 30
        async with self._http.post(f"{self.nodes[node].url}/v1/tasks?wait={wait}", json=task) as answer:
            assert answer.ok, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    def claimed(self, node: str) -> Counter[str]:
        """By the way it came."""
        prefix = "noria_tasks_claimed_total{via="
        lines = self.nodes[node].service.metrics().decode().splitlines()
        found = (line.removeprefix(prefix).partition("} ") for line in lines if line.startswith(prefix))
        return Counter({via.strip('"'): int(float(value)) for via, _, value in found})


async def holds(condition: Callable[[], bool], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what other nodes know is no event here
            await asyncio.sleep(0.02)


@pytest.fixture
async def pair(pg_dsn: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Pair]:
    handlers = tmp_path / "handlers.py"
    handlers.write_text(HANDLERS)

    @asynccontextmanager
    async def node(name: str) -> AsyncIterator[Node]:
        settings = Settings(
            postgres_dsn=pg_dsn, amqp_url=amqp_url, node_name=name, handlers=(str(handlers),), http_port=free_port(),
            concurrency=ROOM,
        )  # fmt: skip
        async with open_node(settings) as opened:
            yield opened
            await opened.drain(0)

    async with AsyncExitStack() as stack:
        nodes = {name: await stack.enter_async_context(node(name)) for name in "ab"}
        http = await stack.enter_async_context(ClientSession())
        clusters = [each.service.cluster for each in nodes.values()]
        await holds(
            lambda: all(
                len(c.view.active) == 2 and any(any(p.credits) for p in c.peers.values()) for c in clusters
            )
        )
        yield Pair(nodes, http)


async def test_what_tasks_say_and_what_nodes_count_agree(pair: Pair) -> None:
    one_by_one = [await pair.post("a", handler="quick") for _ in range(20)]
    filling = [await pair.post("b", handler="endless", idempotency_key=k) for k in islice(keys_of("b"), ROOM)]
    assert {(task["node"], task["home"]) for task in filling} == {("b", "b")}, "b is full from now on"
    told = pair.nodes["a"].service.cluster.peer(pair.nodes["b"].service.cluster.incarnation)
    await holds(lambda: told.credits[0] == 0)
    of_b = [
        await pair.post("a", handler="quick", idempotency_key=k) for k in islice(keys_of("b"), ROOM, 2 * ROOM)
    ]
    delayed = await asyncio.gather(
        *(pair.post("a", handler="quick", idempotency_key=k, delay_s=0.2) for k in islice(keys_of("a"), ROOM))
    )
    assert {(task["node"], task["home"]) for task in of_b} == {("a", "b")}, "a has room, b has none"
    assert {(task["node"], task["home"]) for task in delayed} == {("a", "a")}
    a, b = pair.claimed("a"), pair.claimed("b")
    tasks = [*one_by_one, *filling, *of_b, *delayed]
    for node, counted in (("a", a), ("b", b)):
        mine = [task for task in tasks if task["node"] == node]
        assert counted["steal"] == sum(task["home"] != node for task in mine)
        assert counted["born"] + counted["offer"] + counted["pull"] == sum(
            task["home"] == node for task in mine
        )
    assert a["born"] > 0, "its own, accepted with room"
    assert b["offer"] > 0, "accepted by a"
    assert a["pull"] >= len(delayed)
    assert a["steal"] >= len(of_b)
    assert b["born"] == len(filling)
