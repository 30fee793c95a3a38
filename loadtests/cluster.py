"""A fresh cluster: `noria node` processes on a PostgreSQL of their own, and a RabbitMQ where there is one.

Everything listens on loopback or on a unix socket, and ends with this process, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiohttp
import asyncpg

from bench.rig import free_port, tree_cpu_s, until_ready
from runtime.adapters.embedded import EmbeddedPostgres
from runtime.adapters.embedded.child import Child, exited, spawn
from tests.support.rabbitmq_server import BIN_VARIABLE, URL_VARIABLE, RabbitServer

HANDLERS: Final = Path(__file__).with_name("handlers.py")
NAMES: Final = ("a", "b", "c")
VICTIM: Final = "b"
JOINER: Final = "d"
_SETTINGS: Final = {"max_connections": "200"}
_DRAIN_S: Final = 10.0
_LOOK_S: Final = 0.1
_CLAIMS: Final = re.compile(r'^noria_tasks_claimed_total\{via="(\w+)"\} (\S+)$', re.MULTILINE)
_BUSY: Final = "SELECT EXISTS (SELECT FROM noria.waiting) OR EXISTS (SELECT FROM noria.running)"


class LoadError(Exception):
    """The load test itself cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Broker:
    """`url` None: there is none. `pid` is known of an own one only."""

    kind: str
    url: str | None = None
    pid: int | None = None


@contextlib.contextmanager
def broker(wanted: bool) -> Iterator[Broker]:
    """The RabbitMQ that the environment names, else an own one where the programs are installed, else none."""
    named = os.environ.get(URL_VARIABLE) or os.environ.get("AMQP_URL")
    if not wanted:
        yield Broker("PostgreSQL only")
    elif named:
        yield Broker("RabbitMQ", named)
    elif shutil.which("rabbitmq-server") or os.environ.get(BIN_VARIABLE):
        with RabbitServer() as server:
            yield Broker("RabbitMQ, own server", server.url, server.pid)
    else:
        yield Broker("PostgreSQL only (no rabbitmq-server is installed)")


def claims_in(metrics: str) -> dict[str, int]:
    """From the text that Prometheus reads."""
    return {via: int(float(count)) for via, count in _CLAIMS.findall(metrics)}


class Cluster:
    """Three nodes. `kill` ends the second one with -9, `join` starts a new one at its address."""

    def __init__(self, folder: Path, logs: Path, broker: Broker) -> None:
        self._postgres = EmbeddedPostgres(folder / "pg", settings=_SETTINGS)
        self._logs = logs
        self._broker = broker
        self._ports = {name: free_port() for name in NAMES}
        self._nodes: dict[str, Child] = {}
        self._gone_cpu_s = 0.0
        self.killed: list[str] = []

    @property
    def dsn(self) -> str:
        return self._postgres.dsn

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self._ports[name]}" for name in NAMES]

    async def __aenter__(self) -> Self:
        try:
            await self._postgres.start()
            self._start(NAMES[0])
            await self._ready(NAMES[0])  # it makes the tables
            for name in NAMES[1:]:
                self._start(name)
            for name in NAMES[1:]:
                await self._ready(name)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self._nodes.values():
            if node.poll() is None:
                node.send_signal(signal.SIGTERM)
        for node in self._nodes.values():
            if await exited(node, _DRAIN_S) is None:
                node.kill()
                await exited(node)
        await self._postgres.stop()

    async def kill(self) -> str:
        """What was done, in words."""
        node = self._nodes[VICTIM]
        self._gone_cpu_s += tree_cpu_s(node.pid)
        node.kill()
        await exited(node)
        self.killed.append(VICTIM)
        return f"node {VICTIM} is killed with -9"

    async def join(self) -> str:
        self._ports[JOINER] = self._ports[VICTIM]
        self._start(JOINER)
        await self._ready(JOINER)
        return f"node {JOINER} has joined"

    def ended(self) -> list[str]:
        """Nodes that ended though nobody killed them."""
        return [
            f"node {name} ended with {node.poll()}"
            for name, node in self._nodes.items()
            if node.poll() is not None and name not in self.killed
        ]

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, children included."""
        alive = [node.pid for node in self._nodes.values() if node.poll() is None]
        used = {"nodes": self._gone_cpu_s + sum(map(tree_cpu_s, alive))}
        if self._postgres.pid is not None:
            used["PostgreSQL"] = tree_cpu_s(self._postgres.pid)
        if self._broker.pid is not None:
            used["RabbitMQ"] = tree_cpu_s(self._broker.pid)
        return used

    async def claims(self) -> dict[str, dict[str, int]]:
        """Attempts that each living node has claimed since its start, by the way they came (born, offer, pull, steal)."""
        found = {}
        async with aiohttp.ClientSession() as session:
            for name, node in self._nodes.items():
                if node.poll() is None:
                    async with session.get(f"http://127.0.0.1:{self._ports[name]}/metrics") as answer:
                        found[name] = claims_in(await answer.text())
        return found

    async def until_idle(self, within_s: float) -> float | None:
        """Seconds until nothing waits and nothing runs; None when that did not come in time."""
        began_s = time.monotonic()
        connection = await asyncpg.connect(self.dsn)
        try:
            while await connection.fetchval(_BUSY):
                if time.monotonic() - began_s > within_s:
                    return None
                await asyncio.sleep(_LOOK_S)
        finally:
            await connection.close()
        return time.monotonic() - began_s

    def _start(self, name: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NORIA_")}
        environment |= {
            "NORIA_POSTGRES_DSN": self.dsn,
            "NORIA_HANDLERS": str(HANDLERS),
            "NORIA_NODE_NAME": name,
            "NORIA_HTTP_PORT": str(self._ports[name]),
            "NORIA_CPU_PROCESSES": "0",
            "NORIA_LOG_LEVEL": "warning",
        }
        if self._broker.url is not None:
            environment["NORIA_AMQP_URL"] = self._broker.url
        with (self._logs / f"node-{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "node"]
            self._nodes[name] = spawn(command, end_signal=signal.SIGKILL, env=environment, output=log)

    async def _ready(self, name: str) -> None:
        """Raises LoadError with the end of its log where it does not start."""
        try:
            async with asyncio.timeout(30):
                await until_ready(f"http://127.0.0.1:{self._ports[name]}", self._nodes[name])
        except (SystemExit, TimeoutError):
            log = (self._logs / f"node-{name}.log").read_text(errors="replace")
            raise LoadError(f"node {name} does not start:\n{log[-3000:]}") from None
