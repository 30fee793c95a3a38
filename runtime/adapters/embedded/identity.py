"""As whom PostgreSQL runs. It refuses root; everybody else runs it as themselves.

Started by root, no user is created: the server takes the identity of the data folder's owner, else of the
owner of the folder around it, else `nobody`. Where that user cannot walk to the data or to the binaries
(/root is closed to others), the server keeps one capability to pass closed folders, and only that.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import EmbeddedError

# Linux capability numbers; reading and searching is enough, because all it writes is its own.
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """uid and gid to change to (None: stay who we are) and a capability to keep while doing so."""

    uid: int | None = None
    gid: int | None = None
    capability: int | None = None

    @property
    def owner(self) -> int:
        return os.geteuid() if self.uid is None else self.uid

    def adopt(self, path: Path) -> None:
        """Make the server's identity the owner of this one file or folder."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def adopt_tree(self, root: Path) -> None:
        for folder, _, files in os.walk(root):
            self.adopt(Path(folder))
            for name in files:
                self.adopt(Path(folder, name))


def choose_identity(cluster: Path, bin_dir: Path) -> Identity:
    """The identity for a server on `cluster` (which need not exist yet). Raises EmbeddedError."""
    if os.geteuid() != 0:
        if cluster.exists() and (owner := cluster.stat().st_uid) != os.geteuid():
            raise EmbeddedError(
                f"the data folder {cluster} belongs to user {_name(owner)}, this process runs as "
                f"{_name(os.geteuid())}: run it as that user, or choose another folder with NORIA_DATA_DIR"
            )
        return Identity()
    entry = _unprivileged(cluster)
    closed = [p for p in (cluster.parent, bin_dir) if not _reachable(p, entry.pw_uid, entry.pw_gid)]
    return Identity(entry.pw_uid, entry.pw_gid, _pass_closed_folders(closed, entry) if closed else None)


def _unprivileged(cluster: Path) -> pwd.struct_passwd:
    around = next(p for p in cluster.parents if p.exists())
    for path in (cluster, around, *around.parents[:1]):
        if path.exists() and (uid := path.stat().st_uid) != 0:
            try:  # initdb insists on a name for its user
                return pwd.getpwuid(uid)
            except KeyError:
                continue
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and there is no user `nobody` to run it as: be another user"
        ) from None


def _reachable(path: Path, uid: int, gid: int) -> bool:
    """Whether this user may walk down to `path`, by mode bits (where ACLs say more, PostgreSQL will tell)."""
    real = path.resolve()
    for folder in (real, *real.parents):
        if not folder.exists():
            continue
        found = folder.stat()
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & bit:
            return False
    return True


def _pass_closed_folders(closed: list[Path], entry: pwd.struct_passwd) -> int:
    ours = _permitted_capabilities()
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if ours >> capability & 1:
            return capability
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and user {entry.pw_name} cannot enter {closed[0]}: "
        f"start as another user, or move it to a folder open to {entry.pw_name}"
    )


def _permitted_capabilities() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
