"""Servers from an earlier life of the data folder are ended before a new one starts: never two on one folder.

Called under the folder's lock, so nobody who is alive uses them. On Linux a process counts when it is a
`postgres` whose working directory is the cluster (server processes stay there). A killed orphan may remain a
zombie, for which kill(pid, 0) succeeds and PostgreSQL refuses to start; it has no working directory any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from runtime.errors import EmbeddedError

_POLL_S: Final = 0.01
# fast shutdown, immediate shutdown (safe: crash recovery follows), the end
_STEPS: Final = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


async def end_orphans(cluster: Path) -> int:
    """End every server process on `cluster` and remove what it left; how many there were."""
    found = server_processes(cluster)
    for number, wait_s in _STEPS:
        if not (alive := server_processes(cluster)):
            break
        leader = postmaster_pid(cluster)
        if leader in alive and number != signal.SIGKILL:
            _tell([leader], number)  # its children end with it
        else:
            _tell(alive, signal.SIGTERM if number == signal.SIGINT else number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while server_processes(cluster):  # noqa: ASYNC110 - not our children, nothing tells us
                    await asyncio.sleep(_POLL_S)
    if left := server_processes(cluster):
        raise EmbeddedError(f"PostgreSQL processes {left} still run on {cluster} and do not end: kill them")
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    return len(found)


def postmaster_pid(cluster: Path) -> int | None:
    try:
        return int((cluster / "postmaster.pid").read_text(errors="replace").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def server_processes(cluster: Path) -> list[int]:
    """Ids of the live PostgreSQL processes on this cluster."""
    if not sys.platform.startswith("linux"):
        pid = postmaster_pid(cluster)
        return [pid] if pid is not None and _is_postgres_by_ps(pid) else []
    real = os.path.realpath(cluster)
    pids = filter(str.isdigit, os.listdir("/proc"))  # noqa: PTH208 - hot in a poll
    return [int(pid) for pid in pids if _serves(pid, real)]


def _serves(pid: str, cluster: str) -> bool:
    try:  # not readable or gone: not one of ours
        if os.readlink(f"/proc/{pid}/cwd") != cluster:  # noqa: PTH115 - hot in a poll
            return False
        return Path(f"/proc/{pid}/comm").read_text(errors="replace") == "postgres\n"
    except OSError:
        return False


def _is_postgres_by_ps(pid: int) -> bool:
    said = subprocess.run(
        ["ps", "-p", str(pid), "-o", "stat=,comm="], capture_output=True, text=True, check=False
    )
    return "postgres" in said.stdout and not said.stdout.lstrip().startswith("Z")


def _tell(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a stopped process would never act on it
