"""JSON as it is kept: read without loss, one canonical form, one digest of a request.

Law: what cannot be kept exactly is refused with its place, never rounded or replaced. orjson alone would
turn an integer beyond 64 bits into a float, write NaN as null, and refuse a lone surrogate without its place;
so `read_json` takes the exact way wherever the bytes hold a hint of one of these, and costs nothing else.
Places are JSON pointers (RFC 6901) in their URI fragment form: "#/payload/width".
"""

from __future__ import annotations

import json
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
FAULTS_MAX: Final = 100  # reported at once
NESTING_MAX: Final = 254  # what orjson writes; it reads 1,024

Fault = tuple[str, str]  # (pointer, detail)

_write_canonical: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode
_FRAGMENT_SAFE: Final = "~!$&'()*+,;=:@?"  # RFC 3986, beside letters, digits and -._
_NOT_IN_DIGEST: Final = frozenset({"idempotency_key", "metadata"})
_DIGITS_AS_ZERO: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19  # int64 has 19 digits, so whatever is beyond has 19 or more
_INT_DIGITS_MAX: Final = 309  # more are beyond every double, and int() refuses some thousands


def canonical(value: object) -> bytes:
    """JSON in UTF-8 without spaces, keys sorted by code point; 1 and 1.0 stay apart.

    Written by the standard library, because digests are stored and compared for days: the text of a float is
    `repr`, which never changes, while orjson changed it between releases (1e16, 1e+16).
    Raises TypeError for what JSON cannot hold, ValueError for NaN, infinities and lone surrogates.
    """
    return _write_canonical(value).encode()


def digest(request: Mapping[str, object]) -> bytes:
    """SHA-256 (32 bytes) of a request as sent: without key and metadata, defaults not filled in."""
    return sha256(canonical({k: v for k, v in request.items() if k not in _NOT_IN_DIGEST})).digest()


def read_json(body: bytes, pointer: str = "#") -> Any:
    """The value of a JSON text, exactly.

    Raises ValueError when it is not JSON; InvalidInput (with pointers below `pointer`) when it is, but holds
    numbers outside int64 or finite doubles, NUL characters or lone surrogates, or is nested too deeply to be
    written again.
    """
    try:
        value = orjson.loads(body)
        suspicious = b"\\u0000" in body or _LONG_NUMBER in body.translate(_DIGITS_AS_ZERO)
    except orjson.JSONDecodeError:
        suspicious = True
    if suspicious:
        value = _read_exactly(body, pointer)
        faults = [*check_numbers(value, pointer), *find_nul(value, pointer)][:FAULTS_MAX]
        if faults:
            raise InvalidInput("the JSON holds values that cannot be kept exactly", tuple(faults))
    if body.count(b"[") + body.count(b"{") > NESTING_MAX:
        try:
            orjson.dumps(value)
        except TypeError:
            raise _too_deep(pointer) from None
    return value


def check_numbers(value: object, pointer: str = "#") -> list[Fault]:
    """Integers outside int64 and floats that are not finite, anywhere in a JSON value; the first 100."""
    return _faults(value, pointer, _number_fault)


def find_nul(value: object, pointer: str = "#") -> list[Fault]:
    """NUL characters and lone surrogates in texts and keys, which PostgreSQL cannot store; the first 100."""
    return _faults(value, pointer, _text_fault)


def pointer_to(parent: str, token: str | int) -> str:
    """The pointer of a member of `parent`: "~" and "/" escaped, then percent-encoded for a fragment."""
    escaped = str(token).replace("~", "~0").replace("/", "~1")
    return f"{parent}/{quote(escaped, safe=_FRAGMENT_SAFE, errors='surrogatepass')}"


# -- the exact way ----------------------------------------------------------------------------------


def _read_exactly(body: bytes, pointer: str) -> Any:
    """With large integers, NaN and lone surrogates as they are, so that they can be pointed at."""
    try:
        return json.loads(body.decode(), parse_int=_read_int)
    except RecursionError:
        raise _too_deep(pointer) from None


def _too_deep(pointer: str) -> InvalidInput:
    detail = f"nested deeper than {NESTING_MAX} levels"
    return InvalidInput(detail, ((pointer, detail),))


def _read_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS_MAX else float(digits)


# -- looking for faults -----------------------------------------------------------------------------

# The way to a value, innermost token first; made into a pointer only where there is something to report.
_Path = tuple["_Path", str | int] | tuple[()]


def _faults(value: object, pointer: str, fault_of: Callable[[object], str | None]) -> list[Fault]:
    found: list[Fault] = []
    for path, leaf in _leaves(value):
        detail = fault_of(leaf)
        if detail is not None:
            found.append((_pointer(path, pointer), detail))
            if len(found) == FAULTS_MAX:
                break
    return found


def _leaves(value: object) -> Iterator[tuple[_Path, object]]:
    """Keys, and values that hold no others, in order. Not recursive: senders choose the depth."""
    waiting: list[Iterator[tuple[_Path, object]]] = [iter([((), value)])]
    while waiting:
        for path, item in waiting[-1]:
            if isinstance(item, dict | list | tuple):
                waiting.append(_members(path, item))
                break
            yield path, item
        else:
            waiting.pop()


def _members(path: _Path, container: dict[Any, Any] | Sequence[Any]) -> Iterator[tuple[_Path, object]]:
    if isinstance(container, dict):
        for key, member in container.items():
            yield (path, key), key
            yield (path, key), member
    else:
        for index, member in enumerate(container):
            yield (path, index), member


def _pointer(path: _Path, root: str) -> str:
    tokens = []
    while path:
        path, token = path
        tokens.append(token)
    for token in reversed(tokens):
        root = pointer_to(root, token)
    return root


def _number_fault(leaf: object) -> str | None:
    if isinstance(leaf, int):
        inside = _INT64_MIN <= leaf <= _INT64_MAX
        return None if inside else f"{_shown(leaf)} is outside int64 ({_INT64_MIN}…{_INT64_MAX})"
    if isinstance(leaf, float):
        return None if isfinite(leaf) else "not a finite number (NaN, or beyond ±1.8e308)"
    return None


def _shown(number: int) -> str:
    bits = number.bit_length()
    return str(number) if bits <= 128 else f"an integer of {bits} bits"


def _text_fault(leaf: object) -> str | None:
    if not isinstance(leaf, str) or (leaf.isascii() and "\0" not in leaf):
        return None
    if "\0" in leaf:
        return "a NUL character is not allowed in text"
    try:
        leaf.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (U+{ord(leaf[error.start]):04X}) is not allowed in text"
    return None
