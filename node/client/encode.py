"""From what a caller wants done to the bytes of a request; nothing here waits or sends.

JSON must say exactly what the caller's values say: what would be rounded, written as null or lost is refused here,
with a pointer to it. A request is encoded once; its idempotency key is part of it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from node.client.errors import InvalidTask, TooLarge
from runtime.core.canonical import NESTING_MAX, pointer_to
from runtime.core.unique import Unique

if TYPE_CHECKING:
    from actors.authoring.task import Task
    from node.client.handle import Decoder

# A node takes 10,000 tasks or 16 MiB in one request. Four requests under way share its queue with others, and
# each is one transaction, so requests are smaller in tasks; larger ones are not faster.
BATCH_TASKS_MAX = 2_500
BATCH_BYTES_MAX = 16 * 1024 * 1024
_ENVELOPE_BYTES = len(b'{"tasks":[]}')


def request_of(
    work: Task[Any] | str, payload: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], Decoder[Any] | None]:
    """The fields of one task of the contract (those that were given), and how its result is read."""
    if not isinstance(work, str):
        if payload is not None or options:
            raise TypeError("a Task holds its arguments and options: task(fn, …).options(…)")
        return work.to_request(), work.decode_result
    request: dict[str, Any] = {"handler": work, "payload": {} if payload is None else payload}
    if options:
        request.update((name, value) for name, value in options.items() if value is not None)
        if isinstance(unique := request.get("unique"), Unique):
            request["unique"] = unique.to_json()
        check_instants(request)
    return request, None


def fresh_key() -> str:
    """An idempotency key nobody else uses, ascending in time so that the record's index stays compact."""
    return f"auto:{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def encode(request: Mapping[str, Any], pointer: str = "#") -> bytes:
    """One task of the contract as JSON. Raises InvalidTask with pointers below `pointer`."""
    try:
        data = orjson.dumps(request, default=_plain)
    except (TypeError, RecursionError) as exc:
        errors = tuple(_unencodable(request, pointer)) or ((pointer, str(exc)),)
        raise InvalidTask(f"{request.get('handler')}: the task cannot be written as JSON", errors) from exc
    if b"null" in data and (errors := tuple(_unencodable(request, pointer))):
        raise InvalidTask(f"{request.get('handler')}: the task cannot be written as JSON", errors)
    return data


def check_instants(request: Mapping[str, Any], pointer: str = "#") -> None:
    """Raises InvalidTask for a datetime without a time zone: nobody could tell when that is."""
    for name in ("run_at", "expires_at"):
        value = request.get(name)
        if isinstance(value, datetime) and value.tzinfo is None:
            raise InvalidTask(
                f"{name} has no time zone",
                ((f"{pointer}/{name}", "must be an aware datetime, such as now(UTC) + …"),),
            )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tasks `first` … `first + count - 1` of a call, as the body of one batch request."""

    first: int
    count: int
    body: bytes


def chunks(encoded: Iterable[bytes]) -> Iterator[Chunk]:
    """Cut a stream of encoded tasks so that each batch is within the node's limits, reading no further than needed."""
    first, size, parts = 0, _ENVELOPE_BYTES, list[bytes]()
    for task in encoded:
        grown = size + len(task) + 1
        if parts and (len(parts) >= BATCH_TASKS_MAX or grown > BATCH_BYTES_MAX):
            yield _chunk(first, parts)
            first, size, parts = first + len(parts), _ENVELOPE_BYTES, []
            grown = size + len(task) + 1
        if grown > BATCH_BYTES_MAX:
            raise TooLarge(
                f"task {first} of the batch has {len(task)} bytes; a request holds {BATCH_BYTES_MAX}"
            )
        parts.append(task)
        size = grown
    if parts:
        yield _chunk(first, parts)


def _chunk(first: int, parts: list[bytes]) -> Chunk:
    return Chunk(first, len(parts), b'{"tasks":[' + b",".join(parts) + b"]}")


def _plain(value: object) -> object:
    """What orjson does not know by itself. Sets are left out: their order, so their digest, is not stable."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    dump = getattr(value, "model_dump", None)  # a pydantic model, without importing pydantic
    if dump is not None:
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _unencodable(value: object, pointer: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """(pointer, detail) of every value that JSON cannot carry unchanged."""
    if depth > NESTING_MAX:
        yield pointer, f"nested deeper than {NESTING_MAX} levels"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _unencodable(item, pointer_to(pointer, key), depth + 1)
            else:
                yield pointer, f"key {key!r} is {type(key).__name__}; must be a string"
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unencodable(item, pointer_to(pointer, index), depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for f in dataclasses.fields(value):
            yield from _unencodable(getattr(value, f.name), pointer_to(pointer, f.name), depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield pointer, f"{value} is not a JSON number"
    else:
        try:
            orjson.dumps(value, default=_plain)
        except TypeError as exc:
            yield pointer, str(exc.__cause__ or exc)
