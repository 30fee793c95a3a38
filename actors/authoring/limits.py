"""What a task may carry: the limits of the contract, and words for what is beyond them.

Each check returns what is wrong as text ("300 characters; 1 to 255 are allowed"), or None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final, TypeGuard
from uuid import UUID

from runtime.core.versions import OWN_TAGS

PAYLOAD_BYTES_MAX: Final = 1 << 20
METADATA_BYTES_MAX: Final = 4096
RESULT_BYTES_MAX: Final = 256 * 1024  # in the record; where there is a store for larger ones, they lie there
KEY_CHARS_MAX: Final = 255
KEY_BYTES_MAX: Final = 512
NAME_CHARS_MAX: Final = 255
TAGS_MAX: Final = 16
CHILDREN_MAX: Final = 10_000  # of one attempt, and of one batch
ATTEMPTS_MAX: Final = 1000
TIMEOUT_S_MAX: Final = 7 * 86_400.0
DELAY_S_MAX: Final = 366 * 86_400.0
PARENTS_MAX: Final = 10_000

_NAME: Final = re.compile(r"[a-z][a-z0-9_.]*")


def name_fault(name: str) -> str | None:
    """Of a handler's name."""
    if not _NAME.fullmatch(name):
        return "allowed are lower-case letters, digits, '_' and '.', with a letter first"
    if len(name) > NAME_CHARS_MAX:
        return f"{len(name)} characters; at most {NAME_CHARS_MAX} are allowed"
    return None


def key_fault(key: object) -> str | None:
    """Of an idempotency key, an actor key or a tag."""
    if not isinstance(key, str):
        return f"{key!r} is not text"
    if not 1 <= len(key) <= KEY_CHARS_MAX:
        return f"{len(key)} characters; 1 to {KEY_CHARS_MAX} are allowed"
    if "\0" in key:
        return "contains a NUL character, which PostgreSQL cannot store in text"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "contains a lone surrogate, which is not text"
    return None if size <= KEY_BYTES_MAX else f"{size} bytes as UTF-8; at most {KEY_BYTES_MAX} are allowed"


def tags_fault(tags: object) -> str | None:
    """Of `requires` or `prefers`."""
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        return f"{tags!r} is not a list of tags"
    if len(tags) > TAGS_MAX:
        return f"{len(tags)} tags; at most {TAGS_MAX} are allowed"
    return next((f"tag {tag!r}: {fault}" for tag in tags if (fault := _tag_fault(tag))), None)


def _tag_fault(tag: object) -> str | None:
    if isinstance(tag, str) and tag.startswith(OWN_TAGS):
        return f"tags that begin with {OWN_TAGS} are Noria's own"
    return key_fault(tag)


def parents_fault(ids: object) -> str | None:
    """Of `depends_on`: ids of tasks, as UUIDs or texts."""
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        return f"{ids!r} is not a list of ids of tasks"
    if len(ids) > PARENTS_MAX:
        return f"{len(ids)} ids; at most {PARENTS_MAX} are allowed"
    met: set[UUID] = set()
    for each in ids:
        try:
            parent = each if isinstance(each, UUID) else UUID(each)
        except (ValueError, AttributeError, TypeError):
            return f"{each!r} is not the id of a task"
        if parent in met:
            return f"{parent} is named twice"
        met.add(parent)
    return None


def attempts_fault(value: object) -> str | None:
    ok = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= ATTEMPTS_MAX
    return None if ok else f"{value!r} is not a whole number within 1…{ATTEMPTS_MAX}"


def count_fault(value: object, most: int) -> str | None:
    """Of a whole number that may be left out."""
    ok = value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most)
    return None if ok else f"{value!r} is not a whole number within 1…{most}"


def timeout_fault(value: object) -> str | None:
    ok = _number(value) and 0 < value <= TIMEOUT_S_MAX
    return None if ok else f"{value!r} is not a number of seconds above 0 and at most {TIMEOUT_S_MAX:.0f}"


def delay_fault(value: object) -> str | None:
    ok = _number(value) and 0 <= value <= DELAY_S_MAX
    return None if ok else f"{value!r} is not a number of seconds within 0…{DELAY_S_MAX:.0f}"


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
