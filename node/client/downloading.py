"""Results, however large: in pieces, on from where a connection broke, and checked by their SHA-256 at the end."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from node.client.errors import Overloaded, ServerFault, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import BinaryIO

    from node.client.transport import Head, Transport

_WRITE_BYTES: Final = 1 << 20  # to a file at a time: each costs a turn of a thread


@dataclass(frozen=True, slots=True)
class Downloaded:
    """`size` in bytes; `sha256` in hexadecimal, of what arrived."""

    size: int
    content_type: str
    sha256: str


@dataclass(slots=True)
class _State:
    """What has arrived so far, and of what."""

    digest: Any
    size: int = 0
    head: Head | None = None

    def headers(self) -> dict[str, str]:
        if not self.size or self.head is None or not self.head.etag:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.head.etag}


async def download(
    transport: Transport, path: str, write: Callable[[int, bytes], Awaitable[None]]
) -> Downloaded:
    """`write` gets pieces with their offset; from 0 again where the node cannot go on from the middle.

    Raises as Transport.call, and ServerFault where what arrived has another checksum than what was stored.
    """
    state = _State(hashlib.sha256())
    started_s, tries = time.monotonic(), 0
    while True:
        tries += 1
        before = state.size
        try:
            await _read(transport, path, state, write)
            break
        except (Unreachable, Overloaded) as exc:
            if state.size > before:  # it goes on: as long as it does, it is not given up
                started_s, tries = time.monotonic(), 1
            advice_s = exc.retry_after_s if isinstance(exc, Overloaded) else None
            pause_s = transport.policy.pause_s(
                tries,
                time.monotonic() - started_s,
                random.random(),  # noqa: S311 - jitter
                advice_s,
            )
            if pause_s is None or not transport.worth_repeating(exc):
                raise
        await asyncio.sleep(pause_s)
    assert state.head is not None, "read to its end"
    found = str(state.digest.hexdigest())
    if state.head.sha256 and state.head.sha256 != found:
        raise ServerFault(f"the result arrived with another checksum: {found}, not {state.head.sha256}")
    return Downloaded(state.size, state.head.content_type, found)


async def _read(
    transport: Transport, path: str, state: _State, write: Callable[[int, bytes], Awaitable[None]]
) -> None:
    async with aclosing(transport.pieces(path, state.headers())) as pieces:
        async for head, piece in pieces:
            if head is not state.head:
                if head.status != 206:
                    state.size, state.digest = 0, hashlib.sha256()
                state.head = head
            await write(state.size, piece)
            state.digest.update(piece)
            state.size += len(piece)


async def to_file(transport: Transport, path: str, target: Path) -> Downloaded:
    """`target` is there whole or not at all. Raises OSError too."""
    unfinished = target.with_name(f".{target.name}.part")
    file = await asyncio.to_thread(unfinished.open, "wb")
    try:
        got = await _into(transport, path, file)
        await asyncio.to_thread(file.close)
        await asyncio.to_thread(unfinished.rename, target)
    except BaseException:
        await asyncio.to_thread(_discard, file, unfinished)
        raise
    return got


def _discard(file: BinaryIO, path: Path) -> None:
    file.close()
    path.unlink(missing_ok=True)


async def _into(transport: Transport, path: str, file: BinaryIO) -> Downloaded:
    waiting = bytearray()

    def flush() -> None:
        file.write(waiting)
        waiting.clear()

    def restart() -> None:
        waiting.clear()
        file.seek(0)
        file.truncate()

    async def write(offset: int, piece: bytes) -> None:
        if not offset:
            await asyncio.to_thread(restart)
        waiting.extend(piece)
        if len(waiting) >= _WRITE_BYTES:
            await asyncio.to_thread(flush)

    got = await download(transport, path, write)
    await asyncio.to_thread(flush)
    return got


async def to_memory(transport: Transport, path: str) -> tuple[bytes, Downloaded]:
    body = bytearray()

    async def write(offset: int, piece: bytes) -> None:
        del body[offset:]
        body.extend(piece)

    got = await download(transport, path, write)
    return bytes(body), got
