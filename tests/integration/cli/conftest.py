"""A real node (on the memory store) in a thread, and the command: in this process, or as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
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
