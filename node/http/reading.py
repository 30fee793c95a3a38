"""From bytes and parameters to validated values; every fault is named with its place.

Law: a body is bounded before it is read, read without loss (`runtime.core.canonical`), then validated by
the types in `models`. Places are JSON pointers ("#/tasks/3/payload/width"), or "?limit" for the query.
"""

from __future__ import annotations

import asyncio
import difflib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp.web import RequestPayloadError
from pydantic import ValidationError

from node.http.problems import ERRORS_MAX, Problem
from runtime.core.canonical import find_nul, pointer_to, read_json
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from aiohttp import web
    from multidict import MultiMapping
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

BODY_TIMEOUT_S: Final = 30.0
_SHOWN_CHARS: Final = 60

T = TypeVar("T")


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body. Raises Problem: too-large, unsupported-media-type, request-timeout, bad-request."""
    if request.content_type != "application/json":
        raise Problem(
            "unsupported-media-type", f"send Content-Type: application/json, not {_type_of(request)}"
        )
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(declared, limit)
    stream = request.content
    if stream.is_eof():  # the usual case: it came with the headers
        body = stream.read_nowait()
        if len(body) > limit:
            raise _too_large(len(body), limit)
        return body
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _collect(stream.iter_any(), limit)
    except TimeoutError:
        raise Problem("request-timeout", f"the body took longer than {BODY_TIMEOUT_S:.0f} s") from None
    except (ConnectionError, RequestPayloadError) as broken:
        raise Problem("bad-request", f"the body broke off or is badly framed: {broken}") from None


async def _collect(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:  # also of what was sent compressed
            raise _too_large(size, limit)
        parts.append(chunk)
    return b"".join(parts)


def _too_large(size: int, limit: int) -> Problem:
    return Problem("too-large", f"the body has {size} bytes or more; at most {limit} are allowed here")


def _type_of(request: web.Request) -> str:
    return request.headers.get("Content-Type") or "nothing"


def parse(body: bytes) -> Any:
    """The JSON value. Raises Problem('malformed-json'), InvalidInput."""
    try:
        return read_json(body)
    except ValueError as exc:
        raise Problem("malformed-json", f"the body is not JSON: {exc}") from None


def validate(adapter: TypeAdapter[T], value: object) -> T:
    """Raises InvalidInput with a pointer for each fault."""
    try:
        return adapter.validate_python(value)
    except ValidationError as exc:
        raise _invalid(exc, adapter, "#") from None


def parameters(
    adapter: TypeAdapter[Any], lists: frozenset[str], query: MultiMapping[str]
) -> Mapping[str, Any]:
    """The query's values; those in `lists` may be repeated or separated by commas. Raises InvalidInput."""
    values: dict[str, str | list[str]] = {}
    for name, value in query.items():
        if name not in lists:
            if name in values:
                raise InvalidInput(f"{name} is given twice", ((f"?{name}", "is given twice"),))
            values[name] = value
        else:
            values.setdefault(name, []).extend(filter(None, value.split(",")))  # type: ignore[union-attr]
    faults = find_nul(values, "?")
    if faults:
        raise InvalidInput(
            "the query holds what is no text", tuple((p.replace("?/", "?"), d) for p, d in faults)
        )
    try:
        valid: Mapping[str, Any] = adapter.validate_python(values)
    except ValidationError as exc:
        raise _invalid(exc, adapter, "?") from None
    return valid


def _invalid(exc: ValidationError, adapter: TypeAdapter[Any], root: str) -> InvalidInput:
    """Pydantic's findings as places and details that name the value and what is allowed."""
    found = tuple(
        (_place(root, error["loc"]), _detail(error, adapter))
        for error in exc.errors(include_url=False)[:ERRORS_MAX]
    )
    return InvalidInput(summary(found, exc.error_count()), found)


def summary(found: Sequence[tuple[str, str]], count: int) -> str:
    """One line of many faults."""
    more = f" (and {count - 1} more)" if count > 1 else ""
    return ": ".join(found[0]) + more


def _place(root: str, location: Iterable[str | int]) -> str:
    place = root
    for token in location:
        place = pointer_to(place, token)
    return place.replace("?/", "?", 1)


_WORDS: Final = {
    "missing": "must be given",
    "extra_forbidden": "there is no such field",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "value_error": "{error}",
}
_NOT_SHOWN: Final = frozenset({"missing", "extra_forbidden"})


def _detail(error: ErrorDetails, adapter: TypeAdapter[Any]) -> str:
    kind = error["type"]
    words = _WORDS.get(kind, error["msg"]).format_map(error.get("ctx", {}))
    if kind == "extra_forbidden":
        return words + _nearest(str(error["loc"][-1]), _fields(adapter, error["loc"][:-1]))
    return words if kind in _NOT_SHOWN else f"{words}, not {_shown(error['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _fields(adapter: TypeAdapter[Any], location: Iterable[str | int]) -> Iterable[str]:
    """The names that are allowed at a place."""
    schema = root = adapter.json_schema()
    for token in location:
        schema = schema["items"] if isinstance(token, int) else schema["properties"][token]
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return list(schema.get("properties", ()))
