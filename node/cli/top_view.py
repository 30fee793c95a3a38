"""What `noria top` shows, as lines of text that fit into so many columns and rows.

Law: pure; any field of the stats may be missing, and no text from the cluster steers the terminal. In a narrow window
columns go, the least needed first; in a low one rows of the longer lists, then whole lists from below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from node.cli.render import Cell, Styled, clean, count, duration, relative

Row = Mapping[str, Any]
Line = tuple[Styled, ...]

_GAP: Final = "  "
_NAME_MIN: Final = 10  # cells that the first column keeps, whatever goes
_BAR: Final = 10
_STATES: Final = {"active": "green", "draining": "yellow", "unreachable": "bold yellow", "joining": "cyan"}


@dataclass(frozen=True, slots=True)
class Column:
    """`rank` 0 always stays; the highest goes first."""

    title: str
    cell: Callable[[Row], Cell]
    rank: int = 0
    left: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A list of the screen. `least`: rows it gets before any other gets more."""

    columns: tuple[Column, ...]
    rows: Sequence[Row]
    least: int


def screen(stats: Row, place: str, width: int, height: int | None = None, away: str = "") -> list[Line]:
    """At most `height` lines (None: as many as it takes) of at most `width` cells. `away`: why these are old news."""
    head = _head(stats, place, away)
    sections = [section for section in _sections(stats) if section.rows]
    lines = head
    for section, rows in zip(sections, _shares(sections, height, len(head)), strict=True):
        if rows:
            lines += [(), *_table(section, rows, width)]
    return [_crop(line, width) for line in lines[:height]]


def _shares(sections: Sequence[Section], height: int | None, head: int) -> list[int]:
    """Rows for each section: the least for all, from above; then what is left, from above again."""
    if height is None:
        return [len(section.rows) for section in sections]
    left = height - head
    shares = [0] * len(sections)
    for number, section in enumerate(sections):
        frame = 2  # an empty line and the titles
        if left > frame:
            shares[number] = min(section.least, len(section.rows), left - frame)
            left -= frame + shares[number]
    for number, section in enumerate(sections):
        if shares[number]:
            more = min(len(section.rows) - shares[number], left)
            shares[number] += more
            left -= more
    return shares


# -- the head ---------------------------------------------------------------------------------------


def _head(stats: Row, place: str, away: str) -> list[Line]:
    counts: Row = stats.get("counts") or {}
    node = _one_line(f"{stats.get('node', '?')} at {place}")
    title = Styled("noria top", "bold"), Styled(f"{_GAP}{node}", "dim"), Styled(f"{_GAP}q quits", "dim")
    if away:
        return [title, (Styled(_one_line(away), "bold red"),), _tasks(counts), _rates(stats)]
    return [title, _tasks(counts), _rates(stats)]


def _tasks(counts: Row) -> Line:
    """The record as it was last counted."""
    about = "about " if counts.get("succeeded_is_estimate") else ""
    words = [
        ("ready", "blue", ""), ("running", "bold blue", ""), ("scheduled", "cyan", ""), ("blocked", "yellow", ""),
        ("succeeded", "green", about), ("cancelled", "magenta", ""),
    ]  # fmt: skip
    parts = [Styled("tasks     ", "dim")]
    if isinstance(counts.get("failed"), int):
        dead = int(counts["failed"])
        parts.append(Styled(f"{count(dead)} dead letters{_GAP}", "bold red" if dead else ""))
    for name, style, before in words:
        if isinstance(counts.get(name), int) and (counts[name] or name != "blocked"):
            parts.append(
                Styled(f"{before}{count(counts[name])} {name}{_GAP}", style if counts[name] else "dim")
            )
    if counts.get("age_s", 0) >= 2:
        parts.append(Styled(f"counted {duration(counts['age_s'])} ago", "dim"))
    return tuple(parts)


