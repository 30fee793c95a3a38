"""How tasks are shown: one in full, many as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli import render
from node.cli.follow import story

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from node.client import AttemptInfo, TaskInfo
    from node.client.operations import TaskPage

Column = tuple[str, "Callable[[TaskInfo], render.Cell]"]

TASK_COLUMNS: tuple[Column, ...] = (
    ("ID", lambda info: info.id),
    ("STATE", lambda info: render.state(info.state)),
    ("HANDLER", lambda info: info.handler),
    ("PRIORITY", lambda info: info.priority),
    ("SUBMITTED", lambda info: render.when_short(info.created_at)),
    ("ABOUT", story),
)
DEAD_COLUMNS: tuple[Column, ...] = (
    ("ID", lambda info: info.id),
    ("HANDLER", lambda info: info.handler),
    ("FAILED", lambda info: render.when_short(info.finished_at)),
    ("ATTEMPTS", lambda info: str(info.attempt)),
    ("ERROR", lambda info: render.Styled(_error_line(info), "red")),
)


def show_page(page: TaskPage, columns: Sequence[Column], *, quiet: bool, as_json: bool, empty: str) -> None:
    if as_json:
        render.print_json(page.raw)
        return
    if quiet:
        for info in page.tasks:
            click.echo(info.id)
    elif page.tasks:
        rows = [[value(info) for _, value in columns] for info in page.tasks]
        render.table([name for name, _ in columns], rows, right=("ATTEMPTS",))
    elif page.next_cursor is None:
        render.note(empty)
    if page.next_cursor is not None:
        render.note(f"more: --cursor {page.next_cursor}")


def show_task(info: TaskInfo, attempts: Sequence[AttemptInfo]) -> None:
    waiting = info.waiting
    because = None
    if waiting is not None:
        because = ": ".join(part for part in (waiting.reason, waiting.detail) if part)
        because += f", until {render.when(waiting.until)}" if waiting.until else ""
    asked = info.cancel_requested_at if not info.final else None
    render.fields((
        ("task", info.id),
        ("handler", info.handler),
        ("state", render.state(info.state)),
        ("waiting", because),
        ("cancel asked", render.when(asked)),
        ("progress", _progress(info)),
        ("priority", info.priority),
        ("attempt", f"{info.attempt} (failures {info.failures} of {info.max_attempts}, crashes {info.crashes})"),
        ("key", info.idempotency_key),
        ("actor key", info.actor_key),
        ("workflow", _workflow(info)),
        ("depends on", "\n".join(info.raw.get("depends_on", ()))),
        ("limit key", info.limit_key),
        ("tenant", None if info.tenant == "default" else info.tenant),
        ("node", _node(info)),
        ("submitted", render.when(info.created_at)),
        ("due", render.when(info.run_at) if info.run_at != info.created_at else None),
        ("started", render.when(info.started_at)),
        ("ended", render.when(info.finished_at)),
        ("expires", render.when(info.expires_at) if not info.final else None),
        ("took", _took(info)),
        ("metadata", render.compact(info.metadata) if info.metadata else None),
        ("result", _result(info)),
    ))  # fmt: skip
    show_error(info)
    if len(attempts) > 1:
        render.say()
        show_attempts(attempts)


def say_ended(infos: Sequence[TaskInfo]) -> None:
    """How tasks ended, on stderr: each that did not succeed with its error, then one line for all."""
    for info in infos:
        if info.state != "succeeded":
            render.note(_summary(info))
            show_error(info, on_stderr=True)
    if len(infos) > 1:
        render.note(f"{sum(info.state == 'succeeded' for info in infos)} of {len(infos)} succeeded")
    elif infos[0].state == "succeeded":
        render.note(_summary(infos[0]))


def _summary(info: TaskInfo) -> str:
    took = ""
    if info.started_at and info.finished_at:
        took = f" in {render.duration((info.finished_at - info.started_at).total_seconds())}"
    return f"{info.handler} {info.id} {info.state}{took}, attempt {info.attempt}"


def show_error(info: TaskInfo, *, on_stderr: bool = False) -> None:
    """The last error with its traceback, if the task has one."""
    if info.error is None or info.state == "succeeded":
        return
    render.say(err=on_stderr)
    render.say(render.Styled(f"{info.error.type}: {info.error.message}", "bold red"), err=on_stderr)
    if info.error.traceback:
        render.say(render.Styled(info.error.traceback.rstrip(), "dim"), err=on_stderr)


def show_attempts(attempts: Sequence[AttemptInfo]) -> None:
    rows = [
        (
            str(attempt.attempt),
            attempt.kind,
            attempt.node or "",
            render.when_short(attempt.ended_at),
            render.Styled(_first_line(f"{attempt.error.type}: {attempt.error.message}"), "red")
            if attempt.error
            else "",
        )
        for attempt in attempts
    ]
    render.table(("ATTEMPT", "MET", "NODE", "ENDED", "ERROR"), rows, right=("ATTEMPT",))


def _node(info: TaskInfo) -> str | None:
    home = info.raw.get("home")
    slot = f"slot {info.slot}" if info.slot is not None else ""
    at_home = f"home {home}" if home and home != info.node else ""
    beside = ", ".join(part for part in (slot, at_home) if part)
    return f"{info.node or '-'} ({beside})" if beside else info.node


def _progress(info: TaskInfo) -> str | None:
    progress = info.progress
    if progress is None:
        return None
    share = f" of {progress.total:g} ({progress.done / progress.total:.0%})" if progress.total else ""
    return f"{progress.done:g}{share}" + (f"  {progress.message}" if progress.message else "")


def _took(info: TaskInfo) -> str | None:
    if info.started_at is None or info.finished_at is None:
        return None
    run_s = (info.finished_at - info.started_at).total_seconds()
    wait_s = (info.started_at - (info.run_at or info.created_at)).total_seconds()
    return f"{render.duration(run_s)} after waiting {render.duration(max(wait_s, 0.0))}"


def _result(info: TaskInfo) -> str | None:
    if info.state != "succeeded":
        return None
    if "result" not in info.raw:
        return f"noria result {info.id}"
    text = render.compact(info.raw["result"])
    return text if len(text) <= 200 else f"{text[:200]}… (all of it: noria result {info.id})"


def _workflow(info: TaskInfo) -> str | None:
    """Its name there, too."""
    workflow, name = info.raw.get("workflow_id"), info.raw.get("name")
    return f"{name} of {workflow}" if workflow and name else workflow


def _error_line(info: TaskInfo) -> str:
    return "" if info.error is None else _first_line(f"{info.error.type}: {info.error.message}")


def _first_line(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= 120 else line[:119] + "…"
