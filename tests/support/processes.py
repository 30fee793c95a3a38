"""Real processes for fault tests: start them, wait for what they say or serve, kill them, look for survivors.

Every wait ends with an event or at its deadline, with what the process printed in the error. Processes end
with the block that started them; what they had started themselves is killed too and reported.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).parents[2]
MARK: Final = "NORIA_TEST_MARK"  # inherited by what a process starts, however far from it
_LINES_KEPT: Final = 5_000
_RETRY_S: Final = 0.01


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process: its id is not enough, the kernel uses them again."""

    pid: int
    started: int  # clock ticks after boot
    name: str

    @property
    def alive(self) -> bool:
        """Not ended; a zombie (state Z) that nobody has waited for has ended."""
        found = _stat(self.pid)
        return found is not None and found[0] == self and found[2] not in {"Z", "X"}


def processes() -> list[Process]:
    """All that live now."""
    return [found[0] for pid in _pids() if (found := _stat(pid)) and found[2] not in {"Z", "X"}]


def descendants(pid: int) -> set[Process]:
    """Live processes below this one."""
    children: dict[int, list[Process]] = {}
    for found in filter(None, map(_stat, _pids())):
        children.setdefault(found[1], []).append(found[0])
    below: set[Process] = set()
    todo = [pid]
    while todo:
        new = [p for p in children.get(todo.pop(), []) if p not in below]
        below.update(new)
        todo += [p.pid for p in new]
    return {p for p in below if p.alive}


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _stat(pid: int) -> tuple[Process, int, str] | None:
    """The process, its parent's id and its state letter."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
    fields = rest.split()
    return Process(pid, int(fields[19]), name), int(fields[1]), fields[0]


def environment_has(pid: int, mark: str) -> bool:
    """Whether the process was started with MARK=mark in its environment."""
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


class Spawned:
    """A child process whose output (stdout and stderr together) is read as it comes."""

    def __init__(
        self, command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, mark: str
    ) -> None:
        self._mark = mark
        self._known: set[Process] = set()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**env, MARK: mark},
            cwd=cwd,
            start_new_session=True,  # Ctrl-C of the test run reaches it through us only
        )
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._read = 0  # lines read so far, more than are kept
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._pump, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        with self._news:
            return "\n".join(self._lines)

    def wait_line(self, pattern: str, *, timeout_s: float = 20, after: int = 0) -> re.Match[str]:
        """The first line from number `after` on that the pattern is found in. See `lines_read`."""
        deadline_s = time.monotonic() + timeout_s
        with self._news:
            while True:
                first = self._read - len(self._lines)
                for number, line in enumerate(self._lines, first):
                    if number >= after and (found := re.search(pattern, line)):
                        return found
                rest_s = deadline_s - time.monotonic()
                if self._ended or not self._news.wait(max(rest_s, 0)):
                    why = (
                        f"ended ({self.process.poll()})"
                        if self._ended
                        else f"did not say so in {timeout_s} s"
                    )
                    text = "\n".join(self._lines)
                    raise AssertionError(f"no line like {pattern!r}: the process {why}\n{text}")

    @property
    def lines_read(self) -> int:
        """Pass it as `after` to wait for lines that come from now on."""
        with self._news:
            return self._read

    def wait_exit(self, timeout_s: float = 20) -> int:
        """Return code, once the process has ended and all its output is read."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process did not end in {timeout_s} s\n{self.output}") from None
        return code

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone. Its descendants are noted first, for `survivors`."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # so that it starts no more of them meanwhile
            self._known.update(descendants(self.pid))
            self.process.kill()
        self.process.wait()

    def survivors(self) -> list[Process]:
        """Live processes that it started, directly or not, also after it is gone itself."""
        self._known.update(descendants(self.pid))
        self._known.update(p for p in processes() if environment_has(p.pid, self._mark))
        return sorted(p for p in self._known if p.alive and p.pid != self.pid)

    def wait_no_survivors(self, timeout_s: float = 10) -> None:
        wait_until(
            lambda: not self.survivors(), timeout_s, lambda: f"alive: {self.survivors()}\n{self.output}"
        )

    def close(self) -> list[Process]:
        """Kill it and all it started; those that had survived it."""
        self._known.update(descendants(self.pid))
        self.kill()
        left = self.survivors()
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return left

    def _pump(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._read += 1
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@contextmanager
def spawned(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Spawned]:
    """Run a command for this block. `env` is added to ours, less every NORIA_ variable."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("NORIA_")}
    whole = {**ours, "PYTHONUNBUFFERED": "1", **(env or {})}
    process = Spawned(command, env=whole, cwd=cwd or ROOT, mark=f"{os.getpid()}-{time.monotonic_ns()}")
    try:
        yield process
    finally:
        process.close()


@contextmanager
def node(env: Mapping[str, str], cwd: Path | None = None) -> Iterator[Spawned]:
    """A node process as `noria node` starts it; the environment tells it all."""
    with spawned(sys.executable, "-m", "node", env=env, cwd=cwd) as process:
        yield process


@contextmanager
def noria(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Spawned]:
    """The `noria` command, where the script need not be on the PATH."""
    with spawned(sys.executable, "-m", "node.cli", *arguments, env=env, cwd=cwd) as process:
        yield process


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_url(url: str, *, process: Spawned | None = None, status: int = 200, timeout_s: float = 20) -> bytes:
    """Ask until this status comes back; its body. Ends early when `process` does."""
    parts = urlsplit(url)
    body = b""
    seen = "no answer"

    def answers() -> bool:
        nonlocal body, seen
        if process is not None and process.process.poll() is not None:
            raise AssertionError(f"the process ended with {process.process.poll()}\n{process.output}")
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request("GET", parts._replace(scheme="", netloc="").geturl() or "/")
            answer = connection.getresponse()
            body, seen = answer.read(), f"status {answer.status}"
        except (OSError, http.client.HTTPException) as exc:
            seen = repr(exc)
            return False
        finally:
            connection.close()
        return answer.status == status

    wait_until(answers, timeout_s, lambda: f"{url}: {seen}\n{process.output if process else ''}")
    return body


def wait_until(condition: Callable[[], bool], timeout_s: float, why: Callable[[], str]) -> None:
    """Look until it holds. Only for what tells nobody when it changes: other processes, sockets to come."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not in {timeout_s} s: {why()}")
        time.sleep(_RETRY_S)
