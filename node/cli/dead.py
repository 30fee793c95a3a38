"""`noria dead`: tasks that failed for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from node.cli import select, tasks
from node.cli.context import JSON, reaches_node, with_client

if TYPE_CHECKING:
    pass


@click.group(short_help="Dead letters: list, show, replay, purge.")
def dead() -> None:
    """Dead letters are tasks that failed for good: out of attempts, given up by their handler, or poison."""


@dead.command("list", short_help="List dead letters.")
@select.options()
@select.page_options
@JSON
@reaches_node
def list_dead(*, limit: int, cursor: str | None, quiet: bool, as_json: bool, **said: Any) -> None:
    """List dead letters, newest first, with the error that ended them."""
    from node.cli import describe  # noqa: PLC0415 - not needed for --help

    which = select.which(said)
    page = with_client(lambda client: select.collect(client, limit, cursor, which, dead=True))
    describe.show_page(page, describe.DEAD_COLUMNS, quiet=quiet, as_json=as_json, empty="no dead letters")


@dead.command("replay", short_help="Run dead letters again.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@select.options()
@select.bulk_options
@JSON
@reaches_node
def replay(
    ids: tuple[str, ...], *, everything: bool, dry_run: bool, yes: bool, as_json: bool, **said: Any
) -> int:
    """Open a new run of the dead letters ID, or of all that match; their budgets start anew."""
    which = select.which(said)
    if ids:
        select.no_filter_beside_ids(which, everything=everything, dry_run=dry_run)
        return tasks.retry_each(ids, as_json=as_json)
    return select.act(
        "replay", "replayed", which, everything=everything, dry_run=dry_run, yes=yes, as_json=as_json
    )


@dead.command("purge", short_help="Delete dead letters.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@select.options()
@select.bulk_options
@JSON
@reaches_node
def purge(
    ids: tuple[str, ...], *, everything: bool, dry_run: bool, yes: bool, as_json: bool, **said: Any
) -> int:
    """Delete the dead letters ID, or all that match, for good."""
    which = select.which(said)
    if ids:
        select.no_filter_beside_ids(which, everything=everything, dry_run=dry_run)
        which = {"ids": list(ids)}
    return select.act(
        "purge", "purged", which, everything=everything, dry_run=dry_run, yes=yes, as_json=as_json
    )


@dead.command("show", short_help="Show one dead letter.")
@tasks.ID
@JSON
@reaches_node
def show(task_id: str, *, as_json: bool) -> None:
    """Show the dead letter ID with its traceback and what each attempt met."""
    tasks.show(task_id, with_attempts=True, as_json=as_json)
