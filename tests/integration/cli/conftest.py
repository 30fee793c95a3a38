"""A real node (on the memory store) in a thread, and the command: in this process, or as one of its own."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from node.cli.app import execute
from node.client import SyncClient
from tests.support.client_handlers import REGISTRY
from tests.support.threaded_node import threaded_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """All of stdout, which must be one JSON document."""
        return orjson.loads(self.out)


@pytest.fixture(scope="session")
def node_url() -> Iterator[str]:
    with threaded_node(REGISTRY) as url:
        yield url


@pytest.fixture
def client(node_url: str) -> Iterator[SyncClient]:
    with SyncClient(node_url) as made:
        yield made


@pytest.fixture
def noria(
    node_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """The command in this process, against the node."""
    for name in [name for name in os.environ if name.startswith("NORIA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NORIA_URL", node_url)

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = execute(arguments)
        return Done(code, *capsys.readouterr())

    return run


def clean_environment(**variables: str) -> dict[str, str]:
    """As a user's: without settings, and without PYTHONUNBUFFERED, which hides that a reader has left."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("NORIA_", "PYTHONUNBUF"))
    }
    return {**kept, "COLUMNS": "200", **variables}


@pytest.fixture
def process(node_url: str) -> Callable[..., Done]:
    """The command as a process of its own, against the node."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "node.cli", *arguments],
            input=stdin, capture_output=True, text=True, timeout=50, check=False,
            env=clean_environment(**{"NORIA_URL": node_url, **variables}),
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


class Terminal:
    """A command whose stdin, stdout and stderr are a terminal of 100 columns and 30 rows."""

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, url: str, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(100, 30)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node.cli", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
            env=clean_environment(NORIA_URL=url, COLUMNS="100", TERM="xterm-256color"), start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.shown = ""

    def read_until(self, text: str, within_s: float = 20.0, *, forget: bool = False) -> None:
        """`forget`: what was shown before does not count."""
        deadline_s = time.monotonic() + within_s
        begin = len(self.shown) if forget else 0
        while text not in self.shown[begin:]:
            assert select.select([self._ours], [], [], deadline_s - time.monotonic())[0], self.shown
            self.shown += self._decoder.decode(os.read(self._ours, 65536))

    def resize(self, columns: int, rows: int) -> None:
        """As if somebody pulled at the window; the command that runs there hears of it."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if self.process is not None:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def finish(self, within_s: float = 20.0) -> int:
        while select.select([self._ours], [], [], within_s)[0]:
            try:
                self.shown += self._decoder.decode(os.read(self._ours, 65536))
            except OSError:  # the other side is closed
                break
        assert self.process is not None
        code = self.process.wait(within_s)
        os.close(self._ours)
        return code


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")
