"""Commands about the cluster: its nodes, the ring, where a key belongs, the log of views, and taking a node out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from node.cli import parse
from node.cli.context import JSON, reaches_node, with_client

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from node.cli.render import Cell, Styled
    from node.client import Client

_STATE_STYLE: Final = {
    "active": "green", "draining": "yellow", "unreachable": "bold yellow", "joining": "cyan", "dead": "red",
}  # fmt: skip
_BAR_CELLS: Final = 30


def complete_node(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of nodes, for the shell; nothing where no node answers at once."""
    try:
        cluster = with_client(lambda client: client.cluster(), retry_for_s=0.0, ctx=ctx)
    except Exception:  # noqa: BLE001 - a completion has nowhere to say what is wrong
        return []
    return sorted({str(row["name"]) for row in cluster["nodes"] if str(row["name"]).startswith(incomplete)})


@click.command(short_help="Which nodes there are.")
@JSON
@reaches_node
def nodes(*, as_json: bool) -> None:
    """List the nodes, by their leases; those that left or died within the last hour too."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    cluster = with_client(lambda client: client.cluster())
    if as_json:
        render.print_json(cluster)
        return
    rows = [
        (
            row["name"],
            str(row.get("incarnation", "")),
            _state(str(row.get("state"))),
            _count(row.get("slots")),
            _count(row.get("running")),
            _count(row.get("credit")),
            ", ".join(row.get("tags") or ()),
            str(len(row.get("handlers") or ())),
            render.when_short(datetime.fromisoformat(row["started_at"])) if row.get("started_at") else "",
        )
        for row in cluster["nodes"]
    ]
    numbers = ("INCARNATION", "SLOTS", "RUNNING", "CREDIT", "HANDLERS")
    columns = ("NODE", "INCARNATION", "STATE", "SLOTS", "RUNNING", "CREDIT", "TAGS", "HANDLERS", "STARTED")
    render.table(columns, rows, right=numbers)


def _state(name: str) -> Styled:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    return render.Styled(name, _STATE_STYLE.get(name, "dim"))


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


# -- the ring ---------------------------------------------------------------------------------------


@click.command(short_help="Who owns how much of the ring.")
@JSON
@reaches_node
def ring(*, as_json: bool) -> None:
    """Show how the slots are shared out among the members of the present view, and how far from even that is."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.ring())
    if as_json:
        render.print_json(found)
        return
    members: Sequence[Mapping[str, Any]] = found["nodes"]
    if found["view"] is None:
        render.note("there is no view yet")
        return
    over = found.get("max_over_average")
    fullest = "" if over is None else f"; the fullest node has {over:.2f} times its even share"
    render.say(f"view {found['view']}, table {found['table_hash']}, {found['slots']} slots{fullest}")
    most = max((row["share"] for row in members), default=0.0)
    columns = ("NODE", "STATE", "WEIGHT", "SLOTS", "SHARE", "OFF EVEN", "")
    render.table(
        columns, [_ring_row(row, most) for row in members], right=("WEIGHT", "SLOTS", "SHARE", "OFF EVEN")
    )


def _ring_row(row: Mapping[str, Any], most: float) -> tuple[Cell, ...]:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    share, even = float(row["share"]), float(row["even_share"])
    reason = row.get("reason")
    return (
        str(row["name"]),
        _state(str(row["state"])),
        f"{row['weight']:g}",
        _count(row["slots"]),
        f"{share:.1%}",
        f"{share / even - 1:+.1%}" if even else "",
        render.Styled(f"nothing: {reason}", "dim") if reason else render.Styled(_bar(share, most), "cyan"),
    )


def _bar(share: float, most: float) -> str:
    """In eighths of a character; the largest share fills it."""
    eighths = round(8 * _BAR_CELLS * share / most) if most else 0
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8].strip())


@click.command(short_help="Which node owns a key.")
@click.argument("key")
@click.option("--handler", help="Among the nodes that have this handler; else among all.")
@JSON
@reaches_node
def locate(key: str, *, handler: str | None, as_json: bool) -> None:
    """Show the slot of KEY (an actor key, idempotency key or task id) and the node that owns it."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    place = with_client(lambda client: client.locate(key, handler=handler))
    if as_json:
        render.print_json(place)
        return
    nobody = render.Styled(f"nobody: {place.get('reason')}", "yellow")
    owner: Cell = nobody if place["node"] is None else f"{place['node']} (incarnation {place['incarnation']})"
    render.fields((("key", key), ("slot", str(place["slot"])), ("node", owner)))


@click.command(short_help="Who came, went or fell silent.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="At most so many.")
@JSON
@reaches_node
def views(*, limit: int, as_json: bool) -> None:
    """List the views of the cluster, newest first: each is a numbered, agreed list of members."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.views(limit=limit))
    if as_json:
        render.print_json({"views": found})
    elif found:
        rows = [(str(view["number"]), _members(view["members"]), str(view["reason"])) for view in found]
        render.table(("VIEW", "MEMBERS", "WHAT CHANGED"), rows, right=("VIEW",))
    else:
        render.note("there is no view yet")


def _members(members: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        str(member["node"]) + ("" if member["standing"] == "active" else f" ({member['standing']})")
        for member in sorted(members, key=lambda member: str(member["node"]))
    )


# -- taking a node out ------------------------------------------------------------------------------


@click.command(short_help="Take a node out without losing work.")
@click.argument("node", shell_complete=complete_node)
@click.option("--wait", is_flag=True, help="Wait until it has left, and show how far it is.")
@click.option("--timeout", type=parse.DURATION, help="With --wait: give up waiting after this (exit 6).")
@JSON
@reaches_node
def drain(node: str, *, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Ask NODE to end or hand back what it runs, and to leave. Nothing is lost, and no attempt is burnt."""
    from node.cli import leaving, render  # noqa: PLC0415 - not needed for --help
    from node.cli.exits import Code  # noqa: PLC0415 - not needed for --help

    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")

    async def ask(client: Client) -> Mapping[str, Any]:
        return await client.drain(node)

    if wait:
        return leaving.drain_and_wait(node, timeout, as_json=as_json)
    asked = with_client(ask)
    if as_json:
        render.print_json(asked)
    else:
        render.note(f"{node} was asked to drain; see how far it is: noria nodes")
    return Code.DONE
