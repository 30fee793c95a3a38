"""Commands of operators: handlers, pause and resume, stats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from node.cli.context import JSON, reaches_node, with_client
from node.cli.submit import HANDLER, complete_handler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.client import Client


@click.command(short_help="What the nodes can run.")
@click.argument("handler", required=False, shell_complete=complete_handler)
@JSON
@reaches_node
def handlers(handler: str | None, *, as_json: bool) -> None:
    """List the handlers that nodes have published, or show one: its arguments, defaults, nodes."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    async def look(client: Client) -> Any:
        return await client.handlers() if handler is None else await client.handler(handler)

    found = with_client(look)
    if as_json:
        render.print_json({"handlers": found} if handler is None else found)
    elif handler is not None:
        _show_handler(found)
    elif found:
        rows = [
            (
                entry["name"],
                render.Styled("paused", "yellow") if entry.get("paused") else "",
                arguments(entry.get("schema") or {}),
                ", ".join(entry.get("nodes") or ()) or render.Styled("none", "red"),
                entry.get("source") or "",
            )
            for entry in found
        ]
        render.table(("HANDLER", "", "ARGUMENTS", "NODES", "SOURCE"), rows)
    else:
        render.note("no node has published a handler yet; start one: noria dev FILE")


def _show_handler(entry: Mapping[str, Any]) -> None:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    defaults = entry.get("defaults") or {}
    backoff = defaults.get("backoff") or {}
    render.fields((
        ("handler", entry["name"]),
        ("state", render.Styled("paused", "yellow") if entry.get("paused") else "active"),
        ("about", (entry.get("doc") or "").strip()),
        ("arguments", "\n".join(_argument_lines(entry.get("schema") or {})) or "none"),
        ("runs as", defaults.get("kind")),
        ("priority", defaults.get("priority")),
        ("timeout", render.duration(defaults["timeout_s"]) if "timeout_s" in defaults else None),
        ("attempts", f"{defaults['max_attempts']}" if "max_attempts" in defaults else None),
        ("back-off", f"{backoff['first_s']:g}s, times {backoff['factor']:g}, up to {render.duration(backoff['max_s'])}"
         if backoff else None),
        ("gives up on", ", ".join(defaults.get("give_up_on") or ())),
        ("nodes", ", ".join(entry.get("nodes") or ()) or render.Styled("none", "red")),
        ("source", entry.get("source")),
    ))  # fmt: skip


def arguments(schema: Mapping[str, Any]) -> str:
    """As a signature: url: string, depth: integer = 0."""
    return ", ".join(_argument_lines(schema))


def _argument_lines(schema: Mapping[str, Any]) -> list[str]:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    lines = []
    for name, part in (schema.get("properties") or {}).items():
        default = f" = {render.compact(part['default'])}" if "default" in part else ""
        lines.append(f"{name}: {_kind(part)}{default}")
    return lines


def _kind(part: Mapping[str, Any]) -> str:
    if "$ref" in part:
        return str(part["$ref"]).rpartition("/")[2]
    for word in ("anyOf", "oneOf"):
        if part.get(word):
            return " | ".join(dict.fromkeys(_kind(option) for option in part[word]))
    if "enum" in part:
        return " | ".join(map(str, part["enum"]))
    kind = part.get("format") or part.get("type") or "any"
    inner = part.get("items")
    return f"{kind} of {_kind(inner)}" if kind == "array" and inner else str(kind)


@click.command(short_help="Start none of a handler's tasks.")
@HANDLER
@JSON
@reaches_node
def pause(handler: str, *, as_json: bool) -> None:
    """Start none of HANDLER's tasks, on any node. What runs goes on; what is submitted waits."""
    _set_paused(handler, paused=True, as_json=as_json)


@click.command(short_help="Start a paused handler's tasks again.")
@HANDLER
@JSON
@reaches_node
def resume(handler: str, *, as_json: bool) -> None:
    """Start HANDLER's tasks again, on all nodes."""
    _set_paused(handler, paused=False, as_json=as_json)


def _set_paused(handler: str, *, paused: bool, as_json: bool) -> None:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    entry = with_client(lambda client: client.pause(handler) if paused else client.resume(handler))
    if as_json:
        render.print_json(entry)
    else:
        render.note(
            f"{handler} is paused; go on: noria resume {handler}" if paused else f"{handler} is active"
        )


@click.command(short_help="Counts, rates and ages.")
@JSON
@reaches_node
def stats(*, as_json: bool) -> None:
    """Show what waits, runs and ended, how fast, and what failed lately, as the node that answers knows it."""
    from node.cli import render, statistics  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.stats())
    if as_json:
        render.print_json(found)
    else:
        statistics.show(found)
