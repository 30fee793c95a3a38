"""`noria new`: a folder to start from, with a handler, a test that needs no service, and what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from node.cli.context import DEBUG

_HANDLERS: Final = '''"""Handlers of {name}. Serve them with `noria dev`; a saved change is live at once."""

from __future__ import annotations

from actors import Context, Fail, Retry, handler


@handler(timeout_s=30, max_attempts=5)
async def greet(ctx: Context, name: str) -> str:
    """Greet somebody by name."""
    if not name:
        raise Fail("nobody to greet")  # final: a dead letter, see `noria dead list`
    if name == "later" and ctx.failures == 0:
        raise Retry("not yet", after_s=5)  # counts as a failure and runs again
    return f"Hello, {{name}}!"


@handler
def average(ctx: Context, numbers: list[float]) -> float:
    """A plain function runs in a thread; with cpu=True in a process of its own."""
    return sum(numbers) / len(numbers)
'''

_TESTS: Final = '''"""No service, no waiting: tasks run in this process, on a clock that the test moves."""

from __future__ import annotations

import asyncio

from actors import Harness, task

from handlers import average, greet


def test_greet() -> None:
    async def scenario() -> None:
        async with Harness(greet) as harness:
            t = await harness.submit(task(greet, name="Ann"))
            assert t.result == "Hello, Ann!"

    asyncio.run(scenario())


def test_greet_later() -> None:
    async def scenario() -> None:
        async with Harness(greet) as harness:
            t = await harness.submit(task(greet, name="later"))
            assert (t.state, t.failures) == ("scheduled", 1)
            await harness.advance(5)  # seconds, and none of them is waited for
            assert t.result == "Hello, later!"

    asyncio.run(scenario())


def test_nobody_to_greet() -> None:
    async def scenario() -> None:
        async with Harness(greet) as harness:
            t = await harness.submit(task(greet, name=""))
            assert t.state == "failed"
            assert t.error is not None
            assert t.error.message == "nobody to greet"

    asyncio.run(scenario())


def test_average() -> None:
    async def scenario() -> None:
        async with Harness(average) as harness:
            t = await harness.submit(task(average, numbers=[1, 2, 3]))
            assert t.result == 2

    asyncio.run(scenario())
'''

_README: Final = """# {name}

    noria dev                             # serves handlers.py with its own PostgreSQL, reloads on save
    noria submit greet name=Ann --wait    # in another terminal: prints "Hello, Ann!"
    noria submit average numbers:='[1, 2, 3]' --wait
    noria tasks                           # what became of them; noria status ID, noria dead list, noria stats
    pytest                                # the tests, without any service

From Python:

    from actors import task
    from handlers import greet
    from node.client import Client

    async with Client() as client:
        print(await client.call(task(greet, name="Ann"), timeout_s=30))
"""

_FILES: Final = {
    "handlers.py": _HANDLERS,
    "test_handlers.py": _TESTS,
    "README.md": _README,
    ".gitignore": ".noria/\n__pycache__/\n",
}


@click.command(short_help="A folder to start from.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@DEBUG
def new(folder: Path) -> None:
    """Make FOLDER with a handler, a test for it that needs no service, and a README. Overwrites nothing."""
    there = [name for name in _FILES if (folder / name).exists()]
    if there:
        raise click.UsageError(f"{folder} already has {', '.join(there)}; nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _FILES.items():
            (folder / name).write_text(text.format(name=folder.resolve().name), encoding="utf-8")
    except OSError as exc:
        raise click.UsageError(f"{folder} cannot be written ({exc.strerror})") from exc
    for name in _FILES:
        click.echo(folder / name)
    click.echo(f"\nnow: cd {folder} && noria dev", err=True)
