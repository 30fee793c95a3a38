"""`noria top` fits into any window, and shows the most needed of what there is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from node.cli.top_view import screen

STATS: dict[str, Any] = {
    "node": "n1",
    "counts": {"scheduled": 2, "ready": 1_000_007, "running": 80, "succeeded": 10_000_000, "failed": 3, "cancelled": 0,
               "succeeded_is_estimate": True, "age_s": 9.6},
    "rates": {"accepted": {"per_s": 1.0, "last": []}},
    "latency_s": {"p50": 0.012, "p99": 3.0},
    "nodes": [
        {"name": "n1", "incarnation": 4, "state": "active", "running": 80, "limit": 100,
         "rates": {"accepted": 1200.0, "succeeded": 1180.5, "failed": 0.5}},
        {"name": "n2", "incarnation": 5, "state": "draining", "running": None, "limit": None, "rates": {}},
    ],
    "lanes": [{"lane": lane, "ready": ready, "scheduled": 0, "running": 1, "oldest_s": 61.0}
              for lane, ready in (("high", 7), ("medium", 1_000_000), ("low", 0))],
    "handlers": [
        {"name": f"idle{n}", "ready": 0, "scheduled": 0, "running": 0, "oldest_s": 0.0, "paused": n == 1, "per_s": 0.0}
        for n in range(40)
    ] + [
        {"name": "shop.thumbnail", "ready": 1_000_000, "scheduled": 2, "running": 80, "oldest_s": 61.0, "paused": False,
         "per_s": 1180.5, "failed_per_s": 59.0, "p50_s": 0.0123, "p95_s": 1.5},
    ],
    "failures": [{"id": "x", "handler": "shop.thumbnail", "attempt": 3, "final": True, "error_type": "ValueError",
                  "message": "no\x1b[2J luck\nat all", "at": datetime(2020, 1, 1, tzinfo=UTC).isoformat()}],
    "hot_keys": [{"actor": "account", "key": "42", "per_s": 12.5}],
    "next_fires": [{"tenant": "default", "name": "nightly", "at": datetime(2100, 1, 1, tzinfo=UTC).isoformat()}],
}  # fmt: skip


def shown(stats: dict[str, Any], width: int, height: int | None = None, away: str = "") -> list[str]:
    lines = [
        "".join(part.text for part in line) for line in screen(stats, "http://here", width, height, away)
    ]
    assert height is None or len(lines) <= height
    for line in lines:
        assert cell_len(line) <= width
        assert line.isprintable(), "nothing steers the terminal"
    return lines


def test_a_wide_window_shows_everything() -> None:
    text = "\n".join(shown(STATS, 140, 60))
    assert "n1 at http://here" in text
    assert "3 dead letters" in text
    assert "about 10,000,000 succeeded" in text
    assert "counted 9.6s ago" in text
    assert "1,200 accepted  1,180 succeeded  0.5 failed" in text
    words = [line.split() for line in text.splitlines()]
    assert ["n1", "active", "80", "100", "████████░░", "1,200", "1,180", "0.5", "4"] in words
    assert ["n2", "draining", "5"] in words
    assert ["medium", "1,000,000", "1m", "1s", "1"] in words
    assert ["shop.thumbnail", "1,000,000", "1m", "1s", "80", "1,180", "5%", "12ms", "1.5s", "2"] in words
    assert r"ValueError: no\x1b[2J luck" in text
    assert ["account", "42", "12.5"] in words
    assert any(line[:2] == ["nightly", "default"] for line in words)
    assert "HANDLER (" in text, "it says that there are more"


def test_the_busiest_handler_stands_first_and_idle_ones_go_first() -> None:
    lines = shown(STATS, 100, 24)
    first = next(number for number, line in enumerate(lines) if line.startswith("HANDLER"))
    assert lines[first + 1].startswith("shop.thumbnail")


@pytest.mark.parametrize("width", [20, 30, 45, 60, 80])
def test_a_narrow_window_keeps_names_and_what_waits(width: int) -> None:
    lines = shown(STATS, width, 40)
    row = next(line for line in lines if line.startswith("shop.thu"))
    if width >= 30:
        assert "1,000,000" in row
        assert "1,180" in row
    if width >= 60:
        assert row.startswith("shop.thumbnail ")


def test_what_is_away_is_said_above_old_numbers() -> None:
    lines = shown(STATS, 60, 20, away="no node answers at http://here: Connection refused")
    assert lines[1] == "no node answers at http://here: Connection refused"
    assert any("1,000,007 ready" in line for line in lines)


def test_a_node_that_tells_nothing_is_no_error() -> None:
    assert shown({}, 80, 24)[0].startswith("noria top")
    assert shown({"nodes": [{}], "handlers": [{}], "lanes": [{}], "failures": [{}], "hot_keys": [{}],
                  "next_fires": [{}]}, 80, 24)  # fmt: skip


names = st.text(max_size=30)
numbers = st.none() | st.integers(0, 10**9) | st.floats(0, 1e9)
handler_rows = st.fixed_dictionaries(
    {}, optional={"name": names, "ready": st.integers(0, 10**9), "running": st.integers(0, 10**6), "per_s": numbers,
                  "failed_per_s": numbers, "p50_s": numbers, "oldest_s": numbers, "paused": st.booleans()},
)  # fmt: skip
node_rows = st.fixed_dictionaries(
    {}, optional={"name": names, "state": names, "running": st.none() | st.integers(0, 999),
                  "limit": st.none() | st.integers(0, 999), "rates": st.dictionaries(names, numbers, max_size=3)},
)  # fmt: skip
failure_rows = st.fixed_dictionaries(
    {}, optional={"handler": names, "error_type": names, "message": st.text()}
)


@given(
    handlers=st.lists(handler_rows, max_size=20),
    nodes=st.lists(node_rows, max_size=9),
    failures=st.lists(failure_rows, max_size=9),
    width=st.integers(20, 200),
    height=st.integers(5, 80),
    away=st.text(max_size=100),
)
def test_whatever_the_stats_say_it_fits(
    handlers: list[Any], nodes: list[Any], failures: list[Any], width: int, height: int, away: str
) -> None:
    shown({"handlers": handlers, "nodes": nodes, "failures": failures}, width, height, away)