def _rates(stats: Row) -> Line:
    """Of all nodes together where they tell; how long tasks take, of the node that answers."""
    nodes = stats.get("nodes") or []
    parts = [Styled("per second", "dim")]
    for name in ("accepted", "succeeded", "failed", "cancelled"):
        total = sum(_number((node.get("rates") or {}).get(name)) for node in nodes)
        style = "bold red" if name == "failed" and total else "" if total else "dim"
        parts.append(Styled(f"{_GAP if len(parts) > 1 else ' '}{_rate(total) or '0'} {name}", style))
    for name, seconds in (stats.get("latency_s") or {}).items():
        parts.append(Styled(f"{_GAP}{name} {duration(seconds)}", "dim"))
    return tuple(parts)


# -- the lists --------------------------------------------------------------------------------------


def _sections(stats: Row) -> list[Section]:
    handlers = sorted(stats.get("handlers") or [], key=_busy_first)
    tenants = stats.get("tenants") or []
    return [
        Section(_NODES, stats.get("nodes") or [], 5),
        Section(_LANES, stats.get("lanes") or [], 3),
        Section(_HANDLERS, handlers, 8),
        Section(_TENANTS, tenants if len(tenants) > 1 else [], 4),
        Section(_FAILURES, stats.get("failures") or [], 4),
        Section(_KEYS, stats.get("hot_keys") or [], 3),
        Section(_FIRES, stats.get("next_fires") or [], 3),
    ]


def _busy_first(row: Row) -> tuple[float, str]:
    busy = (
        row.get("ready", 0)
        + row.get("running", 0)
        + _number(row.get("per_s"))
        + _number(row.get("failed_per_s"))
    )
    return -busy, str(row.get("name"))


def _state(row: Row) -> Cell:
    name = _one_line(str(row.get("state", "")))
    return Styled(name, _STATES.get(name, "red"))


def _used(row: Row) -> Cell:
    """How full a node is, as a bar."""
    if not row.get("limit") or row.get("running") is None:
        return ""
    share = min(1.0, row["running"] / row["limit"])
    full = round(share * _BAR)
    return Styled("█" * full + "░" * (_BAR - full), "yellow" if share > 0.9 else "cyan")


def _of(name: str) -> Callable[[Row], Cell]:
    return lambda row: _rate(_number((row.get("rates") or {}).get(name)))


def _counted(name: str, zero: str = "0") -> Callable[[Row], Cell]:
    return lambda row: count(row[name]) if row.get(name) else Styled(zero, "dim")


def _lasted(name: str) -> Callable[[Row], Cell]:
    return lambda row: ("<1ms" if row[name] < 0.001 else duration(row[name])) if row.get(name) else ""


def _rated(name: str) -> Callable[[Row], Cell]:
    return lambda row: _rate(_number(row.get(name)))


def _failing(row: Row) -> Cell:
    """Attempts of it that fail, as a share."""
    failed = _number(row.get("failed_per_s"))
    ended = failed + _number(row.get("per_s"))
    return Styled(f"{failed / ended:.0%}", "red") if failed else ""


def _text(name: str) -> Callable[[Row], Cell]:
    return lambda row: _one_line(str(row.get(name, "")))


def _whole(name: str) -> Callable[[Row], Cell]:
    return lambda row: "" if row.get(name) is None else count(row[name])


