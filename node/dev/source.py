"""The files that handlers came from, and when they change.

Only folders that hold loaded files are watched, not what lies below them: a project's root with its .venv
costs nothing. Events only wake us; what decides is the difference between two looks at the files, so a
change during a check, a lost event or an editor that saves by renaming makes no difference.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

from node.dev.importing import OWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

Stamp = tuple[int, int]
Look = dict[str, Stamp]

_LOOK_MS: Final = 1_000
_SETTLE_MS: Final = 50
_CLOCK_NS: Final = 10_000_000  # file systems take the time of the last tick


def look(files: Iterable[str]) -> Look:
    """Modification time (ns) and size of each file that is there."""
    found: Look = {}
    for file in files:
        try:
            status = Path(file).stat()
        except OSError:
            continue
        found[file] = (status.st_mtime_ns, status.st_size)
    return found


def look_around(files: Iterable[str]) -> Look:
    """As `look`, and with every Python file beside them: a new one may be the one that was missing."""
    return look({str(p) for folder in _folders(files) for p in folder.glob("*.py")} | set(files))


def contents(files: Iterable[str]) -> dict[str, bytes]:
    """A digest of each file that is there: whether a node would load something else than before."""
    found: dict[str, bytes] = {}
    for file in files:
        with suppress(OSError):
            found[file] = hashlib.sha256(Path(file).read_bytes()).digest()
    return found


def as_of(found: Look, then_ns: int) -> Look:
    """`found` without what was written after `then_ns` (wall clock): it will differ from a later look.

    A time in the future, from a clock that runs ahead, says nothing: such files stay.
    """
    now_ns = time.time_ns()
    return {file: stamp for file, stamp in found.items() if not then_ns - _CLOCK_NS <= stamp[0] <= now_ns}


def own_files() -> tuple[str, ...]:
    """Every file of Noria's own packages that is source: none where they are installed, as nobody edits those."""
    return tuple(sorted(file for folder in _own_folders() for file in _below(folder)))


def _own_folders() -> Iterator[str]:
    library = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    for name in sorted(OWN):
        spec = importlib.util.find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or ():
            if not any(Path(folder).resolve().is_relative_to(path) for path in library):
                yield folder


def _below(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (f"{here}{os.sep}{name}" for name in files)


async def wakes(files: Iterable[str]) -> AsyncIterator[None]:
    """Yields soon after something has happened beside the files, and once a second in any case."""
    async for _ in awatch(
        *_folders(files),
        recursive=False,
        step=_SETTLE_MS,
        debounce=10 * _SETTLE_MS,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
    ):
        yield None


def _folders(files: Iterable[str]) -> set[Path]:
    return {folder for file in files if (folder := Path(file).parent).is_dir()}
