from __future__ import annotations

from dataclasses import asdict, replace

import orjson
import pytest

from loadtests import render
from loadtests.cluster import claims_in
from loadtests.driver import Mark, Played, Used, progress
from loadtests.journal import Entry
from loadtests.record import End, Record, Task
from loadtests.report import Latency, Report, figures, latency, takeover
from loadtests.scenarios import SCENARIOS

BEGAN_S = 1000.0
ENTRIES = [
    Entry(BEGAN_S, 0.1, 0, "load.rest", ["k", "l"], 202, ids=["x", "y"], new=[True, True]),
    Entry(BEGAN_S + 1, 0.2, 1, "load.rest", ["k"], 200, ids=["x"], new=[False]),
    Entry(BEGAN_S + 1, 0.3, 1, "load.rest", ["m"]),
    Entry(BEGAN_S + 3, 0.0, 0, "load.rest", ["n"], cut=True),
]
RECORD = Record(
    tasks={
        "x": Task("x", "k", "load.rest", "high", BEGAN_S + 0.05),
        "y": Task("y", "l", "load.rest", "low", BEGAN_S + 0.05),
    },
    outcomes=[],
    ends={"x": End(BEGAN_S + 0.55, "a"), "y": End(BEGAN_S + 4.05, "c")},
    crashed_s=[BEGAN_S + 7.0, BEGAN_S + 8.5],
)
PLAYED = Played(
    SCENARIOS[4],
    users=2,
    seconds=3.0,
    entries=ENTRIES,
    marks=[Mark(BEGAN_S + 2.5, "node b is killed with -9")],
    used=[Used(1.0, {"Locust": 0.5, "nodes": 4.0}), Used(3.0, {"Locust": 1.5, "nodes": 5.0})],
    drained_s=1.0,
)


def report(*findings: str) -> Report:
    return Report(
        "now", {"machine": "2 cores"}, [figures(PLAYED, RECORD)], list(findings), tasks=2, outcomes=2
    )


def test_figures() -> None:
    found = figures(PLAYED, RECORD)
    assert (found.requests, found.tasks, found.duplicates) == (4, 2, 1)
    assert found.answers == {"202": 1, "200": 1, "none": 1, "cut": 1}
    assert found.load_s == 3.0
    assert found.finished_per_s == pytest.approx(2 / 4.05)
    assert found.answer == Latency(200.0, 200.0, 200.0)
    assert set(found.outcome) == {"all", "high", "low"}
    assert found.outcome["high"].p50_ms == pytest.approx(500)
    assert found.outcome["low"].p50_ms == pytest.approx(4000)
    assert found.outcomes_by_node == {"a": 1, "c": 1}
    assert found.cpu_cores == {"Locust": 0.5, "nodes": 0.5}
    assert found.marks == [(2.5, "node b is killed with -9")]


def test_series_have_one_value_per_second_to_the_last_outcome() -> None:
    found = figures(PLAYED, RECORD).series
    assert found.requests == [1, 2, 0, 1, 0]
    assert found.accepted == [2, 1, 0, 0, 0]
    assert found.not_accepted == [0, 1, 0, 0, 0]
    assert found.finished == [1, 0, 0, 0, 1]
    assert found.p99_ms == [pytest.approx(100), pytest.approx(200), None, None, None]


def test_one_lane_is_not_told_apart() -> None:
    tasks = {name: replace(task, lane="medium") for name, task in RECORD.tasks.items()}
    assert set(figures(PLAYED, replace(RECORD, tasks=tasks)).outcome) == {"all"}


def test_nothing_at_all_has_figures_too() -> None:
    found = figures(replace(PLAYED, entries=[], used=[]), RECORD)
    assert (found.requests, found.tasks, found.cpu_cores) == (0, 0, {})


def test_percentiles() -> None:
    assert latency([float(n) for n in range(1, 101)]) == Latency(51.0, 100.0, 100.0)


def test_takeover_is_counted_from_the_kill() -> None:
    assert takeover([PLAYED], RECORD) == (2, 6.0)
    assert takeover([replace(PLAYED, marks=[])], RECORD) == (2, None)
    assert takeover([PLAYED], replace(RECORD, crashed_s=[])) == (0, None)


def test_the_report_says_what_is_wrong() -> None:
    sound, not_sound = report(), report("note-3 is lost")
    assert "**Sound**" in render.markdown(sound)
    assert "**Not sound**: 1 findings" in render.markdown(not_sound)
    assert "* **note-3 is lost**" in render.markdown(not_sound)
    assert (sound.sound, not_sound.sound) == (True, False)


def test_the_report_has_each_scenario_with_its_picture_and_marks() -> None:
    text = render.markdown(report())
    assert "| mixed priorities | 1 | 1 | 0 | 200 ms / 200 ms | 4000 ms / 4000 ms | 1 of 4 | 1.0 s |" in text
    assert "![mixed priorities](MixedPriorities.png)" in text
    assert "after 2.5 s node b is killed with -9" in text
    assert len(render.table(report()).rows) == 1


def test_the_report_is_data() -> None:
    again = orjson.loads(orjson.dumps(asdict(report())))
    assert again["scenarios"][0]["series"]["p50_ms"][2] is None


def test_progress_says_what_was_not_accepted() -> None:
    assert "starting 2 callers" in progress(replace(PLAYED, entries=[]), [])
    line = progress(PLAYED, ENTRIES)
    assert "3 of 3 s" in line
    assert "3 tasks answered" in line
    assert line.endswith("1 times no answer")


def test_claims_are_read_from_metrics() -> None:
    text = (
        "# HELP noria_tasks_claimed_total Attempts\n"
        'noria_tasks_claimed_total{via="born"} 300.0\nnoria_tasks_claimed_total{via="pull"} 4.76e+04\n'
        'noria_tasks_claimed_created{via="pull"} 1.7e+09\n'
    )
    assert claims_in(text) == {"born": 300, "pull": 47600}
