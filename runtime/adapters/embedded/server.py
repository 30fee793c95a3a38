"""EmbeddedPostgres: a PostgreSQL of our own on a data folder, reached through a private unix socket.

No TCP: access is decided by the socket's 0700 directory, so there is no password to keep. Nothing that
guards durability is relaxed (fsync, full_page_writes and synchronous_commit stay on); the settings only make
it small. The server ends with this process, however that ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import asyncpg

from runtime.adapters.embedded.binaries import Binaries, find_binaries
from runtime.adapters.embedded.child import Child, exited, spawn
from runtime.adapters.embedded.folder import SOCKET_NAME, DataFolder, sync, sync_tree
from runtime.adapters.embedded.identity import Identity, choose_identity
from runtime.adapters.embedded.orphans import end_orphans
from runtime.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

_log = logging.getLogger(__name__)

USER: Final = "noria"
DATABASE: Final = "noria"
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "log_min_error_statement": "panic",  # statements may carry what users call secret
}
_LOG_BYTES_MAX: Final = 4 * 1024 * 1024
_START_S: Final = 60.0  # crash recovery of a full WAL takes its time
_STOP_S: Final = 30.0
_POLL_S: Final = 0.005


class EmbeddedPostgres:
    """A server on `data_dir`. `settings` go before SETTINGS; `binaries` defaults to the wheel's."""

    def __init__(
        self, data_dir: Path, *, binaries: Binaries | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = DataFolder(data_dir)
        self._binaries = binaries
        self._settings = {**SETTINGS, **(settings or {})}
        self._child: Child | None = None
        self._socket_dir: Path | None = None

    @property
    def dsn(self) -> str:
        """For asyncpg and libpq. Raises EmbeddedError before the first start."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        if self._socket_dir is None:
            raise EmbeddedError("the embedded PostgreSQL was not started")
        return f"postgresql://{USER}@/{quote(database)}?host={quote(str(self._socket_dir), safe='')}"

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster while it runs."""
        return None if self._child is None or self._child.poll() is not None else self._child.pid

    async def start(self, *, fresh: bool = False) -> str:
        """Start it, making the cluster where there is none (`fresh`: always); its DSN once it answers.

        Raises EmbeddedError, with what to do, where the folder cannot be used or the server does not start.
        """
        if self.pid is not None:
            return self.dsn
        binaries = self._binaries = self._binaries or find_binaries()
        self.folder.open()
        try:
            await self._prepare(binaries, fresh=fresh)
            await self._ensure_database()
        except BaseException:
            await self.stop()
            raise
        return self.dsn

    async def _prepare(self, binaries: Binaries, *, fresh: bool) -> None:
        cluster = self.folder.cluster
        if ended := await end_orphans(cluster):
            _log.warning("ended %d PostgreSQL processes that an earlier run had left on %s", ended, cluster)
        if fresh:
            self.folder.clear()
        exists = self.folder.check_version(binaries.major)
        identity = choose_identity(cluster, binaries.bin_dir)
        if not exists:
            await self._initdb(binaries, identity)
        elif identity.owner != cluster.stat().st_uid:  # root's: somebody copied or chowned it
            identity.adopt_tree(cluster)
        self._socket_dir = self.folder.socket_dir(identity)
        for leftover in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (self._socket_dir / leftover).unlink(missing_ok=True)
        await self._launch(binaries, identity)

    async def _initdb(self, binaries: Binaries, identity: Identity) -> None:
        """Make the cluster beside its place and rename it: a half-made one is never taken for whole."""
        half = self.folder.path / "postgres.new"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        identity.adopt(half)
        command: list[str | Path] = [
            binaries.initdb,
            "--pgdata",
            half,
            "--username",
            USER,
            "--auth",
            "trust",
            "--no-locale",
        ]
        code = await self._run([*command, "--encoding", "UTF8", "--no-instructions", "--no-sync"], identity)
        if code != 0:
            raise EmbeddedError(f"initdb failed with code {code}; {self._last_words()}")
        durable = self._settings["fsync"] != "off"
        if durable:
            await asyncio.to_thread(sync_tree, half)
        half.rename(self.folder.cluster)
        if durable:
            sync(self.folder.path)  # or a crash of the machine could undo the name, and with it all commits

    async def _run(self, command: list[str | Path], identity: Identity) -> int:
        with self.folder.log.open("ab") as log:
            child = spawn(
                command, end_signal=signal.SIGKILL, env=_environment(), identity=identity, output=log
            )
        try:
            code = await exited(child, _START_S)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        return -signal.SIGKILL if code is None else code

    async def _launch(self, binaries: Binaries, identity: Identity) -> None:
        command: list[str | Path] = [
            binaries.postgres,
            "-D",
            self.folder.cluster,
            "-k",
            str(self._socket_dir),
        ]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        self.bound_log()
        with self.folder.log.open("ab") as log:
            child = spawn(
                command, end_signal=signal.SIGINT, env=_environment(), identity=identity, output=log
            )
        self._child = child
        try:
            async with asyncio.timeout(_START_S):
                await self._answers(child)
        except TimeoutError:
            raise EmbeddedError(
                f"PostgreSQL is not ready after {_START_S:g} s; {self._last_words()}"
            ) from None

    async def _answers(self, child: Child) -> None:
        """Wait as pg_ctl does: the last line of postmaster.pid says `ready`."""
        status = self.folder.cluster / "postmaster.pid"
        while True:
            if (code := child.poll()) is not None:
                raise EmbeddedError(f"PostgreSQL ended with code {code} at its start; {self._last_words()}")
            try:
                lines = status.read_text(errors="replace").splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[0] == str(child.pid) and lines[7].strip() == "ready":
                return
            await asyncio.sleep(_POLL_S)

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self.dsn_of("postgres"), timeout=_START_S)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    async def wait(self) -> int:
        """Wait until the server ends by itself or by another's hand; its return code."""
        if self._child is None:
            raise EmbeddedError("the embedded PostgreSQL was not started")
        code = await exited(self._child)
        return -1 if code is None else code

    async def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it and leave the folder. SIGINT: rolls back and disconnects clients; SIGQUIT: as a crash.

        What does not end in time is ended harder. May be repeated.
        """
        child, self._child = self._child, None
        try:
            if child is not None and child.poll() is None:
                child.send_signal(number)
                if await exited(child, _STOP_S) is None:
                    _log.warning("PostgreSQL does not stop within %g s: immediate shutdown", _STOP_S)
                    child.send_signal(signal.SIGQUIT)
                    await exited(child, _STOP_S)
        finally:
            if child is not None:
                if child.poll() is None:
                    child.kill()
                child.wait()
                child.release()
                self._leave_socket_dir()
            self.folder.close()

    def _leave_socket_dir(self) -> None:
        if self._socket_dir is not None and not self._socket_dir.is_relative_to(self.folder.path):
            with suppress(OSError):  # after a hard end there may still be something in it
                self._socket_dir.rmdir()

    def bound_log(self) -> None:
        """Keep the log under 2 x 4 MiB: called at start, and now and then by a long-lived owner.

        Copy and truncate, because the server holds the file open (for appending).
        """
        log = self.folder.log
        if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)

    def _last_words(self) -> str:
        try:
            with self.folder.log.open("rb") as log:
                log.seek(max(0, self.folder.log.stat().st_size - 2000))
                lines = log.read().decode(errors="replace").strip().splitlines()[-8:]
        except OSError:
            lines = []
        return f"the end of {self.folder.log}:\n" + "\n".join(f"  {line}" for line in lines)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _environment() -> dict[str, str]:
    """Nothing of the caller's PG* variables or locale; TZ spares initdb a search through the time zones."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
