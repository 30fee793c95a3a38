"""Where a large result lies: what its outcome holds instead of it, and the key of the object.

A key begins with the time at which the task was made (its id does), so keys ascend by age: whoever looks for old
objects walks them in order. It names the attempt, so what a fenced attempt left behind can be told from what is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson

_GROUP_CHARS: Final = 6  # of the id: objects of 4.7 hours lie in one folder
_KEY: Final = re.compile(r"(?P<group>[0-9a-f]{6})/(?P<id>[0-9a-f-]{36})\.(?P<attempt>\d{1,10})")


@dataclass(frozen=True, slots=True)
class Reference:
    """`size` in bytes; `sha256` of the whole in hexadecimal."""

    key: str
    size: int
    sha256: str

    def to_bytes(self) -> bytes:
        """As an outcome holds it, under a codec that says so (Codec.is_apart)."""
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, stored: bytes) -> Reference:
        return cls(**orjson.loads(stored))


def key_of(task_id: UUID, attempt: int) -> str:
    return f"{task_id.hex[:_GROUP_CHARS]}/{task_id}.{attempt}"


def attempt_of(key: str) -> tuple[UUID, int] | None:
    """(task id, attempt) that a key belongs to; None for one that is not ours."""
    found = _KEY.fullmatch(key)
    if found is None or len(found["id"].replace("-", "")) != 32:
        return None
    owner = UUID(found["id"]), int(found["attempt"])
    return owner if key_of(*owner) == key else None
