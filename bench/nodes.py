"""Several real node processes on one PostgreSQL of their own (fsync and synchronous_commit on), over one RabbitMQ: what
the benchmarks of the cluster stand on. Everything ends with this process, however that ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.rig import HERE, free_port, tree_cpu_s, until_ready
from runtime.adapters.embedded import EmbeddedPostgres
from runtime.adapters.embedded.child import Child, exited, spawn
from runtime.core.ring import Table, build_table
from runtime.core.slots import slot_of
from tests.support.rabbitmq_server import RabbitServer

_METRIC: Final = re.compile(r"^noria_(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_JOIN_S: Final = 20.0
_DRAIN_S: Final = 20.0


@dataclass(slots=True)
class Nodes:
    """Nodes a, b, c … of one cluster."""

    urls: dict[str, str]
    dsn: str
    pids: dict[str, int]
    postgres_pid: int
    rabbit_pid: int | None
    table: Table  # node name by slot
    keys_made: int = 0

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, children included; the producer is this process."""
        own = os.times()
        used = {
            "producer": own.user + own.system,
            "nodes": sum(map(tree_cpu_s, self.pids.values())),
            "PostgreSQL": tree_cpu_s(self.postgres_pid),
        }
        if self.rabbit_pid is not None:
            used["RabbitMQ"] = tree_cpu_s(self.rabbit_pid)
        return used

    def keys(self, owner: str | None = None) -> Iterator[str]:
        """New routing keys, of slots that this node owns."""
        while True:
            self.keys_made += 1
            key = f"bench-{self.keys_made}"
            if owner is None or self.table[slot_of(key)] == owner:
                yield key

    async def counters(self, session: aiohttp.ClientSession) -> dict[str, Counter[tuple[str, str]]]:
        """By node: what its metrics say, by name and labels."""
        found = {}
        for name, url in self.urls.items():
            async with session.get(f"{url}/metrics") as answer:
                text = await answer.text()
            found[name] = Counter(
                {(metric, labels): float(value) for metric, labels, value in _METRIC.findall(text)}
            )
        return found


@contextlib.contextmanager
def rabbit() -> Iterator[RabbitServer]:
    """An own server with the usual number of schedulers."""
    server = RabbitServer(schedulers=os.cpu_count() or 1)
    with server:
        yield server


def own_host(server: RabbitServer, name: str) -> str:
    """URL of a new virtual host: clusters number their queues alike and must not meet."""
    server.ctl("add_vhost", name)
    server.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    return f"{server.url}{name}"


@contextlib.asynccontextmanager
async def nodes(
    count: int, server: RabbitServer | None, *, handlers: Path = HERE / "handlers.py", **settings: str
) -> AsyncIterator[Nodes]:
    """That many nodes, all of which see all others and have granted credit."""
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "data", settings={"max_connections": "200"})
        async with postgres, contextlib.AsyncExitStack() as stack:
            names = "abcdefgh"[:count]
            url = None if server is None else own_host(server, f"bench-{Path(folder).name}")
            ports = {name: free_port() for name in names}
            started: dict[str, Child] = {}
            stack.push_async_callback(_stop, started)
            for name in names:
                own = {"NORIA_NODE_NAME": name, "NORIA_HTTP_PORT": str(ports[name])}
                own |= {} if url is None else {"NORIA_AMQP_URL": url}
                started[name] = _start(postgres.dsn, handlers, own | settings)
                await until_ready(f"http://127.0.0.1:{ports[name]}", started[name])
            assert postgres.pid is not None
            place = Nodes(
                {name: f"http://127.0.0.1:{port}" for name, port in ports.items()},
                postgres.dsn,
                {name: node.pid for name, node in started.items()},
                postgres.pid,
                None if server is None else server.pid,
                build_table(dict.fromkeys(names, 1.0)),
            )
            await _joined(place)
            yield place


def _start(dsn: str, handlers: Path, settings: Mapping[str, str]) -> Child:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NORIA_")},
        "NORIA_POSTGRES_DSN": dsn, "NORIA_HANDLERS": str(handlers), "NORIA_LOG_LEVEL": "warning",
        "NORIA_CONCURRENCY": "500", "NORIA_CPU_PROCESSES": "0", **settings,
    }  # fmt: skip
    return spawn([sys.executable, "-m", "node"], end_signal=signal.SIGKILL, env=environment)


async def _stop(started: Mapping[str, Child]) -> None:
    for node in started.values():
        node.send_signal(signal.SIGTERM)
    for node in started.values():
        if await exited(node, _DRAIN_S) is None:
            node.kill()
            await exited(node)


async def _joined(place: Nodes) -> None:
    """Every node must see all others as active, go by our table, and know their credit."""
    until_s = time.monotonic() + _JOIN_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < until_s:
            seen = [await _cluster(session, url) for url in place.urls.values()]
            if all(_complete(one, len(place.urls), place.rabbit_pid is not None) for one in seen):
                return
            await asyncio.sleep(0.1)
    raise SystemExit("the nodes did not find each other in time")


async def _cluster(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with session.get(f"{url}/v1/cluster") as answer:
        found: list[dict[str, Any]] = (await answer.json())["nodes"]
        return found


def _complete(seen: list[dict[str, Any]], count: int, heard: bool) -> bool:
    active = [node for node in seen if node["state"] == "active" and node["slots"]]
    return len(active) == count and (count == 1 or not heard or all(node["credit"] for node in active))
