"""Waiting at the keyboard: what tasks do is shown on stderr while they do it, never silence.

A terminal gets a live line per task (or one bar for many); a pipe gets one line per change.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from node.cli import render
from node.cli.context import with_client
from node.client import Overloaded, Unreachable, WaitTimeout
from node.client.waiting import POLLS_AT_ONCE, bounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.progress import Progress

    from node.client import Client, ClientError, Downloaded, TaskInfo

POLL_S = 1.0  # how often progress is looked at; the end of a task is told at once
RIDE_OUT_S = 60.0  # a node that restarts meanwhile is waited for


class Watcher(Protocol):
    def saw(self, info: TaskInfo) -> None: ...

    def away(self, why: ClientError) -> None:
        """The node does not answer any more; it is asked again."""


def wait_for(ids: Sequence[str], timeout_s: float | None, *, answered: bool = False) -> list[TaskInfo]:
    """All tasks once they have ended, in order. `answered`: a node has answered this command already.

    Raises WaitTimeout (for the first that has not ended), NotFound, Unreachable.
    """
    with _watching(len(ids)) as watcher:
        try:
            return with_client(
                lambda client: _Wait(client, timeout_s, watcher, answered=answered).all_of(ids)
            )
        except KeyboardInterrupt:
            render.note(f"\nNo longer waiting; the work goes on. Again: noria wait {' '.join(ids[:5])}")
            raise


class _Wait:
    """One wait for several tasks. A node that answered once and is away then is waited for, up to RIDE_OUT_S."""

    def __init__(self, client: Client, timeout_s: float | None, watcher: Watcher, *, answered: bool) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._watcher = watcher
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._answered_s = time.monotonic() if answered else None  # when a node last did

    async def all_of(self, ids: Sequence[str]) -> list[TaskInfo]:
        return await bounded(ids, self._one, POLLS_AT_ONCE)

    async def _one(self, task_id: str) -> TaskInfo:
        while True:
            asked_s = time.monotonic()
            left_s = POLL_S if self._deadline_s is None else max(self._deadline_s - asked_s, 0.0)
            info = await self._look(task_id, min(POLL_S, left_s))
            if info is not None and info.final:
                return info
            if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
                raise WaitTimeout(task_id, self._timeout_s or 0.0, "unknown" if info is None else info.state)
            if time.monotonic() - asked_s < POLL_S / 2:  # answered early: the node drains, or is away
                await asyncio.sleep(min(POLL_S / 2, left_s))

    async def _look(self, task_id: str, wait_s: float) -> TaskInfo | None:
        try:
            info = await self._client.get(task_id, wait_s=wait_s)
        except (Unreachable, Overloaded) as exc:
            if self._answered_s is None or time.monotonic() - self._answered_s > RIDE_OUT_S:
                raise
            self._watcher.away(exc)
            return None
        self._answered_s = time.monotonic()
        self._watcher.saw(info)
        return info


# -- what is shown meanwhile ------------------------------------------------------------------------


@contextmanager
def _watching(count: int) -> Iterator[Watcher]:
    if not sys.stderr.isatty():
        yield _Lines(count)
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - slow

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(
        *columns, TimeElapsedColumn(), console=render.terminal(err=True), transient=True
    ) as progress:
        yield _Bar(progress, count)


class _Bar:
    """One task: its own progress. Many: how many have ended."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._count = count
        self._ended = 0
        self._failed = 0
        total = None if count == 1 else count
        self._row = progress.add_task("waiting" if count == 1 else f"{count} tasks", total=total, detail="")

    def away(self, why: ClientError) -> None:
        self._progress.update(self._row, detail=f"{why.detail}; trying again")

    def saw(self, info: TaskInfo) -> None:
        if self._count == 1:
            done = info.progress
            self._progress.update(
                self._row,
                description=f"{render.clean(info.handler)} {info.state}",
                completed=done.done if done else 0,
                total=done.total if done else None,
                detail=story(info),
            )
        elif info.final:
            self._ended += 1
            self._failed += info.state != "succeeded"
            detail = f"{self._ended} of {self._count} ended" + (
                f", {self._failed} failed" if self._failed else ""
            )
            self._progress.update(self._row, completed=self._ended, detail=detail)


class _Lines:
    def __init__(self, count: int) -> None:
        self._last: dict[str, str] = {}
        self._show_id = count > 1
        self._away = False

    def away(self, why: ClientError) -> None:
        if not self._away:
            render.note(f"{why.detail}; trying again")
        self._away = True

    def saw(self, info: TaskInfo) -> None:
        self._away = False
        if info.final:
            return  # how it ended is said by who waits
        line = f"{info.state}  {story(info)}".rstrip()
        if self._last.get(info.id) != line:
            self._last[info.id] = line
            render.note(f"{info.id}  {line}" if self._show_id else f"{info.handler} {line}")


def story(info: TaskInfo) -> str:
    """In a few words: why it waits, how far it is, how it ended."""
    words = []
    if info.progress is not None and not info.final:
        done = f"{info.progress.done:g}" + (f" of {info.progress.total:g}" if info.progress.total else "")
        words += [done, info.progress.message]
    if info.waiting is not None and not info.final:
        until = f", {render.relative(info.waiting.until)}" if info.waiting.until else ""
        words.append(f"{info.waiting.reason}{until}")
    if info.attempt > 1:
        words.append(f"attempt {info.attempt}")
    if info.state == "running" and info.node:
        words.append(f"on {info.node}")
    if info.error is not None:
        words.append(f"{info.error.type}: {info.error.message}".splitlines()[0][:120])
    return render.clean(", ".join(word for word in words if word))


# -- results ----------------------------------------------------------------------------------------


def print_result(task_id: str, output: Path | None = None, *, json_only: bool = False) -> None:
    """The stored result: JSON in a readable form on a terminal, else the very bytes. Raises Refused, ResultExpired."""
    if output is not None and not json_only:
        saved = _save(task_id, output)
        render.note(f"{saved.size:,} bytes ({saved.content_type}) written to {output}")
        return
    data, content_type = with_client(lambda client: client.raw_result(task_id))
    is_json = content_type == "application/json"
    if json_only and not is_json:
        raise click.UsageError(
            f"the result is {len(data):,} bytes of {content_type}, not JSON; leave --json out"
        )
    if output is not None:
        _write(output, data)
        render.note(f"{len(data):,} bytes ({content_type}) written to {output}")
    elif not sys.stdout.isatty():
        click.echo(data, nl=is_json)
    elif is_json:
        click.echo(json.dumps(json.loads(data), ensure_ascii=False, indent=2))
    else:
        raise click.UsageError(
            f"the result is {len(data):,} bytes of {content_type}; use --output FILE, or a pipe"
        )


def _save(task_id: str, path: Path) -> Downloaded:
    """Straight to the file: it may be larger than what anybody wants in memory."""
    try:
        return with_client(lambda client: client.save_result(task_id, path))
    except OSError as exc:
        raise click.UsageError(f"{path} cannot be written ({exc.strerror})") from exc


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise click.UsageError(f"{path} cannot be written ({exc.strerror})") from exc
