"""Retention: what ended long ago goes, keys stay longer, what has not ended stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.core.task import Duplicate, Stored
from tests.contract.world import ALL
from tests.support.factories import cancelled, failed, new_task, requeue, succeeded

if TYPE_CHECKING:
    from uuid import UUID

    from runtime.core.task import Band, Finish
    from runtime.ports import Store
    from tests.contract.world import World


async def forget(store: Store, finished_before_s: float, keys_before_s: float, limit: int = ALL) -> int:
    """Everything that may go; the sum of as many calls as it takes."""
    gone = 0
    while count := await store.forget(
        finished_before_s=finished_before_s, keys_before_s=keys_before_s, limit=limit
    ):
        assert count <= limit
        gone += count
    return gone


async def left(store: Store, ids: list[UUID]) -> list[UUID]:
    return sorted(view.id for view in await store.get_many(ids))


@pytest.mark.parametrize(
    "end", [succeeded(), failed(), cancelled()], ids=["succeeded", "failed", "cancelled"]
)
async def test_what_ended_long_ago_goes_with_all_that_hangs_on_it(
    store: Store, world: World, band: Band, me: int, end: Finish
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue())
    [claim] = await world.pull(band, me)
    await world.settle(claim, me, end)
    await world.advance(100)
    assert await forget(store, 101, 0) == 0
    assert await forget(store, 99, 0) == 1
    assert await store.get(claim.id) is None
    assert await store.attempts(claim.id) == []
    census = await store.census()
    assert (census.failed, census.cancelled) == (0, 0)
    assert census.succeeded_is_estimate or census.succeeded == 0


async def test_age_counts_from_the_end_not_from_the_beginning(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.advance(100)
    await world.settle(claim, me, succeeded())
    assert await forget(store, 50, 0) == 0
    await world.advance(60)
    assert await forget(store, 50, 0) == 1


async def test_what_has_not_ended_stays(store: Store, world: World, band: Band, me: int) -> None:
    ids = [(await world.submit(band)).id, (await world.submit(band, delay_s=9999)).id]
    running = await world.start(band, me)
    await world.advance(1000)
    assert await forget(store, 0, 0) == 0
    assert len(await left(store, [*ids, running.id])) == 3


async def test_keys_are_kept_longer(store: Store, world: World, band: Band, me: int) -> None:
    keyed = (await world.end(band, me, idempotency_key="k", digest=b"d" * 32)).id
    plain = (await world.end(band, me)).id
    await world.advance(100)
    assert await forget(store, 50, 200) == 1
    assert await left(store, [keyed, plain]) == [keyed]
    [[answer]] = await store.accept([[new_task(band, idempotency_key="k", digest=b"d" * 32)]])
    assert answer == Duplicate(keyed)
    await world.advance(150)
    assert await forget(store, 50, 200) == 1
    [[answer]] = await store.accept([[new_task(band, idempotency_key="k", digest=b"e" * 32)]])
    assert isinstance(answer, Stored)


async def test_a_key_counts_from_its_creation(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me, idempotency_key="k", digest=b"d" * 32)
    await world.advance(300)
    await world.settle(claim, me, succeeded())
    await world.advance(60)
    assert await forget(store, 50, 400) == 0
    assert await forget(store, 50, 300) == 1


async def test_limits_reach_everything_past_keys_that_stay(
    store: Store, world: World, band: Band, me: int
) -> None:
    keyed = [(await world.end(band, me, idempotency_key=f"k{n}", digest=b"d" * 32)).id for n in range(5)]
    plain = [(await world.end(band, me)).id for _ in range(5)]
    await world.advance(100)
    assert await forget(store, 50, 1000, limit=2) == 5
    assert await left(store, keyed + plain) == keyed


async def test_a_replayed_task_is_not_forgotten(store: Store, world: World, band: Band, me: int) -> None:
    view = await world.end(band, me, failed())
    await world.advance(100)
    await store.replay(view.id)
    assert await forget(store, 50, 0) == 0
    assert await left(store, [view.id]) == [view.id]
