"""What the demos show while they work: moving bars in a terminal, a line a second elsewhere. Never silence."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(highlight=False)


@contextlib.asynccontextmanager
async def doing(what: str) -> AsyncIterator[None]:
    """In this block something is done that has no steps to count."""
    began_s = time.monotonic()
    async with _lines(lambda: f"{what} ... {time.monotonic() - began_s:.0f} s"):
        with console.status(what):
            yield


@contextlib.asynccontextmanager
async def bars() -> AsyncIterator[Progress]:
    """Add a task to it for each bar; `advance` it as the work gets on."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        async with _lines(
            lambda: "  ".join(f"{t.description} {t.completed:.0f} of {t.total:.0f}" for t in progress.tasks)
        ):
            yield progress


@contextlib.asynccontextmanager
async def _lines(what: Callable[[], str]) -> AsyncIterator[None]:
    async def tell() -> None:
        while not console.is_terminal:
            console.print(what())
            await asyncio.sleep(1)

    teller = asyncio.create_task(tell())
    try:
        yield
    finally:
        teller.cancel()
