"""What is the memory store's own: its sorted sets, its clock, and that its cost does not grow with what waits."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.adapters.memory import ordered
from runtime.adapters.memory.ordered import Ordered
from runtime.core.task import Finish, Status, Take
from tests.support.factories import new_task, settlement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.world import MemoryWorld

keys = st.integers(0, 60)


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Iterator[None]:
    """So that a few keys already fill several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered, "PIECE_MAX", 4)
        yield


@given(st.lists(st.tuples(st.booleans(), keys)), st.none() | keys)
def test_a_sorted_set_does_what_a_sorted_list_does(steps: list[tuple[bool, int]], place: int | None) -> None:
    pieces: Ordered[int] = Ordered()
    dumb: list[int] = []
    for adds, key in steps:
        if adds and key not in dumb:
            pieces.add(key)
            dumb = sorted([*dumb, key])
        elif key in dumb:
            pieces.remove(key)
            dumb.remove(key)
        else:
            with pytest.raises(KeyError):
                pieces.remove(key)
    cut = 0 if place is None else bisect_left(dumb, place)
    assert len(pieces) == len(dumb)
    assert list(pieces.ascending(place)) == dumb[cut:]
    assert list(pieces.descending(place)) == (dumb[::-1] if place is None else dumb[:cut][::-1])
    assert pieces.count_to(30) == sum(key <= 30 for key in dumb)


class Counted(int):
    """A key that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) < int(other)


def test_the_cost_of_a_sorted_set_does_not_grow_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "PIECE_MAX", 1024)
    pieces: Ordered[Counted] = Ordered()
    for n in range(100_000):
        pieces.add(Counted(n))
    Counted.comparisons = 0
    for n in range(0, 100_000, 1000):
        pieces.remove(Counted(n))
        pieces.add(Counted(n))
        next(pieces.ascending(Counted(n)))
        next(pieces.descending())
    assert Counted.comparisons < 100 * 100  # two binary searches each: 17 + 17 of 100,000


async def test_no_clock_but_the_one_passed_in_is_read(memory_world: MemoryWorld) -> None:
    instant = memory_world.clock.instant
    band, me = await memory_world.band(), await memory_world.member()
    view = await memory_world.end(band, me)
    assert view.finished_at is not None
    for read in (view.created_at, view.finished_at, await memory_world.store.now()):
        assert 0 < (read - instant).total_seconds() < 0.001


async def test_a_long_backlog_is_worked_off(
    memory_world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "PIECE_MAX", 1024)
    store, band, me = memory_world.store, await memory_world.band(), await memory_world.member()
    order = []
    for _ in range(40):
        tasks = [new_task(band) for _ in range(500)]
        order += [task.id for task in tasks]
        await store.accept([tasks])
    done = []
    while claims := await store.pull([Take(band.id, 500)], me):
        done += [claim.id for claim in claims]
        await store.settle([settlement(claim, me, Finish(status=Status.SUCCEEDED)) for claim in claims])
    assert done == order
    assert (await store.census()).succeeded == 20_000
