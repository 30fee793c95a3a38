"""`noria schedules` and `noria schedule …`: tasks at given times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from node.cli import parse
from node.cli.context import JSON, reaches_node, with_client
from node.cli.submit import HANDLER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.client import Client, ScheduleInfo

NAME = click.argument("name")


@click.command(short_help="List schedules.")
@JSON
@reaches_node
def schedules(*, as_json: bool) -> None:
    """List schedules: when they fire, when they did last, and what became of that task."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.schedules())
    if as_json:
        render.print_json({"schedules": [one.raw for one in found]})
    elif found:
        rows = [
            (one.name, _rule(one), one.handler, _next(one), render.when_short(one.last_fire_at), _state(one))
            for one in found
        ]
        render.table(("SCHEDULE", "RULE", "HANDLER", "NEXT", "LAST", "STATE"), rows)
    else:
        render.note("no schedules; make one: noria schedule set NAME --cron '*/5 * * * *' HANDLER key=text")


@click.group(short_help="Set, show, pause, resume, run or delete one.")
def schedule() -> None:
    """A schedule makes a task at given times, once for each, whatever nodes there are."""


@schedule.command("set", short_help="Make or change a schedule.")
@NAME
@HANDLER
@click.argument("arguments", nargs=-1, metavar="[KEY=TEXT | KEY:=JSON]...")
@click.option("--cron", help="Minute, hour, day, month, weekday; or six fields with the second first.")
@click.option("--every", type=parse.DURATION, help="Elapsed time between fires, such as 30s or 2h.")
@click.option("--tz", "time_zone", metavar="ZONE", help="Whose wall clock --cron goes by.  [default: UTC]")
@click.option(
    "--catch-up", type=click.Choice(["skip", "last", "all"]),
    help="Fire times that no node was there for: none, the newest, or all.  [default: last]",
)  # fmt: skip
@click.option(
    "--catch-up-max", type=click.IntRange(min=1), help="With all: the newest so many.  [default: 10]"
)
@click.option(
    "--overlap", type=click.Choice(["allow", "skip", "cancel_old"]),
    help="While an earlier task has not ended.  [default: allow]",
)  # fmt: skip
@click.option("--payload", metavar="JSON|@FILE|@-", help="All arguments as JSON; words are put on top.")
@click.option("--actor-key", help="Tasks with one actor key run one at a time, in order.")
@click.option("--limit-key", help="What the handler's limit for each key counts it by.")
@click.option("--priority", type=click.Choice(["high", "medium", "low"]), help="Before or after others.")
@click.option("--run-timeout", type=parse.DURATION, help="How long one attempt may take.")
@click.option("--max-attempts", type=click.IntRange(min=1), help="Failures until it is a dead letter.")
@click.option("--requires", multiple=True, metavar="TAG", help="Only on nodes with this tag (repeatable).")
@JSON
@reaches_node
def set_schedule(
    name: str, handler: str, arguments: tuple[str, ...], payload: str | None, *, as_json: bool, **said: Any
) -> None:
    """Make the schedule NAME, or change it, for tasks to HANDLER with these arguments:

    \b
      noria schedule set nightly --cron "0 3 * * *" --tz Europe/Berlin report kind=full
      noria schedule set beat --every 30s --overlap skip ping url=https://example.com
    """
    if (said["cron"] is None) is (said["every"] is None):
        raise click.UsageError("say when: either --cron or --every")
    values = parse.payload(payload, arguments)
    options = {
        "actor_key": said["actor_key"],
        "limit_key": said["limit_key"],
        "priority": said["priority"],
        "timeout_s": said["run_timeout"],
        "max_attempts": said["max_attempts"],
        "requires": list(said["requires"]) or None,
    }
    rule = {
        "cron": said["cron"],
        "every_s": said["every"],
        **{key: said[key] for key in ("time_zone", "catch_up", "catch_up_max", "overlap")},
    }
    given: Any = {key: value for key, value in rule.items() if value is not None}  # built by name
    found = with_client(lambda client: client.put_schedule(name, handler, values, options=options, **given))
    _tell(found, as_json=as_json)


