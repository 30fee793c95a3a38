"""What people and programs read. Answers go to stdout, everything about the way there to stderr.

A terminal gets tables with colours; a pipe gets the same columns, uncut and plain; `--json` gets the node's JSON.
rich is imported for terminals only: it is the slowest part of a small command.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

STATE_STYLE: Final = {
    "blocked": "yellow",
    "scheduled": "cyan",
    "ready": "blue",
    "running": "bold blue",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
}


class Styled(NamedTuple):
    """A text with the colours that a terminal gives it."""

    text: str
    style: str


Cell = str | Styled


def state(name: str) -> Styled:
    return Styled(name, STATE_STYLE.get(name, ""))


# -- out --------------------------------------------------------------------------------------------


@cache
def terminal(*, err: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415 - slow to import

    return Console(stderr=err, highlight=False, soft_wrap=err)


def print_json(value: object) -> None:
    """The only thing that `--json` writes to stdout. Integers of any size stay exact."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def note(text: str) -> None:
    """A line on stderr, for people."""
    click.echo(clean(text), err=True)


def say(cell: Cell = "", *, err: bool = False) -> None:
    """A line (or several) for people."""
    if (sys.stderr if err else sys.stdout).isatty():
        terminal(err=err).print(_rich(cell), soft_wrap=True)
    else:
        click.echo(_plain(cell), err=err)


def say_parts(parts: Sequence[Styled]) -> None:
    """A line in several colours."""
    if sys.stdout.isatty():
        from rich.text import Text  # noqa: PLC0415 - slow to import

        terminal().print(Text.assemble(*((_plain(part), part.style) for part in parts)), soft_wrap=True)
    else:
        click.echo("".join(map(_plain, parts)).rstrip())


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, right: Iterable[str] = ()) -> None:
    """`right` names the columns that are aligned to the right."""
    to_right = [column in set(right) for column in columns]
    if not sys.stdout.isatty():
        _plain_table([list(columns), *([_plain(cell) for cell in row] for row in rows)], to_right)
        return
    from rich import box  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - slow to import

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        # the first column is an id or a name: what people copy
        grid.add_column(column, justify="right" if to_right[index] else "left", no_wrap=index == 0)
    for row in rows:
        grid.add_row(*(_rich(cell) for cell in row))
    terminal().print(grid)


def fields(pairs: Iterable[tuple[str, Cell | None]]) -> None:
    """One line per field that has a value."""
    shown = [(name, value) for name, value in pairs if value]
    if not sys.stdout.isatty():
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            click.echo(f"{name:<{width}}  " + _plain(value).replace("\n", "\n" + " " * (width + 2)))
        return
    from rich.table import Table  # noqa: PLC0415 - slow to import

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in shown:
        grid.add_row(name, _rich(value))
    terminal().print(grid)


def _plain_table(rows: list[list[str]], to_right: list[bool]) -> None:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_right, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def clean(text: str) -> str:
    """Control characters made visible: what a handler wrote must not steer the reader's terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _plain(cell: Cell) -> str:
    return clean(cell if isinstance(cell, str) else cell.text)


def _rich(cell: Cell) -> Text:
    from rich.text import Text  # noqa: PLC0415 - slow to import

    return Text(_plain(cell), style="" if isinstance(cell, str) else cell.style)


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
