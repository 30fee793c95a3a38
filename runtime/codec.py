"""The only encode and decode of what travels between nodes: msgpack, by the rules in `core.messages`.

Law: an Offer is `[version, view, incarnation, [[id, attempt], …], kind]`, later fields behind; everything else is a
map that begins with version and tag. Tags are part of the wire and do not follow class names. Foreign bytes
cost bounded time and memory, and end as UndecodableMessage: never as another exception, never as half a
message.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgpack

from runtime.core.messages import (
    ITEMS_MAX,
    Canary,
    CancelRequested,
    Credit,
    Finished,
    Heartbeat,
    Message,
    Offer,
    Waiting,
    Watch,
)
from runtime.errors import UndecodableMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VERSION: Final = 1
MESSAGE_BYTES_MAX: Final = 256 * 1024  # the largest of ours, ITEMS_MAX offers, has about 86 kB

_TEXT_MAX: Final = 256
_INT_MAX: Final = 2**63 - 1
# Generous beside what our messages need: later releases may add fields, which are to be skipped, not refused.
_LIMITS: Final[Mapping[str, int]] = {
    "max_str_len": 65_536,
    "max_bin_len": 65_536,
    "max_array_len": 65_536,
    "max_map_len": 1_024,
    "max_ext_len": 1_024,
}


def encode(message: Message) -> bytes:
    """Raises ValueError when it holds more than ITEMS_MAX ids."""
    if isinstance(message, Offer):
        items = [(task_id.bytes, attempt) for task_id, attempt in _bounded(message.items)]
        return _pack([VERSION, message.view, message.incarnation, items, message.kind])
    form = _FORM_OF[type(message)]
    body: dict[str, object] = {"v": VERSION, "t": form.tag}
    for name, kind in form.fields.items():
        body[name] = kind.write(getattr(message, name))
    return _pack(body)


def decode(body: bytes) -> Message:
    """Raises UndecodableMessage, and nothing else."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise UndecodableMessage(f"{len(body)} bytes, at most {MESSAGE_BYTES_MAX} are allowed")
    try:
        value = msgpack.unpackb(body, **_LIMITS)
    except Exception as error:  # whatever the unpacker raises means one thing, and the consumer has to live
        raise UndecodableMessage(f"not msgpack within our limits: {type(error).__name__} {error}") from error
    try:
        return _read_offer(value) if isinstance(value, list) else _read_map(value)
    except _Wrong as wrong:
        raise UndecodableMessage(str(wrong)) from None


T = TypeVar("T")


class _Wrong(Exception):
    """What is wrong with which part of a message."""


def _bounded(items: Sequence[T]) -> Sequence[T]:
    if len(items) > ITEMS_MAX:
        raise ValueError(f"{len(items)} ids in one message: at most {ITEMS_MAX} are allowed")
    return items


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


# -- reading ----------------------------------------------------------------------------------------


def _read_offer(value: list[Any]) -> Offer:
    _check_version(value[0] if value else None)
    if len(value) < 4:
        raise _Wrong(f"an offer has at least 4 parts, not {len(value)}")
    kind = _read_int(value[4]) if len(value) > 4 else 0
    return Offer(_read_int(value[1]), _read_int(value[2]), _read_pairs(value[3], _read_int), kind)


def _read_map(value: object) -> Message:
    if not isinstance(value, dict):
        raise _Wrong(f"a message is an array or a map, not {type(value).__name__}")
    _check_version(value.get("v"))
    tag = value.get("t")
    form = _FORM_BY_TAG.get(tag) if isinstance(tag, str) else None
    if form is None:
        raise _Wrong(f"unknown tag {_shown(tag)}")
    read = {}
    for name, kind in form.fields.items():
        if name in value:
            try:
                read[name] = kind.read(value[name])
            except _Wrong as wrong:
                raise _Wrong(f"{form.tag}.{name}: {wrong}") from None
        elif name in form.required:
            raise _Wrong(f"{form.tag}.{name} is missing")
    return form.make(**read)


