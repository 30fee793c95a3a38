"""Commands that run something here, on real PostgreSQL: dev, node, check, migrate, new."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from node.client import SyncClient
from tests.integration.cli.conftest import clean_environment
from tests.support.processes import free_port
from tests.support.processes import noria as spawn_noria

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.cli.conftest import Done

    Run = Callable[..., Done]

HANDLERS = """
from actors import Context, handler
print("printed while imported")

@handler("greet")
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"
"""

SLOW = """
import asyncio
from pathlib import Path
from actors import Context, handler

@handler
async def slow(ctx: Context, folder: str) -> bool:
    while not Path(folder, "go").exists():
        await asyncio.sleep(0.05)
    return True
"""


def write(folder: Path) -> str:
    file = folder / "handlers.py"
    file.write_text(HANDLERS)
    return str(file)


# -- node -------------------------------------------------------------------------------------------


def test_a_node_serves_until_sigterm_and_ends_with_0(pg_dsn_empty: str, tmp_path: Path) -> None:
    port = free_port()
    with spawn_noria(
        "node", write(tmp_path), "--http-port", str(port), "--node-name", "flagged", "--drain-s", "5s",
        env={"NORIA_POSTGRES_DSN": pg_dsn_empty, "NORIA_NODE_NAME": "from-the-environment"}, cwd=tmp_path,
    ) as process:  # fmt: skip
        process.wait_line("flagged serves")
        with SyncClient(f"http://127.0.0.1:{port}") as client:
            assert client.call("greet", {"name": "Ann"}, timeout_s=20) == "hello Ann"
            assert [row["name"] for row in client.cluster()["nodes"]] == ["flagged"]
        process.signal(signal.SIGTERM)
        assert process.wait_exit() == 0
        assert "Traceback" not in process.output


def test_a_hangup_drains_however_often_it_comes(pg_dsn_empty: str, tmp_path: Path) -> None:
    """Linux tells the end of a parent with several threads more than once."""
    with spawn_noria(
        "node", write(tmp_path), "--http-port", "0", env={"NORIA_POSTGRES_DSN": pg_dsn_empty}, cwd=tmp_path
    ) as process:
        process.wait_line("serves")
        for _ in range(5):
            process.signal(signal.SIGHUP)
        process.wait_line("drained: 0 attempts ended")
        assert process.wait_exit() == 0


def test_a_node_tells_everything_that_is_wrong_with_its_settings(process: Run) -> None:
    done = process("node", "--concurrency", "0", "--lease-s", "soon", NORIA_HTTP_PORT="x", NORIA_NONSENSE="1")
    assert done.code == 2
    for word in (
        "--concurrency: '0'",
        "--lease-s: 'soon'",
        "NORIA_HTTP_PORT: 'x'",
        "NORIA_NONSENSE",
        "NORIA_POSTGRES_DSN",
    ):
        assert word in done.err


@pytest.mark.allow_blocking("asyncpg looks for files when it connects")
def test_a_database_that_is_away_is_unreachable(noria: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("runtime.adapters.postgres.migrate"), "_TRIES", 2)
    done = noria("migrate", "--postgres-dsn", f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    assert (done.code, done.out) == (3, "")
    assert "PostgreSQL cannot be reached" in done.err


def test_a_node_with_handlers_that_cannot_be_loaded(process: Run, pg_dsn: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("from actors import handler\n1 / 0\n")
    done = process("node", str(broken), NORIA_POSTGRES_DSN=pg_dsn)
    assert done.code == 2
    assert "broken.py:2" in done.err
    assert 'File "' not in done.err


def test_wait_rides_out_a_node_that_is_killed_and_started_again(pg_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {"NORIA_POSTGRES_DSN": pg_dsn, "NORIA_HTTP_PORT": str(port), "NORIA_HANDLERS": str(tmp_path / "slow.py"),
           "NORIA_LEASE_S": "1", "NORIA_URL": url}  # fmt: skip
    with spawn_noria("node", env=env) as first:
        first.wait_line("serves")
        with spawn_noria("submit", "slow", f"folder={tmp_path}", "--wait", env={"NORIA_URL": url}) as waiting:
            waiting.wait_line("slow running")
            first.kill()
            waiting.wait_line("no node answers at .*; trying again")
            (tmp_path / "go").touch()
            with spawn_noria("node", env=env):
                assert waiting.wait_exit(30) == 0
                assert waiting.output.splitlines()[-1] == "true"


# -- check and migrate ------------------------------------------------------------------------------


def test_check_lists_what_a_node_would_load(process: Run, tmp_path: Path) -> None:
    file = write(tmp_path)
    done = process("check", file)
    assert done.code == 0
    assert done.out.splitlines()[1].split()[:2] == ["greet", "async"]
    assert "1 handlers, 0 lifespans; settings are fine" in done.err
    assert "`noria node` needs NORIA_POSTGRES_DSN" in done.err
    told = process("check", "--json", NORIA_HANDLERS=file)
    assert [entry["name"] for entry in told.json["handlers"]] == ["greet"]
    assert "printed while imported" in told.err


def test_check_tells_what_is_wrong_and_where(process: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from actors import handler\n\n@handler\ndef f(x: int) -> int:\n    return x\n"
    )
    done = process("check", str(tmp_path / "bad.py"))
    assert (done.code, done.out) == (2, "")
    assert "bad.py:" in done.err
    assert process("check", "--handlers", "a", "b").code == 2


def test_migrate_applies_once(process: Run, pg_dsn_empty: str) -> None:
    first = process("migrate", NORIA_POSTGRES_DSN=pg_dsn_empty)
    assert first.code == 0
    assert first.out.startswith("applied 0001_")
    again = process("migrate", "--json", NORIA_POSTGRES_DSN=pg_dsn_empty)
    assert again.json == {"applied": []}


# -- dev and new ------------------------------------------------------------------------------------


def test_dev_serves_a_file_with_flags_over_the_environment(tmp_path: Path) -> None:
    write(tmp_path)
    port = free_port()
    env = {"NORIA_HTTP_PORT": "1", "NORIA_LOG_LEVEL": "warning"}
    with spawn_noria("dev", "--http-port", str(port), "--no-reload", env=env, cwd=tmp_path) as process:
        assert process.wait_line(r"^  (http://\S+)")[1] == f"http://127.0.0.1:{port}"
        process.wait_line("Ctrl-C stops everything", timeout_s=40)
        with SyncClient(f"http://127.0.0.1:{port}") as client:
            assert client.call("greet", {"name": "Bob"}, timeout_s=20) == "hello Bob"
        process.signal(signal.SIGINT)
        assert process.wait_exit() == 0
        process.wait_no_survivors()


def test_new_makes_a_folder_whose_handlers_load(process: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hello"
    done = process("new", str(folder))
    assert done.code == 0
    assert {path.name for path in folder.iterdir()} == {
        "handlers.py",
        "test_handlers.py",
        "README.md",
        ".gitignore",
    }
    loaded = process("check", str(folder / "handlers.py"), "--json")
    assert [entry["name"] for entry in loaded.json["handlers"]] == ["average", "greet"]


def test_the_tests_of_a_new_folder_pass(process: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hello"
    process("new", str(folder))
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder, capture_output=True, text=True, check=False, env=clean_environment(),
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout
    assert "4 passed" in tests.stdout


def test_new_is_clean_code(tmp_path: Path, process: Run) -> None:
    folder = tmp_path / "clean"
    process("new", str(folder))
    for command in (
        ["ruff", "check", "--select", "E,F,I,UP,B"],
        ["ruff", "format", "--check"],
        ["mypy", "--strict"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command, "handlers.py", "test_handlers.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_new_overwrites_nothing(process: Run, tmp_path: Path) -> None:
    file = tmp_path / "handlers.py"
    file.write_text("mine")
    done = process("new", str(tmp_path))
    assert done.code == 2
    assert "already has handlers.py; nothing was written" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["handlers.py"]
    assert file.read_text() == "mine"


def test_a_new_project_runs(tmp_path: Path, process: Run) -> None:
    """The three lines of its README."""
    process("new", str(tmp_path / "first"))
    port = free_port()
    with spawn_noria("dev", "--http-port", str(port), cwd=tmp_path / "first") as dev:
        dev.wait_line("Ctrl-C stops everything", timeout_s=40)
        url = f"http://127.0.0.1:{port}"
        done = process("submit", "greet", "name=Ann", "--wait", "--url", url)
        assert (done.code, json.loads(done.out)) == (0, "Hello, Ann!")
        assert process("submit", "average", "numbers:=[1, 2, 3]", "--wait", NORIA_URL=url).out == "2.0\n"
