"""Objects as files of one folder, which all nodes that share a record must see: one machine, or a shared volume.

An object is written beside its place, flushed, and renamed, so it is there whole or not at all; its SHA-256 in the
outcome is the checksum. All file work is done in threads.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Final

from runtime.errors import ObjectNotFound, SettingsError, Unavailable
from runtime.ports import ObjectEntry

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from typing import BinaryIO, TypeVar

    T = TypeVar("T")

_PIECE_BYTES: Final = 1 << 20
_UNFINISHED: Final = ".unfinished"  # a folder beside the objects; no key begins with a dot


class FolderObjects:
    """Implements runtime.ports.Objects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder / _UNFINISHED

    def check(self) -> None:
        """Makes the folder. Raises SettingsError where it cannot be written. Blocks."""
        try:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self._unfinished):
                pass
        except OSError as refused:
            raise SettingsError(
                f"RESULTS_URL: {self._folder} cannot be written ({refused.strerror})"
            ) from refused

    async def put(self, key: str, body: bytes) -> None:
        await _in_thread(lambda: self._put(self._folder / key, body))

    def _put(self, path: Path, body: bytes) -> None:
        self._unfinished.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self._unfinished, delete=False) as file:
            try:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
                path.parent.mkdir(exist_ok=True)
                Path(file.name).rename(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        _flush_folder(path.parent)
        _flush_folder(self._folder)

    @asynccontextmanager
    async def read(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        file = await _in_thread(lambda: _open(self._folder / key, start))
        try:
            yield _pieces(file, None if end is None else end - start)
        finally:
            await asyncio.to_thread(file.close)

    async def delete(self, keys: Sequence[str]) -> None:
        await _in_thread(lambda: self._delete(keys))

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            (self._folder / key).unlink(missing_ok=True)
        for parent in {(self._folder / key).parent for key in keys}:
            with suppress(OSError):  # not empty, or gone, or somebody writes into it now
                parent.rmdir()

    async def list(self, after: str, limit: int) -> builtins.list[ObjectEntry]:
        return await _in_thread(lambda: self._list(after, limit))

    def _list(self, after: str, limit: int) -> builtins.list[ObjectEntry]:
        found: list[ObjectEntry] = []
        now_s = time.time()
        for key in self._keys(after):
            if len(found) >= limit:
                break
            with suppress(FileNotFoundError):  # deleted meanwhile
                stat = (self._folder / key).stat()
                found.append(ObjectEntry(key, stat.st_size, max(0.0, now_s - stat.st_mtime)))
        return found

    def _keys(self, after: str) -> Iterator[str]:
        group_after = after.partition("/")[0]
        for group in sorted(
            name
            for name in os.listdir(self._folder)  # noqa: PTH208 - names alone
            if name >= group_after and name[0] != "."
        ):
            names: builtins.list[str] = []
            with suppress(FileNotFoundError, NotADirectoryError):
                names = os.listdir(self._folder / group)  # noqa: PTH208 - names alone
            yield from sorted(key for name in names if (key := f"{group}/{name}") > after)

    async def tidy(self, older_than_s: float) -> int:
        return await _in_thread(lambda: self._tidy(older_than_s))

    def _tidy(self, older_than_s: float) -> int:
        before_s = time.time() - older_than_s
        gone = 0
        for path in self._unfinished.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= before_s:
                    path.unlink()
                    gone += 1
        return gone


async def _in_thread(work: Callable[[], T]) -> T:
    """Raises Unavailable for what the file system refuses: a full disk, a volume that is away."""
    try:
        return await asyncio.to_thread(work)
    except OSError as refused:
        raise Unavailable(f"the folder of results: {refused.strerror or refused}") from refused


def _open(path: Path, start: int) -> BinaryIO:
    try:
        file = path.open("rb")
    except FileNotFoundError as missing:
        raise ObjectNotFound(path.name) from missing
    file.seek(start)
    return file


async def _pieces(file: BinaryIO, left: int | None) -> AsyncIterator[bytes]:
    while left is None or left > 0:
        wanted = _PIECE_BYTES if left is None else min(left, _PIECE_BYTES)
        piece = await _in_thread(lambda size=wanted: file.read(size))  # type: ignore[misc]
        if not piece:
            return
        yield piece
        if left is not None:
            left -= len(piece)


def _flush_folder(folder: Path) -> None:
    """So that the name survives a crash of the machine too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
