"""`make demo`: a census of the standard library, with a crash in the middle. Needs no service.

Starts `noria dev` with its own PostgreSQL, posts one task per source file in batches (some of them twice on purpose),
kills the node with -9 half way, lets it be started again, merges the partial results in tasks, and compares
the outcome with a direct computation in one process. Exit code 0 only if everything agrees.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from actors import task
from examples.census.handlers import Count, add_up, count_file, count_source, merge
from node.client import Client, TaskHandle, Unreachable

FILES_MAX = 1_000
FILE_BYTES_MAX = 25_000
TWICE = 50
MERGE_SIZE = 50
HERE = Path(__file__).parent
console = Console(highlight=False)


@dataclass(slots=True)
class Story:
    """What happened, for the summary."""

    started_s: float = field(default_factory=time.monotonic)
    tasks: int = 0
    duplicates: int = 0
    killed_pid: int = 0
    latencies_s: list[float] = field(default_factory=list)
    attempts: int = 0
    work_s: float = 0.0


def sources() -> list[Path]:
    """About a thousand real files of the standard library, always the same ones."""
    library = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "lib2to3", "__pycache__", "data"}
    found = [
        path
        for path in sorted(library.rglob("*.py"))
        if not skipped.intersection(path.relative_to(library).parts)
        and not path.name.startswith("bad")
        and path.stat().st_size <= FILE_BYTES_MAX
    ]
    return found[:FILES_MAX]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def noria_dev(port: int, data_dir: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NORIA_")},
        "NORIA_HTTP_PORT": str(port), "NORIA_DATA_DIR": data_dir, "NORIA_LEASE_S": "2", "NORIA_LOG_LEVEL": "error",
    }  # fmt: skip
    command = [sys.executable, "-m", "node.cli", "dev", str(HERE / "handlers.py"), "--no-reload"]
    log = (Path(data_dir).parent / "dev.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        log.close()


async def until_ready(client: Client, dev: subprocess.Popen[bytes]) -> None:
    doing = "starting a node with its own PostgreSQL ..."
    async with telling(lambda: doing), status(doing):
        while dev.poll() is None:
            with contextlib.suppress(Unreachable):
                if await client.ready():
                    return
            await asyncio.sleep(0.1)
    raise SystemExit(f"noria dev ended with code {dev.returncode} before it was ready")


@contextlib.asynccontextmanager
async def status(text: str) -> AsyncIterator[None]:
    with console.status(text):
        yield


@contextlib.asynccontextmanager
async def telling(what: Callable[[], str]) -> AsyncIterator[None]:
    """Where there is no terminal for a moving bar: a line a second, so that nobody waits in silence."""

    async def tell() -> None:
        while not console.is_terminal:
            console.print(what())
            await asyncio.sleep(1)

    teller = asyncio.create_task(tell())
    try:
        yield
    finally:
        teller.cancel()


@contextlib.asynccontextmanager
async def progress(total: int, text: str) -> AsyncIterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task(text, total=total)
        async with telling(lambda: f"{text} {bar.tasks[0].completed:.0f} of {total}"):
            yield bar, row


async def count_all(client: Client, files: list[Path], story: Story) -> list[Count]:
    work = [task(count_file, path=str(path)).options(idempotency_key=f"census:{path}") for path in files]
    handles = await client.submit_many(work)
    again = await client.submit_many(work[:TWICE])
    story.duplicates = sum(one.id == other.id for one, other in zip(handles, again, strict=False))
    async with progress(len(files), "counting") as (bar, row):
        done = 0
        async for _ in client.as_ended(handles):
            done += 1
            bar.update(row, completed=done)
            if done == len(files) // 2:
                story.killed_pid = await kill_node(client)
                bar.console.print(
                    f"[red]killed the node (pid {story.killed_pid}) with -9[/]; it is started again"
                )
    return await results(client, handles)


async def kill_node(client: Client) -> int:
    pid = int(str((await client.stats())["pid"]))
    os.kill(pid, signal.SIGKILL)
    return pid


async def results(client: Client, handles: list[TaskHandle[Count]]) -> list[Count]:
    found = await client.results(handles, timeout_s=60)
    return [one for one in found if not isinstance(one, Exception)]


async def merge_all(client: Client, parts: list[Count], story: Story) -> Count:
    while len(parts) > 1:
        groups = [parts[start : start + MERGE_SIZE] for start in range(0, len(parts), MERGE_SIZE)]
        handles = await client.submit_many([task(merge, parts=group) for group in groups])
        story.tasks += len(handles)
        parts = await results(client, handles)
    return parts[0]


async def look_back(client: Client, story: Story) -> None:
    async for info in client.tasks(handler="census.count"):
        story.attempts += info.attempt
        if info.finished_at is not None:
            story.latencies_s.append((info.finished_at - info.created_at).total_seconds())


def report(total: Count, expected: Count, story: Story) -> bool:
    table = Table(title="The standard library", show_header=True)
    for name in ("counted", "by tasks", "directly"):
        table.add_column(name, justify="left" if name == "counted" else "right")
    for key, value in total.items():
        table.add_row(key, f"{value:,}", f"{expected[key]:,}")  # type: ignore[literal-required]  # its own keys
    console.print(table)
    agrees = total == expected and story.duplicates == TWICE
    ordered = sorted(story.latencies_s)
    console.print(
        f"{'[green]both computations agree[/]' if agrees else '[red]the computations differ[/]'}\n"
        f"  tasks                {story.tasks + len(ordered):,}\n"
        f"  duplicates refused   {story.duplicates} of {TWICE} posted twice\n"
        f"  attempts repeated    {story.attempts - len(ordered)} (the node was killed in the middle)\n"
        f"  rate                 {(story.tasks + len(ordered)) / story.work_s:,.0f} tasks/s, crash included\n"
        f"  accepted to outcome  p50 {ordered[len(ordered) // 2]:.2f} s, p99 {ordered[len(ordered) * 99 // 100]:.2f} s\n"
        f"  in all               {time.monotonic() - story.started_s:.1f} s"
    )
    return agrees


async def run() -> bool:
    story = Story()
    files = sources()
    with tempfile.TemporaryDirectory(prefix="noria-demo-") as folder:
        port = free_port()
        with noria_dev(port, str(Path(folder) / "data")) as dev:
            async with Client(f"http://127.0.0.1:{port}", retry_for_s=30) as client:
                await until_ready(client, dev)
                console.print(f"one task for each of {len(files)} files of {sysconfig.get_paths()['stdlib']}")
                began_s = time.monotonic()
                parts = await count_all(client, files, story)
                total = await merge_all(client, parts, story)
                story.work_s = time.monotonic() - began_s
                await look_back(client, story)
        doing = "computing the same directly, in one process ..."
        async with telling(lambda: doing), status(doing):
            expected = await asyncio.to_thread(
                lambda: add_up([count_source(path.read_bytes()) for path in files])
            )
    return report(total, expected, story)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(run()) else 1)
