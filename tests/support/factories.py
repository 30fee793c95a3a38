"""Small builders of the records that tests send to a store; each has valid defaults for the rest."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from runtime.core.ids import ENTROPY_BYTES, IdSequence
from runtime.core.slots import routing_key, slot_of
from runtime.core.task import (
    AttemptKind,
    Band,
    BandKey,
    Claim,
    ErrorInfo,
    Finish,
    HandlerEntry,
    Lane,
    NewTask,
    Orphan,
    Reason,
    Requeue,
    Settlement,
    Status,
)

if TYPE_CHECKING:
    from uuid import UUID

LONG_S: Final = 86_400.0  # a lease or a delay that no test outlives

_IDS: Final = IdSequence()


def new_id(age_s: float = 0.0) -> UUID:
    """A fresh id, above all before it; or one that was made `age_s` ago, which stands apart from them."""
    now_ms = time.time_ns() // 1_000_000
    if age_s:
        return IdSequence().take(now_ms - round(age_s * 1000), os.urandom(ENTROPY_BYTES))[0]
    return _IDS.take(now_ms, os.urandom(ENTROPY_BYTES))[0]


def digest(request: str) -> bytes:
    """The digest of a request that is told apart by this text."""
    return sha256(request.encode()).digest()


def new_task(band: Band | int = 1, *, key: str | None = None, request: str = "a", **fields: Any) -> NewTask:
    """A task of `band`; `key` is its idempotency key and `request` what its digest is made of."""
    fields.setdefault("id", new_id())
    if key is not None:
        fields |= {"idempotency_key": key, "digest": fields.get("digest") or digest(request)}
    if "slot" not in fields:
        fields["slot"] = slot_of(routing_key(fields["id"], key, fields.get("actor_key")))
    defaults: dict[str, Any] = {"payload": b'{"n": 1}', "max_attempts": 3, "timeout_s": 300.0}
    return NewTask(band=band if isinstance(band, int) else band.id, **(defaults | fields))


def band_key(handler: str = "echo", lane: Lane = Lane.MEDIUM, **fields: Any) -> BandKey:
    return BandKey(handler, lane, **fields)


def handler_entry(name: str = "echo", digest: str = "d1", **fields: Any) -> HandlerEntry:
    defaults: dict[str, Any] = {"schema": {"type": "object"}, "defaults": {"max_attempts": 3}}
    return HandlerEntry(name=name, digest=digest, **(defaults | fields))


def error(message: str = "boom", **fields: Any) -> ErrorInfo:
    return ErrorInfo(**({"type": "ValueError", "message": message, "traceback": "line 1\nline 2"} | fields))


def succeeded(result: bytes = b"42", **fields: Any) -> Finish:
    return Finish(status=Status.SUCCEEDED, result=result, **fields)


def failed(failures: int = 1, **fields: Any) -> Finish:
    return Finish(status=Status.FAILED, failures=failures, **({"error": error()} | fields))


def cancelled(**fields: Any) -> Finish:
    return Finish(status=Status.CANCELLED, **fields)


def requeue(kind: AttemptKind = AttemptKind.FAILED, **fields: Any) -> Requeue:
    """Back to waiting, due at once. A failure counts one failure, a crash one crash unless told otherwise."""
    reasons = {
        AttemptKind.SNOOZED: Reason.SNOOZED,
        AttemptKind.RELEASED: Reason.RELEASED,
        AttemptKind.CRASHED: Reason.CRASHED,
    }
    burns = kind in {AttemptKind.FAILED, AttemptKind.TIMED_OUT}
    defaults: dict[str, Any] = {
        "delay_s": 0.0,
        "reason": reasons.get(kind, Reason.RETRY_BACKOFF),
        "failures": int(burns),
        "crashes": int(kind is AttemptKind.CRASHED),
        "error": error() if burns else None,
    }
    return Requeue(kind=kind, **(defaults | fields))


def settlement(held: Claim | Orphan, incarnation: int, move: Finish | Requeue) -> Settlement:
    """The end of an attempt that `incarnation` runs (or ran)."""
    return Settlement(held.id, held.attempt, incarnation, move)
