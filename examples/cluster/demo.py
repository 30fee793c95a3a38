"""`make demo-cluster`: the census on three nodes in containers, one of them killed with -9 in the middle.

Starts docker-compose.yml as a project of its own on free ports, posts one task per file of the containers' standard
library through all nodes, kills the container of node-3 half way, and compares the outcome with a direct computation in
one process. Everything is removed at the end. Exit code 0 only if the results agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from actors import task
from examples.census.demo import (
    TWICE,
    Story,
    console,
    free_port,
    look_back,
    merge_all,
    progress,
    report,
    results,
    telling,
)  # fmt: skip
from examples.census.handlers import Count, count_file
from node.client import Client, TaskHandle

ROOT = Path(__file__).parents[2]
VICTIM = "node-3"
SOURCES = (
    "import json; from examples.census.demo import *; print(json.dumps([str(path) for path in sources()]))"
)
DIRECTLY = """
import json
from examples.census.demo import *
print(json.dumps(add_up([count_source(path.read_bytes()) for path in sources()])))
"""


class Cluster:
    """One run of docker-compose.yml that disturbs no other."""

    def __init__(self) -> None:
        nodes = [free_port() for _ in range(3)]
        ports = {f"NODE_{number}_PORT": str(port) for number, port in enumerate(nodes, 1)}
        ports |= {"NODE_PORT": str(free_port()), "RABBITMQ_UI_PORT": str(free_port())}
        self.urls = [f"http://127.0.0.1:{port}" for port in nodes]
        self.rabbitmq = f"http://127.0.0.1:{ports['RABBITMQ_UI_PORT']}"
        self._environment = {**os.environ, **ports, "HANDLERS": "examples/census/handlers.py"}
        self._command = ["docker", "compose", "--project-name", f"noria-demo-{os.getpid()}"]

    def start(self) -> None:
        self._compose("up", "--build", "--detach", "--wait")

    def kill(self, service: str) -> None:
        self._compose("--progress", "quiet", "kill", "--signal", "KILL", service)

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
def running() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


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


async def post(cluster: Cluster, paths: list[str], story: Story) -> list[TaskHandle[Count]]:
    """A third through each node, and some twice, through another node than before."""
    handles: list[TaskHandle[Count]] = []
    for number, url in enumerate(cluster.urls):
        work = [task(count_file, path=path).options(idempotency_key=f"census:{path}") for path in paths]
        async with Client(url, retry_for_s=30) as client:
            handles += await client.submit_many(work[number :: len(cluster.urls)])
            if number == len(cluster.urls) - 1:
                again = await client.submit_many(work[: TWICE * 3 : 3])
                story.duplicates = sum(one.id == other.id for one, other in zip(handles, again, strict=False))
    return handles


async def count_all(client: Client, cluster: Cluster, paths: list[str], story: Story) -> list[Count]:
    handles = await post(cluster, paths, story)
    async with progress(len(paths), "counting") as (bar, row):
        done = 0
        async for _ in client.as_ended(handles):
            done += 1
            bar.update(row, completed=done)
            if done == len(paths) // 2:
                await asyncio.to_thread(cluster.kill, VICTIM)
                bar.console.print(
                    f"[red]killed the container of {VICTIM} with -9[/]; the others take its work over"
                )
    return await results(client, handles)


async def broker(cluster: Cluster) -> str:
    """What RabbitMQ has had to do so far, as its management counts it (every five seconds)."""
    login = {"Authorization": aiohttp.encode_basic_auth("noria", "noria")}
    async with aiohttp.ClientSession(cluster.rabbitmq, headers=login) as session:
        async with session.get("/api/overview") as answer:
            overview = await answer.json()
    totals, stats = overview["object_totals"], overview.get("message_stats", {})
    return (
        f"{totals['connections']} connections, {totals['queues']} queues, {totals['consumers']} consumers; "
        f"{stats.get('publish', 0):,} messages published, {stats.get('deliver_get', 0):,} delivered"
    )


async def who_did_it(client: Client) -> str:
    nodes = Counter([info.node async for info in client.tasks(handler="census.count")])
    return ", ".join(f"{name} {count}" for name, count in sorted(nodes.items(), key=str))


async def census(cluster: Cluster) -> bool:
    story = Story()
    async with Client(cluster.urls[0], retry_for_s=30) as client:
        paths = await cluster.python(SOURCES)
        console.print(f"one task for each of {len(paths)} files of the containers' standard library")
        began_s = time.monotonic()
        parts = await count_all(client, cluster, paths, story)
        total = await merge_all(client, parts, story)
        story.work_s = time.monotonic() - began_s
        await look_back(client, story)
        async with telling(lambda: "computing the same directly, in one process ..."):
            expected = await cluster.python(DIRECTLY)
        agrees = report(total, expected, story)
        console.print(f"  done by              {await who_did_it(client)}", soft_wrap=True)
        console.print(f"  RabbitMQ             {await broker(cluster)}", soft_wrap=True)
    return agrees


def main() -> int:
    if lack := missing():
        console.print(
            f"make demo-cluster needs Docker with Compose, but {lack}. `make demo` needs no service."
        )
        return 2
    with running() as cluster:
        return 0 if asyncio.run(census(cluster)) else 1


if __name__ == "__main__":
    sys.exit(main())
