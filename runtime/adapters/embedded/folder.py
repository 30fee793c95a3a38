"""The data folder of an embedded server.

.noria/            marked as ours by NORIA_DATA, ignored by git
  lock             flock held by the process that uses the folder; the kernel drops it however that ends
  postgres/        the cluster, owned by the identity it runs as
  postgres.log     what the server says, bounded
  run/             the unix socket, 0700 (elsewhere when this path is too long for one)
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runtime.errors import EmbeddedError

if TYPE_CHECKING:
    from runtime.adapters.embedded.identity import Identity

MARKER: Final = "NORIA_DATA"
_MARKER_TEXT: Final = (
    "This folder belongs to Noria (`noria dev`). `noria dev --fresh` deletes what is in it.\n"
)
SOCKET_NAME: Final = ".s.PGSQL.5432"
# sun_path is 108 bytes on Linux, 104 on macOS, the last one a NUL.
_SOCKET_PATH_MAX: Final = 103
# PostgreSQL and asyncpg both split lists of hosts at commas; other signs need quoting in one or the other.
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9_./+@=~-]+")
_SYNC_THREADS: Final = 8
_FRESH_KEEPS: Final = {MARKER, "lock"}


class DataFolder:
    """A folder that one process uses at a time. Raises EmbeddedError where it must not be used."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.cluster = self.path / "postgres"
        self.log = self.path / "postgres.log"
        self._lock: int | None = None

    def open(self) -> None:
        """Create the folder where it is missing and lock it."""
        try:
            self._create()
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise EmbeddedError(
                f"the data folder {self.path} cannot be used: {exc}. It must be a folder that this user may "
                "write to (was it made by another one?); choose another with NORIA_DATA_DIR"
            ) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise EmbeddedError(
                f"the data folder {self.path} is in use by process {holder}: stop that `noria dev`, "
                "or give this one another folder with NORIA_DATA_DIR"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock = fd

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def clear(self) -> None:
        """Delete what is in the folder; it is open, so it is ours and nobody else uses it."""
        for entry in self.path.iterdir():
            if entry.name in _FRESH_KEEPS:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def check_version(self, wanted: int) -> bool:
        """Whether there is a cluster, and that it is one of this major version."""
        try:
            found = (self.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            if self.cluster.exists():
                raise EmbeddedError(
                    f"{self.cluster} exists but is no PostgreSQL data folder (it has no PG_VERSION): "
                    "move it away, or start with `noria dev --fresh`"
                ) from None
            return False
        if found != str(wanted):
            raise EmbeddedError(
                f"the data folder {self.cluster} was made by PostgreSQL {found}; this Noria runs PostgreSQL "
                f"{wanted}, which does not read it. To keep the data, export it with pg_dump of PostgreSQL "
                f"{found} and load it into a new folder (NORIA_DATA_DIR). To start empty: `noria dev --fresh`"
            )
        return True

    def socket_dir(self, identity: Identity) -> Path:
        """A directory that only the server's identity (and root) can enter, with a path short enough."""
        folder = self.path / "run"
        path = str(folder / SOCKET_NAME)
        if len(os.fsencode(path)) > _SOCKET_PATH_MAX or not _PLAIN_PATH.fullmatch(path):
            digest = hashlib.blake2b(os.fsencode(self.path.resolve()), digest_size=6).hexdigest()
            folder = Path(_short_temporary_dir(), f"noria-{identity.owner}-{digest}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            identity.adopt(folder)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != identity.owner or found.st_mode & 0o077:
            raise EmbeddedError(
                f"{folder} must be a directory of user {identity.owner} that nobody else can enter: remove it"
            )
        return folder

    def _create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        marker = self.path / MARKER
        if marker.exists():
            return
        others = [p.name for p in self.path.iterdir() if p.name not in {"lock", ".gitignore"}]
        if others:
            raise EmbeddedError(
                f"{self.path} is not empty and not a Noria data folder (it has {others[0]}, no {MARKER}): "
                "choose another with NORIA_DATA_DIR"
            )
        (self.path / ".gitignore").write_text("*\n", encoding="ascii")
        marker.write_text(_MARKER_TEXT, encoding="ascii")


def sync_tree(root: Path) -> None:
    """Make all files below `root` survive a crash of the machine.

    As initdb does it one by one, a thousand small files take half a second, several where the disk is busy;
    asked for together, they share the disk's work.
    """
    paths = [Path(folder, name) for folder, _, names in os.walk(root) for name in ("", *names)]
    with ThreadPoolExecutor(_SYNC_THREADS) as threads:
        for _ in threads.map(sync, paths):
            pass  # an error comes out here


def sync(path: Path) -> None:
    """Make one file, or the names in one folder, survive a crash of the machine."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _short_temporary_dir() -> str:
    usual = tempfile.gettempdir()
    room = _SOCKET_PATH_MAX - len("/noria-4294967295-000000000000/") - len(SOCKET_NAME)
    return usual if len(os.fsencode(usual)) <= room and _PLAIN_PATH.fullmatch(usual) else "/tmp"  # noqa: S108 - private directory inside, checked
