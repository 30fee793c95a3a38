"""What every benchmark stands on: a real node process on its own PostgreSQL (synchronous_commit and fsync on), and the
CPU that all processes used. The producer is the process that runs the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg

from runtime.adapters.embedded import EmbeddedPostgres

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Rig:
    url: str
    dsn: str
    node_pid: int
    postgres_pid: int

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far: node, PostgreSQL (its children too), this producer."""
        own = os.times()
        return {
            "producer": own.user + own.system,
            "node": tree_cpu_s(self.node_pid),
            "postgres": tree_cpu_s(self.postgres_pid),
        }

    def memory_mib(self) -> float:
        """Resident memory of the node."""
        pages = int(Path(f"/proc/{self.node_pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.asynccontextmanager
async def rig(**settings: str) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        async with EmbeddedPostgres(Path(folder) / "data") as postgres:
            port = free_port()
            environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith("NORIA_")},
                "NORIA_POSTGRES_DSN": postgres.dsn, "NORIA_HANDLERS": str(HERE / "handlers.py"),
                "NORIA_HTTP_PORT": str(port), "NORIA_LOG_LEVEL": "warning", "NORIA_CONCURRENCY": "500", **settings,
            }  # fmt: skip
            node = subprocess.Popen([sys.executable, "-m", "node"], env=environment)
            try:
                url = f"http://127.0.0.1:{port}"
                await until_ready(url, node)
                assert postgres.pid is not None
                yield Rig(url, postgres.dsn, node.pid, postgres.pid)
            finally:
                node.send_signal(signal.SIGTERM)
                node.wait(30)


async def until_ready(url: str, node: subprocess.Popen[bytes]) -> None:
    async with aiohttp.ClientSession() as session:
        while node.poll() is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
    raise SystemExit(f"the node ended with code {node.returncode}")


async def until_idle(dsn: str, timeout_s: float = 300) -> float:
    """Until nothing waits and nothing runs; returns the monotonic time of that moment."""
    connection = await asyncpg.connect(dsn)
    try:
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            busy = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM noria.waiting) OR EXISTS (SELECT FROM noria.running)"
            )
            if not busy:
                return time.monotonic()
            await asyncio.sleep(0.005)
        raise SystemExit("the node did not finish in time")
    finally:
        await connection.close()


def tree_cpu_s(root: int) -> float:
    """User and system CPU of a process and all its descendants, the reaped ones included."""
    cpu: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                cpu[int(entry)] = sum(map(int, fields[11:15])) / TICKS
                children.setdefault(int(fields[1]), []).append(int(entry))
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        total += cpu.get(pid, 0.0)
        todo += children.get(pid, [])
    return total


def busy_cpu_s() -> float:
    """CPU seconds that the whole machine has worked."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


async def quiet_moment(within_s: float = 10.0, cores: float = 0.5) -> None:
    """Where other work shares the machine: until it pauses for half a second, but not for longer than that."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        before, began_s = busy_cpu_s(), time.monotonic()
        await asyncio.sleep(0.5)
        if busy_cpu_s() - before < cores * (time.monotonic() - began_s):
            return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
