"""What PostgreSQL would refuse, so that a test on memory meets the same refusals.

Text holds no NUL and no lone surrogate, JSON also none in escaped form, an instant has a year of four digits,
a slot is one of 4096, a key fits a page of its index.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from runtime.core.slots import SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.core.task import ErrorInfo, Finish, NewTask, Progress, Requeue

INDEXED_BYTES_MAX: Final = 2692  # a third of a page of 8 kB less its overhead; what a B-tree holds at most
INT4_MAX: Final = 2**31 - 1


def wrong_with_task(new: NewTask) -> str | None:
    """Why this row cannot be stored, or None."""
    if not 0 <= new.slot < SLOTS:
        return f"slot {new.slot} is not within 0…{SLOTS - 1}"
    if not 0 <= new.max_attempts <= INT4_MAX:
        return f"max_attempts {new.max_attempts} is not within 0…{INT4_MAX}"
    for name, text in _texts(new):
        detail = wrong_with_text(text)
        if detail is not None:
            return f"{name} {detail}"
    if (
        new.idempotency_key is not None
        and len(f"{new.tenant}{new.idempotency_key}".encode()) > INDEXED_BYTES_MAX
    ):
        return f"tenant and idempotency_key together exceed {INDEXED_BYTES_MAX} bytes"
    return _wrong_with_json(new.metadata)


def wrong_with_move(move: Finish | Requeue) -> str | None:
    """Why this settlement cannot be written, its children apart, or None."""
    return None if move.error is None else _wrong_with_error(move.error)


def wrong_with_progress(progress: Progress) -> str | None:
    return wrong_with_text(progress.message)


def wrong_with_text(text: str) -> str | None:
    if "\0" in text:
        return "contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate"
    return None


def later(instant: datetime, seconds: float) -> datetime | None:
    """`instant` + `seconds`, or None where no such instant can be written down."""
    try:
        return instant + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None


def _texts(new: NewTask) -> Iterator[tuple[str, str]]:
    yield "tenant", new.tenant
    yield "created_by", new.created_by
    for tag in new.prefers:
        yield "prefers", tag
    for name in ("idempotency_key", "actor_type", "actor_key", "trace_context", "payload_key", "payload_ref"):
        text = getattr(new, name)
        if text is not None:
            yield name, text


def _wrong_with_error(error: ErrorInfo) -> str | None:
    for name, text in (("type", error.type), ("message", error.message), ("traceback", error.traceback)):
        detail = wrong_with_text(text)
        if detail is not None:
            return f"error {name} {detail}"
    return None


def _wrong_with_json(document: bytes | None) -> str | None:
    if document is None:
        return None
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError as malformed:
        return f"metadata is no JSON: {malformed}"
    if not isinstance(value, dict):
        return "metadata is no JSON object"
    return "metadata contains a NUL character" if _has_nul(value) else None


def _has_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case list():
            return any(_has_nul(item) for item in value)
        case dict():
            return any("\0" in key or _has_nul(item) for key, item in value.items())
        case _:
            return False
