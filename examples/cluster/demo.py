"""`make demo-cluster`: the census on three nodes in containers, with PostgreSQL, RabbitMQ and etcd.

Starts docker-compose.yml as a project of its own on free ports, and plays what `make demo` plays: the container of node-2
is killed with -9 half way, node-3 is asked to leave, and all results are compared with a direct computation in one
process. Shows what RabbitMQ had to do. Everything is removed at the end. Exit code 0 only if all checks hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from examples.census.demo import free_port
from examples.census.play import play
from examples.census.screen import console, doing
from examples.census.story import Expected

ROOT = Path(__file__).parents[2]
SETTINGS = {"CONCURRENCY": "16", "DRAIN_S": "0.5"}  # so that both events find work in hand
STATISTICS_S = 6.0  # the management of RabbitMQ counts every five seconds
SOURCES = "import json; from examples.census.demo import sources; print(json.dumps([str(path) for path in sources()]))"
DIRECTLY = """
import json
from dataclasses import asdict
from examples.census.demo import directly, sources
print(json.dumps(asdict(directly(sources()))))
"""


class Containers:
    """One run of docker-compose.yml that disturbs no other."""

    def __init__(self) -> None:
        nodes = {f"node-{number}": free_port() for number in (1, 2, 3)}
        ports = {f"NODE_{name[-1]}_PORT": str(port) for name, port in nodes.items()}
        ports |= {"NODE_PORT": str(free_port()), "RABBITMQ_UI_PORT": str(free_port())}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in nodes.items()}
        self.rabbitmq = f"http://127.0.0.1:{ports['RABBITMQ_UI_PORT']}"
        self._environment = {**os.environ, **ports, "HANDLERS": "examples/census/handlers.py", **SETTINGS}
        self._command = ["docker", "compose", "--project-name", f"noria-demo-{os.getpid()}"]

    def start(self) -> None:
        """Raises SystemExit, and shows what the nodes said, where they do not come up."""
        try:
            self._compose("up", "--build", "--detach", "--wait")
        except subprocess.CalledProcessError:
            self._compose("logs", "--tail", "20", *self.urls, check=False)
            raise SystemExit(
                "the cluster does not come up; the last words of its nodes stand above"
            ) from None

    async def kill(self, node: str) -> str:
        await asyncio.to_thread(self._compose, "--progress", "quiet", "kill", "--signal", "KILL", node)
        return f"killed the container of {node} with -9"

    def remove(self) -> None:
        self._compose("down", "--volumes", "--timeout", "5", check=False)

    def _compose(self, *words: str, check: bool = True) -> None:
        subprocess.run([*self._command, *words], cwd=ROOT, env=self._environment, check=check)

    async def python(self, code: str) -> Any:
        """What this code prints, as JSON, in the container of node-1."""
        command = [*self._command, "exec", "-T", "node-1", "python", "-c", code]
        inside = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE
        )
        printed, _ = await inside.communicate()
        return json.loads(printed)


@contextlib.contextmanager
def running() -> Iterator[Containers]:
    containers = Containers()
    try:
        containers.start()
        yield containers
    finally:
        containers.remove()


def missing() -> str:
    """What is not there; empty if nothing is."""
    if shutil.which("docker") is None:
        return "there is no `docker` here"
    for words, lack in (
        ("compose version", "`docker compose` is not installed"),
        ("info", "no Docker engine answers"),
    ):
        if subprocess.run(["docker", *words.split()], capture_output=True, check=False).returncode:
            return lack
    return ""


async def broker(containers: Containers) -> str:
    """What RabbitMQ has had to do, as its management counts it."""
    login = {"Authorization": aiohttp.encode_basic_auth("noria", "noria")}
    async with doing("waiting for the statistics of RabbitMQ"):
        await asyncio.sleep(STATISTICS_S)
        async with aiohttp.ClientSession(containers.rabbitmq, headers=login) as session:
            async with session.get("/api/overview") as answer:
                overview = await answer.json()
    totals, stats = overview["object_totals"], overview.get("message_stats", {})
    return (
        f"{stats.get('publish', 0):,} messages published, {stats.get('deliver_get', 0):,} delivered, "
        f"{totals['queues']} queues, {totals['consumers']} consumers now"
    )


async def census(containers: Containers) -> bool:
    async def directly() -> Expected:
        return Expected(**await containers.python(DIRECTLY))

    agrees = await play(containers, await containers.python(SOURCES), directly)
    console.print(f"\n  RabbitMQ: {await broker(containers)}", soft_wrap=True)
    return agrees


def main() -> int:
    if lack := missing():
        console.print(
            f"make demo-cluster needs Docker with Compose, but {lack}. `make demo` needs no service."
        )
        return 2
    with running() as containers:
        return 0 if asyncio.run(census(containers)) else 1


if __name__ == "__main__":
    sys.exit(main())
