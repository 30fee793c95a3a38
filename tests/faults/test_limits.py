"""Limits on three nodes of which one is killed: never more than they say, and hardly less."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.rig import Node, Rig
from tests.support.processes import wait_until

LIMITED: Final = str(Path(__file__).with_name("limited_handlers.py"))
RATE_PER_S, BURST, MOST, MOST_PER_KEY = 100, 20, 5, 2  # as limited_handlers.py says
SECONDS: Final = float(os.environ.get("NORIA_TEST_LIMITS_S", "15"))  # 60 for the figures in docs/limits.md
KILLED_AT: Final = 0.3  # of that time

# Every attempt that began, by PostgreSQL's clock: what ended, what met something else, what runs.
ATTEMPTS: Final = """
SELECT extract(epoch FROM a.started_at)::float8 AS began, extract(epoch FROM a.ended_at)::float8 AS ended, t.limit_key
  FROM (SELECT id, started_at, finished_at AS ended_at FROM noria.outcome WHERE started_at IS NOT NULL
        UNION ALL SELECT id, started_at, ended_at FROM noria.attempt
        UNION ALL SELECT id, started_at, 'infinity' FROM noria.running) a
  JOIN noria.task t ON t.id = a.id
  JOIN noria.band b ON b.id = t.band
 WHERE b.handler = $1
 ORDER BY 1
"""


def submit(node: Node, handler: str, count: int, **fields: Any) -> None:
    for start in range(0, count, 1000):
        tasks = [{"handler": handler, **fields} for _ in range(min(1000, count - start))]
        answer = node.ask("POST", "/v1/tasks/batch", {"tasks": tasks})
        assert answer.status == 202, answer


def attempts(rig: Rig, handler: str) -> list[Any]:
    return list(rig.sql(ATTEMPTS, handler))


def most_above_rate(starts: list[float]) -> float:
    """The greatest number of starts in any window, less what the rate allows for its length."""
    ahead, least = 0.0, float("inf")
    for nth, at_s in enumerate(starts):
        least = min(least, nth - RATE_PER_S * at_s)
        ahead = max(ahead, nth + 1 - RATE_PER_S * at_s - least)
    return ahead


def most_at_once(rows: list[Any]) -> int:
    """One that ends at the moment another begins is not beside it."""
    steps = [(row["ended"], -1) for row in rows] + [(row["began"], 1) for row in rows]
    return max(accumulate(step for _, step in sorted(steps)))


def wait_for(seconds: float, since_s: float) -> None:
    wait_until(lambda: time.monotonic() - since_s >= seconds, seconds + 5, lambda: "time stands still")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("rig", ["RabbitMQ"], indirect=True)
def test_three_nodes_of_which_one_is_killed_keep_the_limits(rig: Rig) -> None:
    nodes = [rig.node(name, start=False, HANDLERS=LIMITED) for name in "abc"]
    rig.start_all()
    since_s = time.monotonic()
    submit(nodes[0], "metered", int(RATE_PER_S * SECONDS * 1.2))
    submit(nodes[1], "narrow", int(200 * SECONDS))
    for key in "xyz":
        submit(nodes[1], "by_key", int(100 * SECONDS), limit_key=key)
    wait_for(SECONDS * KILLED_AT, since_s)
    nodes[1].kill()
    submit(nodes[2], "free", 50)
    began_s = time.monotonic()
    wait_until(lambda: len(attempts(rig, "free")) == 50, 20, lambda: "what is free waits for what is limited")
    free_s = time.monotonic() - began_s
    nodes[1].start()
    wait_for(SECONDS, since_s)
    shown = nodes[0].ask("GET", "/v1/tasks?handler=metered&state=ready&limit=1").body["tasks"][0]
    found = {name: attempts(rig, name) for name in ("metered", "narrow", "by_key")}

    starts = [row["began"] for row in found["metered"]]
    ahead = most_above_rate(starts)
    length_s = starts[-1] - starts[0]
    used = len(starts) / (BURST + RATE_PER_S * length_s)
    seconds = max(bisect_right(starts, at_s + 1) - nth for nth, at_s in enumerate(starts))
    together = most_at_once(found["narrow"])
    per_key = [most_at_once([row for row in found["by_key"] if row["limit_key"] == key]) for key in "xyz"]
    print(  # noqa: T201 - the figures
        f"\n{len(starts)} starts in {length_s:.1f} s: {used:.1%} of the limit; at most {ahead:.2f} above the rate in any window"
        f" ({BURST} are allowed), {seconds} in any second; at most {together} of {MOST} at once, and of each key {per_key} of "
        f"{MOST_PER_KEY}, among {len(found['narrow'])} and {len(found['by_key'])} attempts; 50 unlimited tasks took {free_s:.2f} s"
    )  # fmt: skip
    assert ahead <= BURST + 1e-3
    assert used >= 0.95
    assert together == MOST
    assert per_key == [MOST_PER_KEY] * 3
    assert shown["waiting"]["reason"] == "rate_limit"
    assert shown["attempt"] in {0, 1}
