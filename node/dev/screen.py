"""What a person who runs `noria dev` reads. Nothing stays silent for longer than a second or two."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from node.dev.importing import Found

_PATIENCE_S: Final = 1.5
_HANDLERS_SHOWN: Final = 20
_PLACEHOLDERS: Final[dict[str, Any]] = {
    "string": "...", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip


def say(text: str = "") -> None:
    with suppress(OSError):  # the terminal may be gone
        click.echo(text)


def complain(text: str) -> None:
    with suppress(OSError):
        click.secho(text, fg="red", err=True)


@asynccontextmanager
async def announced(what: str) -> AsyncIterator[None]:
    """Say that it takes a while, each time that it does."""

    async def repeat() -> None:
        waited_s = 0.0
        while True:
            await asyncio.sleep(_PATIENCE_S)
            waited_s += _PATIENCE_S
            say(f"{what} ... {waited_s:.0f} s")

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def opening(urls: Mapping[str, str], handlers: Sequence[Found], watching: bool) -> str:
    """The page at the start: where it is (URLs by names of nodes), what it found, what to try."""
    several = len(urls) > 1
    lines = [f"  {click.style(url, bold=True)}{f'  {name}' if several else ''}" for name, url in urls.items()]
    lines = ["", *lines, ""]
    lines += _table(handlers) if handlers else ["  no handlers yet: noria dev FILE.py"]
    if handlers:
        lines += ["", "  try it", f"    {curl(next(iter(urls.values())), handlers[0])}"]
    lines += ["", f"  {'reloads on save; ' if watching else ''}Ctrl-C stops everything", ""]
    return "\n".join(lines)


def _table(handlers: Sequence[Found]) -> list[str]:
    shown = handlers[:_HANDLERS_SHOWN]
    width = max(len(h.name) for h in shown)
    lines = [f"  {len(handlers)} handler{'s' if len(handlers) > 1 else ''}"]
    lines += [f"    {h.name:<{width}}  {_from_here(h.source)}" for h in shown]
    return lines + ([f"    and {more} more"] if (more := len(handlers) - len(shown)) else [])


def _from_here(source: str) -> str:
    """Short where it lies below the current folder; terminals open both."""
    return source.removeprefix(f"{Path.cwd()}{os.sep}")


def curl(url: str, handler: Found) -> str:
    """A line that submits this handler and waits for its result, with placeholders for what it requires."""
    body = {"handler": handler.name, "payload": example(handler.schema)}
    words = ["curl", "-sS", f"{url}/v1/tasks?wait=30", "-H", "Content-Type: application/json"]
    return shlex.join([*words, "-d", json.dumps(body)])


def example(schema: dict[str, Any], root: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """A value for this JSON Schema (as pydantic writes them): for people to change, not a promise."""
    root = root or schema
    if depth > 8:
        return None
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return example(root.get("$defs", {}).get(name, {}), root, depth + 1)
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], root, depth + 1)
    if "properties" in schema:
        required = schema.get("required", [])
        return {name: example(schema["properties"].get(name, {}), root, depth + 1) for name in required}
    return _FORMATS.get(schema.get("format", "")) or _PLACEHOLDERS.get(_type(schema), "...")


_FORMATS: Final = {
    "date-time": "2030-01-01T00:00:00Z", "date": "2030-01-01", "time": "12:00:00", "duration": "PT1S",
    "uri": "https://example.org", "uuid": "00000000-0000-0000-0000-000000000000", "email": "me@example.org",
}  # fmt: skip


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "object" if schema == {} else "string")
    return str(kind[0] if isinstance(kind, list) else kind)


def ended(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exited with code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
