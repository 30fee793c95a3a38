"""Options that say which tasks, and the actions on all that match: shown first, done only when confirmed."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from node.cli import parse
from node.cli.context import with_client
from node.cli.exits import Code

if TYPE_CHECKING:
    from node.client import Changed, Client, TaskInfo, TaskPage
    from node.client.filters import Filter

F = TypeVar("F", bound=Callable[..., Any])

SEARCH_S = 20.0  # rare tasks in a long history: after this, what was found, and where to go on
_FIELDS = (
    "state",
    "handler",
    "actor_key",
    "idempotency_key",
    "workflow_id",
    "created_after",
    "created_before",
    "error_type",
)


STATE = click.option(
    "--state",
    multiple=True,
    type=click.Choice(["blocked", "scheduled", "ready", "running", "succeeded", "failed", "cancelled"]),
    help="Only in this state (repeatable).",
)


def options() -> Callable[[F], F]:
    """Filters by handler, keys, age and error."""
    added = (
        click.option("--handler", help="Only this handler's."),
        click.option("--actor-key", help="Only with this actor key."),
        click.option("--workflow", "workflow_id", metavar="ID", help="Only tasks of this workflow."),
        click.option("--key", "idempotency_key", help="Only with this idempotency key."),
        click.option(
            "--error", "error_type", metavar="TYPE", help="Only failed with this, such as ValueError."
        ),
        click.option(
            "--since", "created_after", type=parse.AGO, help="Only submitted since, such as 2h or an instant."
        ),
        click.option("--until", "created_before", type=parse.AGO, help="Only submitted before."),
    )

    def add(command: F) -> F:
        for option in reversed(added):
            command = option(command)
        return command

    return add


def page_options(command: F) -> F:
    for option in (
        click.option("--quiet", "-q", is_flag=True, help="Ids only, one a line, for xargs."),
        click.option("--cursor", help="Go on where a list ended (its next_cursor)."),
        click.option(
            "--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many."
        ),
    ):
        command = option(command)
    return command


def bulk_options(command: F) -> F:
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Only say how many match."),
        click.option(
            "--all", "everything", is_flag=True, help="All of them; needed where no filter is given."
        ),
    ):
        command = option(command)
    return command


def which(said: Mapping[str, Any]) -> Filter:
    return {name: said[name] for name in _FIELDS if said.get(name)}  # type: ignore[return-value]  # built by name


async def collect(
    client: Client, limit: int, cursor: str | None, filtered: Filter, *, dead: bool = False
) -> TaskPage:
    """`limit` tasks, or all there are: a node's own page may be short although more follow."""
    tasks: list[TaskInfo] = []
    stop_s = time.monotonic() + SEARCH_S
    while True:
        page = await client.page(limit=limit - len(tasks), cursor=cursor, dead=dead, **filtered)
        tasks += page.tasks
        cursor = page.next_cursor
        if cursor is None or len(tasks) >= limit or time.monotonic() > stop_s:
            raw = {"tasks": [info.raw for info in tasks], "next_cursor": cursor}
            return type(page)(tuple(tasks), cursor, raw)


def no_filter_beside_ids(filtered: Filter, *, everything: bool, dry_run: bool) -> None:
    if filtered or everything or dry_run:
        raise click.UsageError("either IDs or filters, not both")


def act(
    action: str,
    done: str,
    filtered: Filter,
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    priority: Any = None,
) -> int:
    """Count what matches, ask, do it. `action` is cancel, replay, purge or prioritize (with the `priority`)."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    if not filtered and not everything:
        raise click.UsageError(f"say which to {action}: IDs, a filter such as --handler, or --all")
    if everything and filtered:
        raise click.UsageError("--all and filters exclude each other")

    async def once(client: Client, *, dry: bool) -> Changed:
        methods: dict[str, Callable[..., Awaitable[Changed]]] = {
            "cancel": client.cancel_matching,
            "replay": client.replay,
            "purge": client.purge,
            "prioritize": partial(client.prioritize_matching, priority),
        }
        method = methods[action]
        return await method(everything=everything, dry_run=dry, **filtered)

    matched = with_client(lambda client: once(client, dry=True)).matched
    if dry_run:
        changed = 0
    else:
        if not yes:
            _confirm(action, matched)
        changed = with_client(lambda client: _all(lambda: once(client, dry=False), matched))
    if as_json:
        render.print_json({"matched": matched, "changed": changed})
    elif dry_run:
        render.note(f"{render.count(matched)} would be {done}")
    else:
        render.note(f"{render.count(changed)} of {render.count(matched)} {done}")
    return Code.DONE


async def _all(once: Callable[[], Awaitable[Changed]], matched: int) -> int:
    """A node stops after a while and says that there is more. What is replayed may match again, so count."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    total = 0
    while True:
        step = await once()
        total += step.changed
        if not (step.more and step.changed and total < matched):
            return total
        render.note(f"{render.count(total)} of {render.count(matched)} so far")


def _confirm(action: str, matched: int) -> None:
    if not matched:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{matched:,} tasks match; --yes to {action} them without being asked")
    click.confirm(f"{action} {matched:,} tasks?", abort=True, err=True)
