"""What is repeated until it is taken, and what becomes of a batch that fails for one of its members."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from actors.insisting import Committing, until_taken
from runtime.core.task import Verdict
from runtime.errors import Unavailable
from runtime.kernel.clock import SystemClock
from runtime.kernel.virtual import simulated

if TYPE_CHECKING:
    from collections.abc import Sequence


@simulated
async def test_later_and_later_up_to_a_bound_and_saying_why() -> None:
    clock, at_s, said = SystemClock(), list[float](), list[str]()

    async def work() -> str:
        at_s.append(clock.now_s())
        if len(at_s) <= 4:
            raise Unavailable("away")
        return "taken"

    assert (
        await until_taken(work, clock, lambda away: said.append(str(away)), first_s=1, max_s=3.5) == "taken"
    )
    assert [b - a for a, b in pairwise(at_s)] == pytest.approx([1, 2, 3.5, 3.5])
    assert said == ["away"] * 4


@simulated
async def test_neighbours_of_one_that_fails_are_committed_alone_and_it_is_refused() -> None:
    asked: list[list[int]] = []

    async def commit(batch: Sequence[int]) -> list[Verdict]:
        asked.append(list(batch))
        if 2 in batch:
            raise RuntimeError("nobody has foreseen this")
        return [Verdict.COMMITTED] * len(batch)

    verdicts = await Committing(commit, SystemClock(), "numbers", str).all([1, 2, 3])
    assert verdicts == [Verdict.COMMITTED, Verdict.REFUSED, Verdict.COMMITTED]
    assert asked == [[1, 2, 3], [1], [2], [2], [2], [3]]
