"""Routing keys and slots: where a task belongs, the same in Python and in SQL.

Law: the hash is two bytes of SHA-256, because every PostgreSQL and every Python has it and it is the same in
all processes (never `hash()`). A slot is a routing and accounting unit, not a lock. The number of slots never
changes: rows carry them. In SQL, with `d` = `sha256(convert_to(routing_key, 'UTF8'))`:

    (get_byte(d, 0) << 8 | get_byte(d, 1)) & 4095
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from uuid import UUID

SLOTS: Final = 4096  # a power of two; about 10 times the largest cluster thought of, and small enough to diff


def routing_key(task_id: UUID, idempotency_key: str | None = None, actor_key: str | None = None) -> str:
    """What decides the slot: the actor key, else the idempotency key, else the task id."""
    if actor_key is not None:
        return actor_key
    if idempotency_key is not None:
        return idempotency_key
    return orjson.dumps(task_id)[1:-1].decode()  # as str() writes it, in a third of the time


def slot_of(routing_key: str) -> int:
    """Slot 0…4095 of a routing key. Raises UnicodeEncodeError on a lone surrogate (refused at the door)."""
    digest = sha256(routing_key.encode()).digest()
    return (digest[0] << 8 | digest[1]) & (SLOTS - 1)
