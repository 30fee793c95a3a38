"""Large results: the record holds a reference, knows which attempts may have one, and has a name of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from runtime.core.objects import Reference, key_of
from runtime.core.task import Codec, Progress
from tests.support.factories import failed, requeue, succeeded

if TYPE_CHECKING:
    from runtime.core.task import Band, Finish
    from runtime.ports import Store
    from tests.contract.world import World


def apart(task_id: UUID, attempt: int = 1, codec: Codec = Codec.JSON_APART) -> Finish:
    lies = Reference(key_of(task_id, attempt), 20_000_000, "ab" * 32)
    return succeeded(result=lies.to_bytes(), result_codec=codec)


@pytest.mark.parametrize("codec", [Codec.JSON_APART, Codec.BYTES_APART])
async def test_a_reference_is_read_as_it_was_committed(
    world: World, band: Band, me: int, codec: Codec
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, apart(claim.id, codec=codec))
    view = await world.view(claim.id)
    assert view.result_codec is codec
    assert view.result is not None
    assert Reference.from_bytes(view.result).key == key_of(claim.id, 1)


async def test_in_use_is_what_runs_and_what_an_outcome_refers_to(
    store: Store, world: World, band: Band, me: int
) -> None:
    running = await world.start(band, me)
    large = await world.start(band, me)
    small = await world.start(band, me)
    dead = await world.start(band, me)
    again = await world.start(band, me)
    await world.settle(large, me, apart(large.id))
    await world.settle(small, me, succeeded())
    await world.settle(dead, me, failed())
    await world.settle(again, me, requeue())
    waiting = await world.submit(band, delay_s=100)
    asked = [(one.id, attempt) for one in (running, large, small, dead, again) for attempt in (1, 2)]
    asked += [(waiting.id, 1), (uuid4(), 1)]
    found = await store.results_in_use(asked)
    assert sorted(found) == sorted([(running.id, 1), (large.id, 1)])
    assert await store.results_in_use([]) == []


async def test_what_is_forgotten_is_not_in_use(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, apart(claim.id))
    await world.advance(10)
    assert await store.forget(finished_before_s=5, keys_before_s=5, limit=10) == 1
    assert await store.results_in_use([(claim.id, 1)]) == []


async def test_why_a_result_waits_is_told_with_the_progress(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    told = Progress(done=1, total=1, message="m", result_waits="the bucket\0 does not answer")
    await store.report_progress(me, {(claim.id, 1): told})
    progress = (await world.view(claim.id)).progress
    assert progress is not None
    assert progress.result_waits.endswith("does not answer")


async def test_a_record_keeps_its_name(store: Store) -> None:
    assert await store.identity() == await store.identity()
    assert (await store.identity()).int != 0
