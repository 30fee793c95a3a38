"""Commands for tasks that exist: status, wait, result, cancel, retry, tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli import exits, parse, select
from node.cli.context import JSON, reaches_node, with_client
from node.cli.exits import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from node.client import AttemptInfo, Client, TaskInfo

ID = click.argument("task_id", metavar="ID")
IDS = click.argument("ids", metavar="ID...", nargs=-1, required=True)


@click.command(short_help="Show one task.")
@ID
@click.option("--attempts", "with_attempts", is_flag=True, help="With --json: add what each attempt met.")
@JSON
@reaches_node
def status(task_id: str, *, with_attempts: bool, as_json: bool) -> None:
    """Show the task ID: its state, why it waits, how it ended, what its attempts met."""
    show(task_id, with_attempts=with_attempts, as_json=as_json)


def show(task_id: str, *, with_attempts: bool, as_json: bool) -> None:
    from node.cli import describe, render  # noqa: PLC0415 - not needed for --help

    async def look(client: Client) -> tuple[TaskInfo, list[AttemptInfo]]:
        info = await client.get(task_id)
        return info, await client.attempts(task_id) if with_attempts or not as_json else []

    info, attempts = with_client(look)
    if not as_json:
        describe.show_task(info, attempts)
    elif with_attempts:
        render.print_json({**info.raw, "attempts": [attempt.raw for attempt in attempts]})
    else:
        render.print_json(info.raw)


@click.command(short_help="Wait until tasks have ended.")
@IDS
@click.option("--timeout", type=parse.DURATION, help="Give up after this, such as 30s or 5m (exit 6).")
@JSON
@reaches_node
def wait(ids: tuple[str, ...], *, timeout: float | None, as_json: bool) -> int:
    """Wait until every task ID has ended. Exit code 0 if all succeeded, 1 if one did not, 6 if the time was up."""
    from node.cli import describe, follow, render  # noqa: PLC0415 - not needed for --help

    infos = follow.wait_for(ids, timeout)
    if as_json:
        render.print_json(infos[0].raw if len(ids) == 1 else {"tasks": [info.raw for info in infos]})
    else:
        describe.say_ended(infos)
    return Code.DONE if all(info.state == "succeeded" for info in infos) else Code.TASK_FAILED


@click.command(short_help="Print a task's result.")
@ID
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file."
)
@click.option("--json", "as_json", is_flag=True, help="Refuse results that are not JSON.")
@reaches_node
def result(task_id: str, *, output: Path | None, as_json: bool) -> None:
    """Print what the handler returned: JSON, or the bytes as they are."""
    from node.cli import follow  # noqa: PLC0415 - not needed for --help

    follow.print_result(task_id, output, json_only=as_json)


@click.command(short_help="Cancel tasks.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@select.STATE
@select.options()
@select.bulk_options
@JSON
@reaches_node
def cancel(
    ids: tuple[str, ...], *, everything: bool, dry_run: bool, yes: bool, as_json: bool, **said: Any
) -> int:
    """Cancel the tasks ID, or all that match. One that waits ends at once; one that runs is asked to end."""
    which = select.which(said)
    if not ids:
        return select.act(
            "cancel", "cancelled", which, everything=everything, dry_run=dry_run, yes=yes, as_json=as_json
        )
    select.no_filter_beside_ids(which, everything=everything, dry_run=dry_run)
    return _each(ids, "cancel", _cancelled, as_json=as_json)


def _cancelled(info: TaskInfo) -> str:
    asked = info.cancel_requested_at is not None and not info.final
    return "running; asked to end" if asked else f"{info.state}"


@click.group(short_help="Change waiting tasks.")
def task() -> None:
    """Change tasks that wait."""


@task.command("priority", short_help="Give waiting tasks another priority.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.argument("level", metavar="LEVEL", type=click.Choice(["high", "medium", "low"]))
@select.options()
@select.bulk_options
@JSON
@reaches_node
def priority(
    ids: tuple[str, ...],
    level: str,
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **said: Any,
) -> int:
    """Give the waiting tasks ID, or all waiting ones that match, the priority LEVEL (high, medium or low), at once.

    \b
      noria task priority 0192f0c1-… high
      noria task priority low --handler report
    """
    which = select.which(said)
    if not ids:
        return select.act(
            "prioritize", f"now {level}", which,
            everything=everything, dry_run=dry_run, yes=yes, as_json=as_json, priority=level,
        )  # fmt: skip
    select.no_filter_beside_ids(which, everything=everything, dry_run=dry_run)
    return _each(ids, "prioritize", lambda info: f"{info.state}, {info.priority}", level, as_json=as_json)


@click.command(short_help="Run failed or cancelled tasks again.")
@IDS
@JSON
@reaches_node
def retry(ids: tuple[str, ...], *, as_json: bool) -> int:
    """Open a new run of the failed or cancelled tasks ID; their budgets start anew."""
    return retry_each(ids, as_json=as_json)


def retry_each(ids: Sequence[str], *, as_json: bool) -> int:
    return _each(ids, "retry", lambda info: f"{info.state}; follow it: noria wait {info.id}", as_json=as_json)


def _each(
    ids: Sequence[str], action: str, story: Callable[[TaskInfo], str], *values: str, as_json: bool
) -> int:
    """One request per id. Goes on after a refusal; the exit code is that of the first one."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help
    from node.client import ClientError, NotFound, Refused  # noqa: PLC0415 - not needed for --help

    async def work(client: Client) -> list[TaskInfo | ClientError]:
        met: list[TaskInfo | ClientError] = []
        for task_id in ids:
            try:
                met.append(await getattr(client, action)(task_id, *values))
            except (NotFound, Refused) as exc:
                met.append(exc)
        return met

    met = with_client(work)
    done = [info for info in met if not isinstance(info, ClientError)]
    refused = [exc for exc in met if isinstance(exc, ClientError)]
    if as_json and done:
        render.print_json(done[0].raw if len(ids) == 1 else {"tasks": [info.raw for info in done]})
    for info in () if as_json else done:
        render.note(f"{info.id}  {story(info)}")
    codes = [exits.report(exc, debug=False) for exc in refused]
    return codes[0] if codes else Code.DONE


@click.command("tasks", short_help="List tasks.")
@select.STATE
@select.options()
@select.page_options
@JSON
@reaches_node
def list_tasks(*, limit: int, cursor: str | None, quiet: bool, as_json: bool, **said: Any) -> None:
    """List tasks, newest first."""
    from node.cli import describe  # noqa: PLC0415 - not needed for --help

    which = select.which(said)
    page = with_client(lambda client: select.collect(client, limit, cursor, which))
    describe.show_page(page, describe.TASK_COLUMNS, quiet=quiet, as_json=as_json, empty="no tasks match")
