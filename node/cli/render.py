"""What people and programs read. Answers go to stdout, everything about the way there to stderr.

A terminal gets tables with colours; a pipe gets the same columns unwrapped and uncut; `--json` gets the node's JSON.
rich is imported where it is used: it is the slowest part of a small command.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

PIPE_WIDTH = 1_000_000  # rich cuts columns to the width; a pipe has none
STATE_STYLE = {
    "blocked": "yellow",
    "scheduled": "cyan",
    "ready": "blue",
    "running": "bold blue",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
}


@cache
def out() -> Console:
    from rich.console import Console  # noqa: PLC0415 - slow to import

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


@cache
def notes() -> Console:
    from rich.console import Console  # noqa: PLC0415 - slow to import

    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """The only thing that `--json` writes to stdout. Integers of any size stay exact."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def note(text: str) -> None:
    """A line on stderr, for people."""
    click.echo(text, err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Iterable[str] = ()) -> None:
    """`right` names the columns that are aligned to the right."""
    from rich import box  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - slow to import

    terminal = out().is_terminal
    grid = Table(
        box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False, header_style="bold"
    )
    numeric = set(right)
    for index, column in enumerate(columns):
        grid.add_column(
            column, justify="right" if column in numeric else "left", no_wrap=not terminal or index == 0
        )
    for row in rows:
        grid.add_row(*(_text(cell) for cell in row))
    out().print(grid)


def fields(pairs: Iterable[tuple[str, str | Text | None]]) -> None:
    """One line per field that has a value."""
    from rich.table import Table  # noqa: PLC0415 - slow to import

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            grid.add_row(name, _text(value))
    out().print(grid)


def state(name: str) -> Text:
    return styled(name, STATE_STYLE.get(name, ""))


def styled(text: str, style: str) -> Text:
    from rich.text import Text  # noqa: PLC0415 - slow to import

    return Text(clean(text), style=style)


def clean(text: str) -> str:
    """Control characters made visible: what a handler wrote must not steer the reader's terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _text(cell: str | Text) -> Text:
    return styled(cell, "") if isinstance(cell, str) else cell


# -- numbers and times ------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Two units at most: 350ms, 4.2s, 3m 20s, 5h 3m, 2d 4h."""
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f" {rest}{smaller_unit}" if rest else "")
    return f"{whole}s"


def relative(at: datetime, now: datetime | None = None) -> str:
    """'3m 20s ago' or 'in 5s'."""
    ahead_s = (at - (now or datetime.now(UTC))).total_seconds()
    if abs(ahead_s) < 1:
        return "now"
    rounded = duration(abs(ahead_s) if abs(ahead_s) >= 60 else float(int(abs(ahead_s))))
    return f"in {rounded}" if ahead_s > 0 else f"{rounded} ago"


def absolute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def when(at: datetime | None) -> str | None:
    """Absolute and relative, as status shows it."""
    return None if at is None else f"{absolute(at)} ({relative(at)})"


def when_short(at: datetime | None) -> str:
    """For a column: the clock time (with the date if it is another day) and how long ago."""
    if at is None:
        return ""
    at = at.astimezone(UTC)
    shown = at.strftime("%H:%M:%SZ" if at.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%SZ")
    return f"{shown} ({relative(at)})"


def count(number: float) -> str:
    return f"{number:,.0f}"


def compact(value: Mapping[str, Any] | Sequence[Any] | object) -> str:
    return json.dumps(value, ensure_ascii=False)