_NODES: Final = (
    Column("NODE", _text("name"), left=True),
    Column("STATE", _state, left=True),
    Column("RUNNING", _whole("running")),
    Column("OF", _whole("limit"), 2),
    Column("", _used, 4, left=True),
    Column("ACCEPTED/S", _of("accepted"), 3),
    Column("DONE/S", _of("succeeded")),
    Column("FAILED/S", _of("failed"), 1),
    Column("START", _whole("incarnation"), 5),
)
_LANES: Final = (
    Column("LANE", _text("lane"), left=True),
    Column("READY", _counted("ready")),
    Column("OLDEST", _lasted("oldest_s")),
    Column("RUNNING", _counted("running"), 1),
    Column("SCHEDULED", _counted("scheduled", zero=""), 2),
)
_HANDLERS: Final = (
    Column("HANDLER", _text("name"), left=True),
    Column("", lambda row: Styled("paused", "yellow") if row.get("paused") else "", 2, left=True),
    Column("READY", _counted("ready")),
    Column("OLDEST", _lasted("oldest_s"), 3),
    Column("RUNNING", _counted("running"), 1),
    Column("DONE/S", _rated("per_s")),
    Column("FAILING", _failing, 2),
    Column("P50", _lasted("p50_s"), 5),
    Column("P95", _lasted("p95_s"), 4),
    Column("SCHEDULED", _counted("scheduled", zero=""), 6),
)
_TENANTS: Final = (
    Column("TENANT", _text("name"), left=True),
    Column("WEIGHT", _whole("weight"), 2),
    Column("READY", _counted("ready")),
    Column("OLDEST", _lasted("oldest_s"), 1),
    Column("RUNNING", _counted("running"), 3),
)
_FAILURES: Final = (
    Column("FAILED HERE", _text("handler"), left=True),
    Column("AGO", lambda row: _since(row.get("at")), 1),
    Column("", lambda row: Styled("dead", "bold red") if row.get("final") else "retried", 2, left=True),
    Column(
        "ERROR",
        lambda row: Styled(_one_line(f"{row.get('error_type')}: {row.get('message')}"), "red"),
        left=True,
    ),
)
_KEYS: Final = (
    Column("HOT ACTOR", _text("actor"), left=True),
    Column("KEY", _text("key"), left=True),
    Column("MESSAGES/S", _rated("per_s"), 1),
)
_FIRES: Final = (
    Column("NEXT SCHEDULE", _text("name"), left=True),
    Column("TENANT", _text("tenant"), 1, left=True),
    Column(
        "FIRES", lambda row: relative(datetime.fromisoformat(row["at"])) if row.get("at") else "", left=True
    ),
)


# -- cells ------------------------------------------------------------------------------------------


def _table(section: Section, most: int, width: int) -> list[Line]:
    """Titles and at most so many rows; the first title says when there are more."""
    shown = section.rows[:most]
    titles = [column.title for column in section.columns]
    if len(shown) < len(section.rows):
        titles[0] += f" ({len(shown)} of {len(section.rows)})"
    cells = [[_styled(column.cell(row)) for column in section.columns] for row in shown]
    sizes = [
        max([cell_len(title), *(cell_len(line[number].text) for line in cells)])
        for number, title in enumerate(titles)
    ]
    kept = _fitting(section.columns, sizes, width)
    head = [Styled(title, "bold") for title in titles]
    return [_line(section.columns, line, kept, sizes) for line in (head, *cells)]


def _fitting(columns: Sequence[Column], sizes: list[int], width: int) -> list[int]:
    """Which columns stay; the first is made narrower in `sizes` before one of rank 0 would be cut."""
    kept = list(range(len(columns)))
    over = sum(sizes) + len(_GAP) * (len(kept) - 1) - width
    while over > max(0, sizes[0] - _NAME_MIN):
        least = max(kept, key=lambda number: columns[number].rank)
        if not columns[least].rank:
            break
        kept.remove(least)
        over -= sizes[least] + len(_GAP)
    if over > 0 and not columns[kept[-1]].left:  # where the last column is a text, that one is cut
        sizes[0] = max(min(sizes[0], _NAME_MIN), sizes[0] - over)
    return kept


def _line(
    columns: Sequence[Column], cells: Sequence[Styled], kept: Sequence[int], sizes: Sequence[int]
) -> Line:
    parts: list[Styled] = []
    for number in kept:
        text, style = cells[number]
        size = sizes[number]
        if cell_len(text) > size:
            text = set_cell_size(text, size - 1) + "…"
        space = " " * (size - cell_len(text))
        parts.append(Styled(text + space if columns[number].left else space + text, style))
        parts.append(Styled(_GAP, ""))
    return tuple(parts[:-1])


def _crop(line: Line, width: int) -> Line:
    parts: list[Styled] = []
    for text, style in line:
        size = cell_len(text)
        parts.append(Styled(text if size <= width else set_cell_size(text, width), style))
        width -= min(size, width)
    return tuple(part for part in parts if part.text)


def _styled(cell: Cell) -> Styled:
    return Styled(cell, "") if isinstance(cell, str) else cell


def _one_line(text: str) -> str:
    return clean(text.partition("\n")[0]).replace("\t", " ")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _rate(per_s: float) -> str:
    """Empty where there is nothing."""
    if not per_s:
        return ""
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}"


def _since(at: object) -> str:
    return (
        duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(str(at))).total_seconds()))
        if at
        else ""
    )
