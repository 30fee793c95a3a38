"""`noria limits` and `noria limit …`: how often handlers start, and how many run at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from node.cli.context import JSON, reaches_node, with_client
from node.cli.submit import HANDLER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.client import Client


@click.command(short_help="Which handlers are limited, and how.")
@JSON
@reaches_node
def limits(*, as_json: bool) -> None:
    """List the limits of handlers: those that count, and where they come from."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.limits())
    if as_json:
        render.print_json({"limits": found})
    elif found:
        rows = [
            (
                str(row["handler"]),
                row["rate_limit"] or "",
                str(row["burst"] or ""),
                str(row["max_running"] or ""),
                str(row["limit_per"]),
                f"set by {row['set_by']}" if row["set_by"] else "its code",
            )
            for row in found
        ]
        columns = ("HANDLER", "RATE", "BURST", "RUNNING", "PER", "FROM")
        render.table(columns, rows, right=("RATE", "BURST", "RUNNING"))
    else:
        render.note("no handler has a limit; set one: noria limit set HANDLER --rate 100/s")


@click.group(short_help="Set one, or go back to the code's.")
def limit() -> None:
    """Limits of handlers, in the whole cluster: starts per time, and how many run at once."""


@limit.command("set", short_help="Limit a handler.")
@HANDLER
@click.option("--rate", help='How many attempts start, such as "100/s" or "5/min".')
@click.option("--burst", type=int, help="How many of them may start at once after a pause.")
@click.option("--running", type=int, help="How many run at the same time.")
@JSON
@reaches_node
def set_limit(
    handler: str, *, rate: str | None, burst: int | None, running: int | None, as_json: bool
) -> None:
    """Limit HANDLER, whatever its code says; what is left out is not limited. All nodes go by it within seconds.

    \b
      noria limit set mail.send --rate 100/s --burst 20
      noria limit set report --running 2
    """
    if rate is None and running is None:
        raise click.UsageError("say what: --rate, --running, or both")

    async def put(client: Client) -> Mapping[str, Any]:
        return await client.set_limit(handler, rate_limit=rate, burst=burst, max_running=running)

    _tell(with_client(put), as_json=as_json)


@limit.command("rm", short_help="Go back to what its code says.")
@HANDLER
@JSON
@reaches_node
def unset_limit(handler: str, *, as_json: bool) -> None:
    """Take back what was set for HANDLER: from now on what its code declares counts, which may be nothing."""

    async def remove(client: Client) -> Mapping[str, Any]:
        return await client.unset_limit(handler)

    _tell(with_client(remove), as_json=as_json)


def _tell(found: Mapping[str, Any], *, as_json: bool) -> None:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    if as_json:
        render.print_json(found)
        return
    parts = [] if found["rate_limit"] is None else [f"{found['rate_limit']} in bursts of {found['burst']}"]
    if found["max_running"] is not None:
        parts.append(f"{found['max_running']} at once")
    each = "" if found["limit_per"] == "handler" else f", for each {found['limit_per']}"
    render.note(f"{found['handler']}: {' and '.join(parts) or 'no limit'}{each if parts else ''}")
