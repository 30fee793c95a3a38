"""How a node and the child processes of its `cpu=True` handlers talk: length-prefixed msgpack maps over pipes.

No pickle: what crosses is bytes, text and numbers. Frames are bounded.
"""

from __future__ import annotations

import struct
from dataclasses import astuple
from typing import Any, BinaryIO, Final
from uuid import UUID

import msgpack

from runtime.core.task import Codec, ErrorInfo, State
from runtime.core.workflow import ParentView

_LENGTH: Final = struct.Struct(">I")
FRAME_BYTES_MAX: Final = 4 << 20
LENGTH_BYTES: Final = _LENGTH.size


def pack(frame: dict[str, Any]) -> bytes:
    """Raises ValueError when the frame is larger than FRAME_BYTES_MAX."""
    body: bytes = msgpack.packb(frame)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {len(body)} bytes; at most {FRAME_BYTES_MAX} are allowed")
    return _LENGTH.pack(len(body)) + body


def length(header: bytes) -> int:
    """Raises ValueError when it is out of bounds."""
    (size,) = _LENGTH.unpack(header)
    if size > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {size} bytes is announced; at most {FRAME_BYTES_MAX} are allowed")
    return int(size)


def unpack(body: bytes) -> dict[str, Any]:
    frame: dict[str, Any] = msgpack.unpackb(body)
    return frame


def read(stream: BinaryIO) -> dict[str, Any] | None:
    """The next frame, or None at the end of the stream."""
    header = stream.read(LENGTH_BYTES)
    if len(header) < LENGTH_BYTES:
        return None
    size = length(header)
    body = stream.read(size)
    return unpack(body) if len(body) == size else None


def of_parent(view: ParentView) -> list[Any]:
    error = None if view.error is None else list(astuple(view.error))
    state = None if view.state is None else view.state.value
    result = None if view.codec.is_apart else view.result
    return [view.id.bytes, view.name, view.handler, state, result, view.result_bytes, int(view.codec), error]


def parent_of(row: list[Any]) -> ParentView:
    task_id, name, handler, state, result, size, codec, error = row
    return ParentView(
        UUID(bytes=task_id),
        name,
        handler,
        None if state is None else State(state),
        result,
        size,
        Codec(codec),
        None if error is None else ErrorInfo(*error),
    )
