"""`make demo`: three nodes count the standard library; one is killed with -9, one is asked to leave. Needs no service.

Starts `noria dev --nodes 3` with an own PostgreSQL, posts two tasks per source file through all nodes (some of them twice
on purpose), and compares the results with a direct computation in one process. Exit code 0 only if everything agrees
and the record shows that nothing was lost and nothing committed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from examples.census.handlers import add_up, count_source
from examples.census.play import play
from examples.census.screen import doing
from examples.census.story import Expected

FILES_MAX = 300  # or as the first argument says
FILE_BYTES_MAX = 25_000
HERE = Path(__file__).parent
SETTINGS = {
    "LEASE_S": "2",
    "DRAIN_S": "0.5",
    "CONCURRENCY": "16",
    "CPU_PROCESSES": "1",
    "LOG_LEVEL": "error",
}


def sources(count: int = FILES_MAX) -> list[Path]:
    """So many real files of the standard library, always the same ones."""
    library = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "lib2to3", "__pycache__", "data"}
    found = [
        path
        for path in sorted(library.rglob("*.py"))
        if not skipped.intersection(path.relative_to(library).parts)
        and not path.name.startswith("bad")
        and path.stat().st_size <= FILE_BYTES_MAX
    ]
    return found[:count]


def directly(paths: list[Path]) -> Expected:
    """The same without any task: the sum of all counts, and the digest of each file."""
    contents = [path.read_bytes() for path in paths]
    return Expected(
        total=add_up([count_source(content) for content in contents]),
        digests=[hashlib.sha256(content).hexdigest() for content in contents],
    )


class Dev:
    """The nodes of one `noria dev`. `urls` by name."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.urls = urls

    async def kill(self, node: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{self.urls[node]}/v1/stats") as answer:
            pid = int((await answer.json())["pid"])
        os.kill(pid, signal.SIGKILL)
        return f"killed {node} (process {pid}) with -9; noria dev starts it again"


@contextlib.contextmanager
def noria_dev(log: Path, data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NORIA_")}
    settings = SETTINGS | {"HTTP_PORT": str(free_port()), "DATA_DIR": str(data_dir)}
    environment = ours | {f"NORIA_{name}": value for name, value in settings.items()}
    command = [
        sys.executable,
        "-m",
        "node.cli",
        "dev",
        str(HERE / "handlers.py"),
        "--nodes",
        "3",
        "--no-reload",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


async def urls_of(dev: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    """By node name. It prints them once all nodes answer."""
    async with doing("starting three nodes and their PostgreSQL"):
        while True:
            said = await asyncio.to_thread(log.read_text)
            if urls := {name: url for url, name in re.findall(r"(http://\S+)  (node-\d)", said)}:
                return urls
            if dev.poll() is not None:
                raise SystemExit(f"noria dev ended with code {dev.returncode}:\n{said}")
            await asyncio.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run(files: int) -> bool:
    paths = sources(files)
    with tempfile.TemporaryDirectory(prefix="noria-demo-") as folder:
        log = Path(folder) / "dev.log"
        with noria_dev(log, Path(folder) / "data") as process:
            dev = Dev(await urls_of(process, log))
            return await play(dev, [str(path) for path in paths], lambda: asyncio.to_thread(directly, paths))


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else FILES_MAX)) else 1)
