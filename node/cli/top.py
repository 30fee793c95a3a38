"""`noria top`: what the cluster does, live, as the node that answers knows it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from node.cli import parse
from node.cli.context import JSON, reaches_node, with_client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.client import Client

_EVERY_S_MIN = 0.2
_PIPE_WIDTH = 10_000  # nothing is cut there


@click.command(short_help="Watch nodes, lanes and handlers, live.")
@click.option("--every", type=parse.DURATION, default=1.0, show_default="1s", help="How often to look.")
@click.option("--once", is_flag=True, help="Look once; also where stdout is no terminal.")
@JSON
@reaches_node
def top(*, every: float, once: bool, as_json: bool) -> None:
    """Watch nodes, lanes, handlers, rates, ages and dead letters until q or Ctrl-C.

    With --json: a line of JSON per look. While the node is away, the last numbers stay, and it is asked again.
    """
    if every < _EVERY_S_MIN:
        raise click.UsageError(f"--every is {every:g}s: must be {_EVERY_S_MIN:g}s or more")
    if once or not (as_json or sys.stdout.isatty()):
        with_client(lambda client: _look_once(client, as_json=as_json))
        return
    from node.cli.top_live import watch  # noqa: PLC0415 - not needed for --help

    async def look(client: Client) -> None:
        await watch(client, every, _print_line if as_json else None)

    with_client(look, retry_for_s=0.0)  # what is away is shown, not waited for


def _print_line(stats: Mapping[str, Any]) -> None:
    click.echo(json.dumps(stats, ensure_ascii=False))


async def _look_once(client: Client, *, as_json: bool) -> None:
    from node.cli import render, top_view  # noqa: PLC0415 - not needed for --help

    stats = await client.stats()
    if as_json:
        render.print_json(stats)
        return
    width = render.terminal().width if sys.stdout.isatty() else _PIPE_WIDTH
    for line in top_view.screen(stats, client.url, width):
        render.say_parts(line)
