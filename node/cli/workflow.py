"""`noria workflow …`: tasks that wait for each other, drawn and cancelled."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from node.cli.context import JSON, reaches_node, with_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from node.client import WorkflowInfo, WorkflowTaskInfo

ID = click.argument("workflow_id", metavar="ID")
_TASKS_MAX: Final = 10_000
_ALIKE_MAX: Final = 8  # more of one kind are one line
_PARENTS_MAX: Final = 4
_MARKS: Final = {
    "blocked": "·",
    "scheduled": "~",
    "ready": "○",
    "running": "▶",
    "succeeded": "✓",
    "failed": "✗",
    "cancelled": "-",
}


@click.group(short_help="Show, list or cancel workflows.")
def workflow() -> None:
    """A workflow is a set of tasks that wait for each other."""


@workflow.command("show", short_help="Draw one.")
@ID
@click.option("--all", "everything", is_flag=True, help="A line for every task, however many are alike.")
@JSON
@reaches_node
def show(workflow_id: str, *, everything: bool, as_json: bool) -> None:
    """Draw the workflow ID: what runs side by side, what waits for what, and how each task stands."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.workflow(workflow_id, tasks=_TASKS_MAX))
    if as_json:
        render.print_json(found.raw)
        return
    render.say(_headline(found))
    render.say()
    for line in draw(found, alike_max=found.total if everything else _ALIKE_MAX):
        render.say(line)
    if len(found.tasks) < found.total:
        render.note(f"{render.count(found.total - len(found.tasks))} more tasks are not shown")


@workflow.command("list", short_help="List the newest.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")
@JSON
@reaches_node
def list_workflows(*, limit: int, as_json: bool) -> None:
    """List workflows, newest first, and how far each is."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.workflows(limit=limit))
    if as_json:
        render.print_json({"workflows": [one.raw for one in found]})
    elif found:
        rows = [
            (
                one.id,
                render.state(one.state),
                f"{one.ended} of {one.total}",
                _counts(one.counts),
                render.when_short(one.created_at),
            )
            for one in found
        ]
        render.table(("WORKFLOW", "STATE", "ENDED", "TASKS", "CREATED"), rows)
    else:
        render.note("no workflows")


@workflow.command("cancel", short_help="Cancel one.")
@ID
@JSON
@reaches_node
def cancel(workflow_id: str, *, as_json: bool) -> None:
    """Cancel every task of the workflow ID that has not ended. Those that run are asked to end."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    found = with_client(lambda client: client.cancel_workflow(workflow_id))
    if as_json:
        render.print_json(found.raw)
    else:
        render.note(f"{found.id}  {found.state}: {_counts(found.counts)}")


# -- drawing ------------------------------------------------------------------------------------------


def _headline(found: WorkflowInfo) -> Any:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    share = 100 * found.ended // max(found.total, 1)
    text = f"workflow {found.id}  {found.state}, {found.ended} of {found.total} ended ({share} %)"
    return render.Styled(text, render.STATE_STYLE.get(found.state, ""))


def draw(found: WorkflowInfo, *, alike_max: int = _ALIKE_MAX) -> Iterator[Any]:
    """Lines, from above to below: each layer holds what may run at the same time."""
    from node.cli import render  # noqa: PLC0415 - not needed for --help
    from runtime.core.workflow import layers  # noqa: PLC0415 - not needed for --help

    tasks = {task.id: task for task in found.tasks}
    names = {task.id: task.name or task.id for task in found.tasks}
    for nth, layer in enumerate(layers({task.id: task.depends_on for task in found.tasks})):
        if nth:
            yield "  │"
        kinds: dict[tuple[str, tuple[str, ...]], list[WorkflowTaskInfo]] = {}
        for task_id in layer:
            kinds.setdefault((tasks[task_id].handler, tasks[task_id].depends_on), []).append(tasks[task_id])
        for (_, parents), alike in kinds.items():
            after = _after([names.get(parent, parent) for parent in parents])
            if len(alike) > alike_max:
                yield _many(alike, names, after)
                continue
            for task in alike:
                text = f"  {_MARKS[task.state]} {names[task.id]}{_handler(task)}  {task.state}{_why(task)}{after}"
                yield render.Styled(text, render.STATE_STYLE[task.state])


def _many(alike: Sequence[WorkflowTaskInfo], names: dict[str, str], after: str) -> Any:
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    counts = Counter(task.state for task in alike)
    state = next(iter(counts)) if len(counts) == 1 else "running"
    text = f"  {_MARKS[state]} {names[alike[0].id]} … {names[alike[-1].id]} ({len(alike)})  {_counts(counts)}{after}"
    return render.Styled(text, render.STATE_STYLE["failed" if counts["failed"] else state])


def _handler(task: WorkflowTaskInfo) -> str:
    return "" if task.name is not None and task.name.startswith(task.handler) else f" ({task.handler})"


def _why(task: WorkflowTaskInfo) -> str:
    if task.error is None:
        return ""
    if task.error.type == "ParentFailed":  # which one, the arrow tells
        return f" ({task.error.type})"
    return f" ({task.error.type}: {task.error.message.partition(chr(10))[0]:.80})"


def _after(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _PARENTS_MAX} more" if len(names) > _PARENTS_MAX else ""
    return f"  ← {', '.join(names[:_PARENTS_MAX])}{more}"


def _counts(counts: Any) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in _MARKS if counts.get(state))
