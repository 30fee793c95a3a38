"""`noria stats` for people. Any part may be missing: nodes tell only what they know."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from node.cli import render

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS_MAX = 10


def show(stats: Mapping[str, Any]) -> None:
    render.fields((
        ("node", _node(stats)),
        ("tasks", _counts(stats.get("counts") or {})),
        ("per second", _rates(stats.get("rates") or {})),
        ("latency", _latency(stats.get("latency_s") or {})),
        ("room", _room(stats.get("capacity") or {})),
    ))  # fmt: skip
    _backlog("LANE", "lane", stats.get("lanes") or [])
    _backlog("HANDLER", "name", stats.get("handlers") or [])
    _running(stats.get("running") or [])
    _failures(stats.get("failures") or [])


def _node(stats: Mapping[str, Any]) -> str:
    since = (
        f", since {render.when(datetime.fromisoformat(stats['started_at']))}"
        if stats.get("started_at")
        else ""
    )
    return f"{stats.get('node', '?')} ({stats.get('state', '?')}{since})"


def _counts(counts: Mapping[str, Any]) -> str:
    about = "about " if counts.get("succeeded_is_estimate") else ""
    words = [
        f"{about if name == 'succeeded' else ''}{render.count(counts[name])} {name}"
        for name in render.STATE_STYLE
        if isinstance(counts.get(name), int)
    ]
    age_s = counts.get("age_s")
    return ", ".join(words) + (
        f" (counted {render.duration(age_s)} ago)" if age_s is not None and words else ""
    )


def _rates(rates: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{series.get('per_s', 0):,.1f} {name}" for name, series in rates.items())


def _latency(latency: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {render.duration(seconds)}" for name, seconds in latency.items())


def _room(capacity: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(
        f"{kind} {room.get('taken', 0)} of {room.get('limit', 0)}" for kind, room in capacity.items()
    )


def _backlog(heading: str, name: str, rows: list[Mapping[str, Any]]) -> None:
    busy = [
        row
        for row in rows
        if row.get("ready") or row.get("scheduled") or row.get("running") or row.get("paused")
    ]
    if not busy:
        return
    busy.sort(key=lambda row: row.get("ready", 0) + row.get("running", 0), reverse=True)
    render.say()
    render.table(
        (heading, "READY", "SCHEDULED", "RUNNING", "OLDEST", ""),
        [
            (
                str(row[name]),
                render.count(row.get("ready", 0)),
                render.count(row.get("scheduled", 0)),
                render.count(row.get("running", 0)),
                render.duration(row["oldest_s"]) if row.get("oldest_s") else "",
                render.Styled("paused", "yellow") if row.get("paused") else "",
            )
            for row in busy[:ROWS_MAX]
        ],
        right=("READY", "SCHEDULED", "RUNNING", "OLDEST"),
    )


def _running(rows: list[Mapping[str, Any]]) -> None:
    if not rows:
        return
    render.say()
    render.table(
        ("RUNNING HERE", "HANDLER", "ATTEMPT", "FOR"),
        [
            (str(r["id"]), r["handler"], str(r["attempt"]), render.duration(r["for_s"]))
            for r in rows[:ROWS_MAX]
        ],
        right=("ATTEMPT", "FOR"),
    )


def _failures(rows: list[Mapping[str, Any]]) -> None:
    if not rows:
        return
    render.say()
    render.table(
        ("FAILED HERE", "HANDLER", "ATTEMPT", "WHEN", "ERROR"),
        [
            (
                str(r["id"]),
                r["handler"],
                f"{r['attempt']}{' (dead)' if r.get('final') else ''}",
                render.when_short(datetime.fromisoformat(r["at"])),
                render.Styled(f"{r['error_type']}: {r['message']}".splitlines()[0][:100], "red"),
            )
            for r in rows[:ROWS_MAX]
        ],
    )
