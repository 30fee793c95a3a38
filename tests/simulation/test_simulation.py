"""Five hundred clusters in which everything goes wrong that may. A failing seed is named with its last events; replay
it with `python -m tests.simulation.replay SEED`, and put it into REGRESSIONS.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from runtime.core.task import AttemptKind
from tests.simulation.sim_world import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEEDS: Final = 500
_CHUNK: Final = 10
REGRESSIONS: Final[tuple[int, ...]] = ()
# What has to happen in the first worlds; else all others would say nothing.
BAD_ENOUGH: Final = (
    "kills", "drains", "request_drain", "pause", "deaths", "read themselves dead", "cut from the record",
    "record away", "record frozen", "cut from the views", "cut from the broker", "cut from both", "silent", "deaf",
    "no broker", "messages lost", "messages doubled", "messages late", "cancels", "unique found", "claimed by offer",
    "claimed by pull", "claimed by limit", "Replaced", "3 crashes", "succeeded", "failed", "cancelled",
    *(kind.name for kind in AttemptKind if kind is not AttemptKind.REPLAYED),
)  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of expected warnings would be kept for a report."""
    level = logging.getLogger("actors").level
    logging.getLogger("actors").setLevel(logging.ERROR)
    yield
    logging.getLogger("actors").setLevel(level)


@pytest.mark.parametrize(
    "seeds", [*(range(first, first + _CHUNK) for first in range(0, SEEDS, _CHUNK)), REGRESSIONS], ids=str
)
def test_whatever_goes_wrong_nothing_is_lost_and_nothing_counts_twice(seeds: Sequence[int]) -> None:
    for seed in seeds:
        simulate(seed)


def test_these_worlds_are_bad_enough() -> None:
    """Else the tests above would say nothing."""
    seen: Counter[str] = Counter()
    for seed in range(25):
        world = simulate(seed)
        seen += world.history.counts
        tables = world.record.tables
        seen.update(str(outcome.status.state) for outcome in tables.outcomes.values())
        seen.update(each.kind.name for attempts in tables.attempts.values() for each in attempts.values())
        seen.update(f"{outcome.crashes} crashes" for outcome in tables.outcomes.values())
        seen.update(outcome.error.type for outcome in tables.outcomes.values() if outcome.error)
    assert all(seen[each] >= 2 for each in BAD_ENOUGH), seen


def test_one_seed_has_one_history_in_every_process() -> None:
    here = [simulate(7).history.fingerprint for _ in range(2)]
    there = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation.replay", "7", "--fingerprint"],
            env={"PYTHONHASHSEED": hash_seed, "PATH": ""}, capture_output=True, text=True, check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert {*here, *there} == {here[0]}
