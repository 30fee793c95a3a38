"""Celery and Dramatiq on a RabbitMQ, PgQueuer on a PostgreSQL, as processes of their own: peers/ says how they are set up.

They are installed from the package index into .venv-peers, once. Where that cannot be, they are left out, and the table
says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.rig import HERE, tree_cpu_s
from runtime.adapters.embedded.child import Child, exited, spawn

ROOT: Final = HERE.parent
VENV: Final = ROOT / ".venv-peers"
_COMMANDS: Final = {  # {} is the number of worker processes
    "Celery": ("celery_peer", "celery -A celery_peer worker -P prefork -c {} -l ERROR"),
    "Dramatiq": ("dramatiq_peer", "dramatiq dramatiq_peer -p {} -t 8"),
    "PgQueuer": ("pgqueuer_peer", f"python {HERE / 'peers/pgqueuer_peer.py'} work"),  # always one
}
_RUN_S: Final = 120.0
_POLL_S: Final = 0.005
_LOG_CHARS: Final = 2_000


def installed() -> str | None:
    """None once they are there; else why not."""
    ready = VENV / ".ready"
    wanted = HERE / "requirements-peers.txt"
    if ready.exists() and ready.stat().st_mtime >= wanted.stat().st_mtime:
        return None
    print("setting up .venv-peers (half a minute the first time) ...", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        pip = [
            VENV / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            wanted,
        ]
        subprocess.run(pip, check=True, timeout=180, capture_output=True)
    except (OSError, subprocess.SubprocessError) as failed:
        return f"they could not be installed: {type(failed).__name__}"
    ready.touch()
    return None


@dataclass(slots=True)
class Peer:
    """Workers that wait for tasks."""

    name: str
    module: str
    marks: Path
    worker: Child
    service_pid: int  # of its broker or database
    environment: dict[str, str]

    async def run(self, count: int) -> tuple[float, float]:
        """Tasks per second from the first one sent to the last body begun, and CPU s per 10,000 of all processes."""
        before = self.marks.stat().st_size
        used_s = tree_cpu_s(self.worker.pid) + tree_cpu_s(self.service_pid)
        script = HERE / "peers" / f"{self.module}.py"
        own_s = _reaped_cpu_s()
        producer = await asyncio.create_subprocess_exec(
            VENV / "bin/python", script, str(count), env=self.environment, stdout=asyncio.subprocess.PIPE
        )
        assert producer.stdout is not None
        await producer.stdout.readline()
        began_s = time.monotonic()
        while self.marks.stat().st_size < before + count:
            if time.monotonic() - began_s > _RUN_S or self.worker.poll() is not None:
                raise SystemExit(self._why(self.marks.stat().st_size - before, count))
            await asyncio.sleep(_POLL_S)
        took_s = time.monotonic() - began_s
        await producer.wait()
        cpu_s = tree_cpu_s(self.worker.pid) + tree_cpu_s(self.service_pid) - used_s + _reaped_cpu_s() - own_s
        return count / took_s, cpu_s * 1e4 / count

    def _why(self, done: int, count: int) -> str:
        state = "is at work still" if self.worker.poll() is None else f"ended with {self.worker.poll()}"
        log = (self.marks.parent / "log").read_text(errors="replace")[-_LOG_CHARS:]
        return f"{self.name} has done {done} of {count} tasks and {state}; the end of its log:\n{log}"


@contextlib.asynccontextmanager
async def peer(
    name: str, service_pid: int, *, processes: int = 2, amqp_url: str = "", postgres_dsn: str = ""
) -> AsyncIterator[Peer]:
    """That peer, ready: it has done a few tasks."""
    module, line = _COMMANDS[name]
    command = line.format(processes).split()
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        marks = Path(folder) / "marks"
        marks.touch()
        environment = {
            "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}", "HOME": folder, "PYTHONPATH": str(HERE / "peers"),
            "PEER_MARKS": str(marks), "PEER_AMQP_URL": amqp_url, "PEER_POSTGRES_DSN": postgres_dsn, "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        with (Path(folder) / "log").open("wb") as log:
            worker = spawn(
                [VENV / "bin" / command[0], *command[1:]],
                end_signal=signal.SIGKILL,
                env=environment,
                output=log,
            )
        made = Peer(name, module, marks, worker, service_pid, environment)
        try:
            await made.run(200)
            yield made
        finally:
            worker.send_signal(signal.SIGTERM)
            await exited(worker, 10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)  # its own workers too


def _reaped_cpu_s() -> float:
    """Of children that have ended and were waited for: the producers."""
    times = os.times()
    return times.children_user + times.children_system