@schedule.command("show", short_help="Show one.")
@NAME
@JSON
@reaches_node
def show(name: str, *, as_json: bool) -> None:
    """Show the schedule NAME: its rule, its task, its next fire times and its counts."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.schedule(name))
    if as_json:
        render.print_json(found.raw)
        return
    render.fields((
        ("schedule", found.name),
        ("rule", _rule(found)),
        ("task", render.compact(found.raw["task"])),
        ("catch up", found.catch_up),
        ("overlap", found.overlap),
        ("paused", render.when(found.paused_at)),
        ("next", "\n".join(_times(found.next))),
        ("last fire", render.when(found.last_fire_at)),
        ("last task", found.last_task_id),
        ("its state", _state(found)),
        ("fired", (f"{render.count(found.fired)}; {render.count(found.missed)} missed, "
                  f"{render.count(found.skipped)} skipped for overlap")),
    ))  # fmt: skip


@schedule.command("next", short_help="Show when it fires next.")
@NAME
@click.option(
    "-n", "count", type=click.IntRange(1, 100), default=5, show_default=True, help="How many times."
)
@JSON
@reaches_node
def next_times(name: str, count: int, *, as_json: bool) -> None:
    """Print the next fire times of the schedule NAME, one a line, in UTC."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.schedule(name, times=count))
    if as_json:
        render.print_json({"next": found.raw["next"]})
        return
    if found.paused_at is not None:
        render.note(f"{name} is paused; go on: noria schedule resume {name}")
    for line in _times(found.next):
        click.echo(line)


@schedule.command("pause", short_help="Fire no more.")
@NAME
@JSON
@reaches_node
def pause(name: str, *, as_json: bool) -> None:
    """Fire the schedule NAME no more. What falls into the pause is not made up for."""
    _tell(with_client(lambda client: client.pause_schedule(name)), as_json=as_json)


@schedule.command("resume", short_help="Fire again.")
@NAME
@JSON
@reaches_node
def resume(name: str, *, as_json: bool) -> None:
    """Fire the schedule NAME again, from its next fire time on."""
    _tell(with_client(lambda client: client.resume_schedule(name)), as_json=as_json)


@schedule.command("run", short_help="Make a task now.")
@NAME
@JSON
@reaches_node
def run_now(name: str, *, as_json: bool) -> None:
    """Make a task of the schedule NAME now, whatever its rule, a pause or overlap says. Prints the task's id."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    info = with_client(lambda client: client.run_schedule(name))
    if as_json:
        render.print_json(info.raw)
        return
    render.note(f"{info.handler} accepted; follow it: noria wait {info.id}")
    click.echo(info.id)


@schedule.command("delete", short_help="Delete it.")
@NAME
@JSON
@reaches_node
def delete(name: str, *, as_json: bool) -> None:
    """Delete the schedule NAME. The tasks that it made stay."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    async def remove(client: Client) -> None:
        await client.delete_schedule(name)

    with_client(remove)
    if as_json:
        render.print_json({"name": name, "deleted": True})
    else:
        render.note(f"{name} is deleted")


def _tell(found: ScheduleInfo, *, as_json: bool) -> None:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    if as_json:
        render.print_json(found.raw)
    elif found.paused_at is not None:
        render.note(f"{found.name} is paused; go on: noria schedule resume {found.name}")
    else:
        times = _times(found.next)
        render.note(f"{found.name} fires next at {times[0]}" if times else f"{found.name} fires no more")


def _rule(found: ScheduleInfo) -> str:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    if found.every_s is not None:
        return f"every {render.duration(found.every_s)}"
    return f"{found.cron} {found.time_zone}"


def _next(found: ScheduleInfo) -> Any:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    if found.paused_at is not None:
        return render.Styled("paused", "yellow")
    return render.when_short(found.next[0]) if found.next else "never"


def _state(found: ScheduleInfo) -> Any:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    return render.state(found.last_state) if found.last_state else ""


def _times(times: Sequence[Any]) -> list[str]:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    return [str(render.when(at)) for at in times]
