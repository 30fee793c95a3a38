"""`noria tenants` and `noria tenant weight`: what share of the nodes each tenant gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.context import JSON, reaches_node, with_client

if TYPE_CHECKING:
    from node.client import Client


@click.command(short_help="What of each tenant waits, and its weight.")
@JSON
@reaches_node
def tenants(*, as_json: bool) -> None:
    """List the tenants: their weight, and what of them waits and runs, as last counted."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.tenants())
    if as_json:
        render.print_json({"tenants": found})
    elif found:
        numbers = ("WEIGHT", "READY", "OLDEST", "RUNNING", "SCHEDULED")
        rows = [
            (
                str(row["name"]),
                str(row["weight"]),
                render.count(row["ready"]),
                render.duration(row["oldest_s"]) if row["oldest_s"] else "",
                render.count(row["running"]),
                render.count(row["scheduled"]),
            )
            for row in found
        ]
        render.table(("TENANT", *numbers), rows, right=numbers)
    else:
        render.note("no tenant has a task yet")


@click.group(short_help="Give one a greater share.")
def tenant() -> None:
    """Tenants take turns: whoever has much to do does not hold up the others."""


@tenant.command("weight", short_help="How many turns it gets in a round.")
@click.argument("name", metavar="TENANT")
@click.argument("turns", metavar="WEIGHT", type=int)
@JSON
@reaches_node
def weight(name: str, turns: int, *, as_json: bool) -> None:
    """Give TENANT a WEIGHT from 1 (the usual) to 100: so many of its tasks start for one of a tenant of weight 1.

    \b
      noria tenant weight acme 3
    """
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    async def weigh(client: Client) -> object:
        return await client.weigh_tenant(name, turns)

    found = with_client(weigh)
    if as_json:
        render.print_json(found)
    else:
        render.note(f"{name} has the weight {turns}; all nodes go by it within seconds")
