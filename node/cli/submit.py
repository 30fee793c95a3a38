"""`noria submit`: one task from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from node.cli import parse
from node.cli.context import JSON, reaches_node, with_client
from node.cli.exits import Code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.authoring.task import TaskOptions
    from node.client import Client, TaskHandle
    from runtime.core.unique import Unique


def complete_handler(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of handlers, for the shell; nothing where no node answers at once."""
    try:
        names = with_client(_handler_names, retry_for_s=0.0, ctx=ctx)
    except Exception:  # noqa: BLE001 - a completion has nowhere to say what is wrong
        return []
    return [name for name in names if name.startswith(incomplete)]


async def _handler_names(client: Client) -> list[str]:
    return sorted(str(entry["name"]) for entry in await client.handlers())


HANDLER = click.argument("handler", shell_complete=complete_handler)


@click.command(short_help="Submit a task.")
@HANDLER
@click.argument("arguments", nargs=-1, metavar="[KEY=TEXT | KEY:=JSON]...")
@click.option(
    "--payload", metavar="JSON|@FILE|@-", help="All arguments as a JSON object; words are put on top."
)
@click.option(
    "--wait", is_flag=True, help="Wait until it has ended; its result goes to stdout. Exit 1 if it failed."
)
@click.option("--timeout", type=parse.DURATION, help="With --wait: give up waiting after this (exit 6).")
@click.option("--key", help="Idempotency key: one key, one task.")
@click.option("--actor-key", help="Tasks with one actor key run one at a time, in order.")
@click.option("--limit-key", help="What the handler's limit for each key counts it by.")
@click.option("--priority", type=click.Choice(["high", "medium", "low"]), help="Before or after others.")
@click.option("--delay", type=parse.DURATION, help="Run it this much later, such as 30s, 5m or 2h.")
@click.option("--at", type=parse.MOMENT, help="Run it then, such as 2030-01-31T08:00 (local) or …Z (UTC).")
@click.option("--expires", type=parse.AHEAD, help="Cancel it if it has not started then; 2h or an instant.")
@click.option("--run-timeout", type=parse.DURATION, help="How long one attempt may take.")
@click.option("--max-attempts", type=click.IntRange(min=1), help="Failures until it is a dead letter.")
@click.option(
    "--unique",
    type=click.Choice(["reject", "existing", "replace", "debounce", "throttle"]),
    help="What to do while a task with the same arguments (or --unique-key) is there.",
)
@click.option("--unique-key", help="With --unique: what tasks are for, in place of their arguments.")
@click.option("--unique-until", type=click.Choice(["finished", "started"]), help="With reject and existing.")
@click.option("--unique-for", type=parse.DURATION, help="The window, or with debounce the quiet time.")
@click.option("--unique-max", type=parse.DURATION, help="With debounce: put it off no longer than this.")
@click.option("--requires", multiple=True, metavar="TAG", help="Only on nodes with this tag (repeatable).")
@click.option("--prefers", multiple=True, metavar="TAG", help="Rather on nodes with this tag (repeatable).")
@click.option(
    "--meta", multiple=True, metavar="KEY=TEXT", help="Metadata, in the form of arguments (repeatable)."
)
@JSON
@reaches_node
def submit(
    handler: str, arguments: tuple[str, ...], payload: str | None, *, wait: bool, timeout: float | None,
    as_json: bool, **said: Any,
) -> int:  # fmt: skip
    """Submit a task to HANDLER, with its arguments as words:

    \b
      noria submit scrape url=https://example.com depth:=2
      noria submit report --payload @order.json --wait
      noria submit mail to=ann@example.com body=@letter.txt --delay 5m --key mail:42

    KEY=TEXT is a text, KEY:=JSON any JSON value; =@FILE and :=@FILE read either from a file.
    Prints the task's id (with --wait: its result). Without --key the task gets a key of its own, so that a
    repeated request never stores it twice.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait; how long the task may run is --run-timeout")
    if said["delay"] is not None and said["at"] is not None:
        raise click.UsageError("--delay and --at exclude each other")
    values = parse.payload(payload, arguments)
    handle = with_client(lambda client: _store(client, handler, values, _options(said)))
    if wait:
        return _finish(handle.id, timeout, as_json=as_json)
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    if as_json:
        render.print_json(handle.seen)
        return Code.DONE
    render.note(
        f"{handler} {'exists already' if handle.duplicate else 'accepted'}; follow it: noria wait {handle.id}"
    )
    click.echo(handle.id)
    return Code.DONE


def _options(said: Mapping[str, Any]) -> TaskOptions:
    options: dict[str, Any] = {
        "idempotency_key": said["key"],
        "actor_key": said["actor_key"],
        "limit_key": said["limit_key"],
        "priority": said["priority"],
        "delay_s": said["delay"],
        "run_at": said["at"],
        "expires_at": said["expires"],
        "timeout_s": said["run_timeout"],
        "max_attempts": said["max_attempts"],
        "unique": _unique(said),
        "requires": said["requires"] or None,
        "prefers": said["prefers"] or None,
        "metadata": parse.pairs(said["meta"]) or None,
    }
    return {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]  # built by name


def _unique(said: Mapping[str, Any]) -> Unique | None:
    from runtime.core.unique import Unique  # noqa: PLC0415 - not needed for --help

    parts = {name: said[f"unique_{word}"] for name, word in _UNIQUE.items()}
    if said["unique"] is not None:
        return Unique(mode=said["unique"], **parts)
    if any(value is not None for value in parts.values()):
        raise click.UsageError("--unique-key, -until, -for and -max go with --unique MODE")
    return None


_UNIQUE: Final = {"key": "key", "until": "until", "for_s": "for", "max_s": "max"}


async def _store(
    client: Client, handler: str, payload: Mapping[str, Any], options: TaskOptions
) -> TaskHandle[Any]:
    from node.client import InvalidTask  # noqa: PLC0415 - not needed for --help

    try:
        return await client.submit(handler, payload, **options)
    except InvalidTask as exc:
        if any(pointer == "#/handler" and "did you mean" not in detail for pointer, detail in exc.errors):
            exc.add_note(await _meant(client, handler))
        raise


async def _meant(client: Client, handler: str) -> str:
    """Which handlers may have been meant."""
    import difflib  # noqa: PLC0415 - not needed for --help

    names = await _handler_names(client)
    close = difflib.get_close_matches(handler, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if names:
        return f"Handlers: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}"
    return "No node has published a handler yet; start one: noria dev FILE"


def _finish(task_id: str, timeout_s: float | None, *, as_json: bool) -> int:
    from node.cli import describe, follow, render  # noqa: PLC0415 - not needed for --help

    info = follow.wait_for([task_id], timeout_s, answered=True)[0]
    if as_json:
        render.print_json(info.raw)
    else:
        describe.say_ended([info])
        if info.state == "succeeded":
            follow.print_result(task_id)
    return Code.DONE if info.state == "succeeded" else Code.TASK_FAILED