def _check_version(version: object) -> None:
    if type(version) is not int or version != VERSION:
        raise _Wrong(f"version {_shown(version)}, this node knows {VERSION}")


def _read_int(value: object) -> int:
    if type(value) is int and 0 <= value <= _INT_MAX:  # bool is an int elsewhere, not here
        return value
    raise _Wrong(f"{_shown(value)} is not an integer of 0…2^63-1")


def _read_number(value: object) -> float:
    if type(value) in (int, float) and isfinite(value):  # type: ignore[arg-type]  # just looked
        return float(value)  # type: ignore[arg-type]  # just looked
    raise _Wrong(f"{_shown(value)} is not a finite number")


def _read_text(value: object) -> str:
    if isinstance(value, str) and len(value) <= _TEXT_MAX:
        return value
    raise _Wrong(f"{_shown(value)} is not a text of at most {_TEXT_MAX} characters")


def _read_id(value: object) -> UUID:
    if isinstance(value, bytes) and len(value) == 16:
        return UUID(int=int.from_bytes(value, "big"))
    raise _Wrong(f"{_shown(value)} is not an id of 16 bytes")


def _read_list(value: object) -> list[Any]:
    if isinstance(value, list) and len(value) <= ITEMS_MAX:
        return value
    raise _Wrong(f"{_shown(value)} is not an array of at most {ITEMS_MAX} items")


def _read_pairs(value: object, read_second: Callable[[object], T]) -> tuple[tuple[UUID, T], ...]:
    pairs = []
    for pair in _read_list(value):
        if not isinstance(pair, list) or len(pair) < 2:  # more may stand behind: from a later release
            raise _Wrong(f"{_shown(pair)} is not a pair with an id")
        pairs.append((_read_id(pair[0]), read_second(pair[1])))
    return tuple(pairs)


def _shown(value: object) -> str:
    """Short, whatever it is: this ends in logs."""
    text = repr(value) if isinstance(value, bool | int | float | str | bytes | None) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."


# -- the forms of everything but an Offer -----------------------------------------------------------


class _Field(NamedTuple):
    read: Callable[[Any], Any]
    write: Callable[[Any], object] = lambda value: value


class _Form(NamedTuple):
    tag: str
    make: Callable[..., Message]
    fields: Mapping[str, _Field]
    required: frozenset[str]


def _form(tag: str, make: type[Message], **kinds: _Field) -> _Form:
    required = frozenset(field.name for field in fields(make) if field.default is MISSING)
    return _Form(tag, make, kinds, required)


_INT: Final = _Field(_read_int)
_NUMBER: Final = _Field(_read_number)
_TEXT: Final = _Field(_read_text)
_ID: Final = _Field(_read_id, lambda value: value.bytes)
_INTS: Final = _Field(
    lambda value: tuple(_read_int(item) for item in _read_list(value)),
    lambda numbers: list(_bounded(numbers)),
)
_IDS: Final = _Field(
    lambda value: tuple(_read_id(item) for item in _read_list(value)),
    lambda ids: [task_id.bytes for task_id in _bounded(ids)],
)

_FORM_OF: Final[Mapping[type[Message], _Form]] = {
    Watch: _form("watch", Watch, incarnation=_INT, ids=_IDS),
    Finished: _form("finished", Finished, ids=_IDS),
    Credit: _form("credit", Credit, incarnation=_INT, credits=_INTS),
    Waiting: _form("waiting", Waiting, bands=_INTS),
    CancelRequested: _form("cancel", CancelRequested, id=_ID, attempt=_INT),
    Heartbeat: _form(
        "beat",
        Heartbeat,
        incarnation=_INT,
        view=_INT,
        sequence=_INT,
        lag_ms=_NUMBER,
        table_hash=_TEXT,
        credits=_INTS,
        running=_INT,
    ),
    Canary: _form("canary", Canary, incarnation=_INT, sequence=_INT),
}
_FORM_BY_TAG: Final[Mapping[str, _Form]] = {form.tag: form for form in _FORM_OF.values()}
