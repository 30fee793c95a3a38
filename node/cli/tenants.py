"""`noria tenants` and `noria tenant`: what share of the nodes each tenant gets, and pausing one."""

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
                render.Styled("paused", "yellow") if row.get("paused") else str(row["weight"]),
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


@click.group(short_help="Give one a greater share, pause one.")
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


@tenant.command("pause", short_help="Start none of its tasks.")
@click.argument("name", metavar="TENANT")
@JSON
@reaches_node
def pause(name: str, *, as_json: bool) -> None:
    """Start none of TENANT's tasks, on any node. What runs goes on; what is submitted waits."""
    _set_paused(name, paused=True, as_json=as_json)


@tenant.command("resume", short_help="Start its tasks again.")
@click.argument("name", metavar="TENANT")
@JSON
@reaches_node
def resume(name: str, *, as_json: bool) -> None:
    """Start TENANT's tasks again, on all nodes."""
    _set_paused(name, paused=False, as_json=as_json)


def _set_paused(name: str, *, paused: bool, as_json: bool) -> None:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    row = with_client(lambda client: client.pause_tenant(name) if paused else client.resume_tenant(name))
    if as_json:
        render.print_json(row)
    else:
        render.note(f"{name} is paused; go on: noria tenant resume {name}" if paused else f"{name} is active")
