"""Claiming by offer and by pull: who gets which rows, in which order, and never twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson
import pytest

from runtime.core.task import AttemptKind, Claim, Codec, Lane, State, Take, Verdict
from tests.contract.world import ALL
from tests.support.factories import new_id, new_task, requeue, settlement

if TYPE_CHECKING:
    from uuid import UUID

    from runtime.core.task import Band
    from runtime.ports import Store
    from tests.contract.world import World


def ids(claims: list[Claim]) -> list[UUID]:
    return [claim.id for claim in claims]


async def suspect(world: World, band: Band, incarnation: int) -> UUID:
    """A task that waits among its band's suspects, under attempt 2."""
    claim = await world.start(band, incarnation)
    move = requeue(AttemptKind.CRASHED, suspect=True)
    assert await world.settle(claim, incarnation, move) is Verdict.COMMITTED
    return claim.id


# -- what a claim carries ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["claim", "pull"])
async def test_a_claim_carries_all_that_is_needed_to_run(
    store: Store, world: World, me: int, way: str
) -> None:
    band = await world.band()
    task = new_task(
        band,
        key="k",
        payload=b"\x00\xff",
        payload_codec=Codec.BYTES,
        max_attempts=7,
        timeout_s=1.5,
        metadata=b'{"a": [1, "x"]}',
        trace_context="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        created_by="alice",
        slot=17,
    )
    [stored] = await world.accept(task)
    await world.advance(5)
    claims = await world.pull(band, me) if way == "pull" else await store.claim([(task.id, 1)], me)
    [claim] = claims
    assert (claim.id, claim.attempt, claim.band, claim.slot, claim.seq) == (
        task.id,
        1,
        band.id,
        17,
        stored.seq,
    )
    assert (claim.failures, claim.crashes, claim.max_attempts, claim.timeout_s) == (0, 0, 7, 1.5)
    assert (claim.payload, claim.payload_codec) == (b"\x00\xff", Codec.BYTES)
    assert (claim.idempotency_key, claim.actor_key, claim.created_by) == ("k", None, "alice")
    assert claim.trace_context == task.trace_context
    assert claim.metadata is not None
    assert orjson.loads(claim.metadata) == {"a": [1, "x"]}
    assert 5 <= claim.waited_s < 15
    assert claim.started_at - claim.created_at >= timedelta(seconds=5)
    assert not claim.expired
    assert not claim.alone


async def test_a_claim_without_extras_has_none(store: Store, world: World, band: Band, me: int) -> None:
    task = await world.submit(band)
    [claim] = await store.claim([(task.id, 1)], me)
    assert (claim.idempotency_key, claim.actor_key, claim.metadata, claim.trace_context) == (None,) * 4
    assert (claim.created_by, claim.payload_codec, claim.payload) == ("", Codec.JSON, task.payload)


async def test_a_claimed_task_is_seen_running(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    view = await world.view(claim.id)
    assert (view.state, view.attempt, view.node, view.started_at, view.due) == (
        State.RUNNING,
        1,
        "me",
        claim.started_at,
        None,
    )


async def test_a_claim_after_retries_carries_its_counters(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(failures=2, crashes=1))
    [again] = await world.pull(band, me)
    assert (again.id, again.attempt, again.failures, again.crashes, again.seq) == (
        claim.id,
        2,
        2,
        1,
        claim.seq,
    )


@pytest.mark.parametrize("way", ["claim", "pull"])
async def test_a_task_that_is_claimed_after_its_expiry_says_so(
    store: Store, world: World, band: Band, me: int, way: str
) -> None:
    late = await world.submit(band, expires_at=await store.now() + timedelta(seconds=10))
    await world.advance(10)
    on_time = await world.submit(band, expires_at=await store.now() + timedelta(seconds=10))
    offers = [(late.id, 1), (on_time.id, 1)]
    claims = await world.pull(band, me) if way == "pull" else await store.claim(offers, me)
    assert {claim.id: claim.expired for claim in claims} == {late.id: True, on_time.id: False}


# -- by offer ----------------------------------------------------------------------------------------


async def test_only_waiting_due_offers_of_that_attempt_are_claimed(
    store: Store, world: World, band: Band, me: int
) -> None:
    ready, later, running = await world.submit(band), await world.submit(band, delay_s=60), new_task(band)
    await world.start(band, me, id=running.id)
    ended = await world.end(band, me)
    wrong_attempt = await world.submit(band)
    offers = [
        (later.id, 1),
        (running.id, 1),
        (running.id, 2),
        (ended.id, 1),
        (wrong_attempt.id, 0),
        (wrong_attempt.id, 2),
        (new_id(), 1),
        (ready.id, 1),
    ]
    assert ids(await store.claim(offers, me)) == [ready.id]
    assert await store.claim(offers, me) == []
    assert (await world.view(wrong_attempt.id)).state is State.READY


async def test_nothing_is_claimed_of_no_offers(store: Store, me: int) -> None:
    assert await store.claim([], me) == []
    assert await store.pull([], me) == []


async def test_an_offer_twice_in_one_claim_runs_once(store: Store, world: World, band: Band, me: int) -> None:
    task = await world.submit(band)
    assert ids(await store.claim([(task.id, 1), (task.id, 1)], me)) == [task.id]
    assert len(await store.held(me)) == 1


async def test_an_offer_does_not_claim_a_suspect(store: Store, world: World, band: Band, me: int) -> None:
    suspected = await suspect(world, band, me)
    assert await store.claim([(suspected, 2)], me) == []
    assert (await world.view(suspected)).state is State.READY


async def test_many_offers_are_claimed_whatever_their_order(
    store: Store, world: World, band: Band, me: int
) -> None:
    tasks = [new_task(band) for _ in range(300)]
    await world.accept(*tasks)
    offers = [(task.id, 1) for task in tasks]
    claims = await store.claim(offers[::-2], me) + await store.claim(offers, me)
    assert sorted(ids(claims)) == [task.id for task in tasks]


# -- by pull -----------------------------------------------------------------------------------------


async def test_a_pull_takes_the_oldest_due_first_and_no_more_than_its_limit(
    store: Store, world: World, band: Band, me: int
) -> None:
    tasks = [new_task(band) for _ in range(10)]
    await world.accept(*tasks)
    order = [task.id for task in tasks]
    assert ids(await world.pull(band, me, 4)) == order[:4]
    assert ids(await world.pull(band, me, 4)) == order[4:8]
    assert ids(await world.pull(band, me, 4)) == order[8:]
    assert await world.pull(band, me, 4) == []


async def test_due_decides_before_seq(store: Store, world: World, band: Band, me: int) -> None:
    late, middle, early = [await world.submit(band, delay_s=delay_s) for delay_s in (30.0, 20.0, 10.0)]
    now = await world.submit(band)
    assert ids(await world.pull(band, me)) == [now.id]
    await world.advance(25)
    assert ids(await world.pull(band, me)) == [early.id, middle.id]
    await world.advance(25)
    assert ids(await world.pull(band, me)) == [late.id]


async def test_equal_due_goes_by_seq(store: Store, world: World, band: Band, me: int) -> None:
    instant = await store.now() + timedelta(seconds=10)
    order = [(await world.submit(band, run_at=instant)).id for _ in range(5)]
    await world.advance(10)
    assert ids(await world.pull(band, me)) == order


async def test_each_take_has_its_own_limit(store: Store, world: World, me: int) -> None:
    high, low, other = [
        await world.band(lane=Lane.HIGH),
        await world.band(lane=Lane.LOW),
        await world.band("other"),
    ]
    tasks = {band.id: [await world.submit(band) for _ in range(4)] for band in (low, high, other)}
    claims = await store.pull([Take(low.id, 3), Take(high.id, 1), Take(other.id, 0)], me)
    assert ids([claim for claim in claims if claim.band == low.id]) == [task.id for task in tasks[low.id][:3]]
    assert ids([claim for claim in claims if claim.band == high.id]) == [tasks[high.id][0].id]
    assert len(claims) == 4


async def test_a_take_of_an_empty_or_unknown_band_takes_nothing_from_the_others(
    store: Store, world: World, band: Band, me: int
) -> None:
    empty = await world.band("empty")
    task = await world.submit(band)
    takes = [Take(empty.id, 5), Take(band.id, 5), Take(99_999, 5), Take(-band.id, 5)]
    assert ids(await store.pull(takes, me)) == [task.id]


async def test_a_watermark_skips_what_was_due_before_it(
    store: Store, world: World, band: Band, me: int
) -> None:
    old = await world.submit(band)
    await world.advance(10)
    mark = (await world.submit(band)).id
    await world.advance(10)
    new = await world.submit(band)
    due = (await world.view(mark)).due
    assert ids(await store.pull([Take(band.id, ALL, since=due)], me)) == [mark, new.id]
    assert ids(await store.pull([Take(band.id, ALL)], me)) == [old.id]


async def test_suspects_are_pulled_by_the_negative_band_only(
    store: Store, world: World, band: Band, me: int
) -> None:
    suspected, usual = await suspect(world, band, me), await world.submit(band)
    assert ids(await world.pull(band, me)) == [usual.id]
    [claim] = await world.pull(-band.id, me, 1, alone=True)
    assert (claim.id, claim.attempt, claim.band, claim.crashes, claim.alone) == (
        suspected,
        2,
        band.id,
        1,
        True,
    )
    assert [(held.alone, held.band) for held in await store.held(me) if held.id == suspected] == [
        (True, band.id)
    ]
    assert (await world.view(suspected)).suspect


async def test_pulls_at_the_same_time_share_the_work_and_overlap_nowhere(
    store: Store, world: World, band: Band
) -> None:
    tasks = [new_task(band) for _ in range(200)]
    await world.accept(*tasks)
    members = [await world.member(f"n{n}") for n in range(4)]
    claimed: list[UUID] = []
    while batch := await asyncio.gather(*(world.pull(band, member, 20) for member in members)):
        if not any(batch):
            break
        claimed += [task_id for claims in batch for task_id in ids(claims)]
    assert sorted(claimed) == [task.id for task in tasks]


async def test_claims_of_the_same_offers_at_the_same_time_overlap_nowhere(
    store: Store, world: World, band: Band
) -> None:
    tasks = [new_task(band) for _ in range(100)]
    await world.accept(*tasks)
    members = [await world.member(f"n{n}") for n in range(4)]
    offers = [(task.id, 1) for task in tasks]
    batches = await asyncio.gather(*(store.claim(offers[:: 1 - 2 * (m % 2)], m) for m in members))
    assert sorted(task_id for claims in batches for task_id in ids(claims)) == [task.id for task in tasks]


# -- who may take work -------------------------------------------------------------------------------


async def not_alive(world: World, fate: str) -> int:
    match fate:
        case "dead":
            return await world.dead_member()
        case "left":
            gone = await world.member()
            await world.store.set_state(gone, "left")
            return gone
        case "lease run out":
            return await world.member(lease_s=-1)
        case _:
            return 999_999


@pytest.mark.parametrize("fate", ["dead", "left", "lease run out", "never was"])
async def test_who_is_not_alive_takes_no_work(store: Store, world: World, band: Band, fate: str) -> None:
    nobody = await not_alive(world, fate)
    task = await world.submit(band)
    assert await store.claim([(task.id, 1)], nobody) == []
    assert await world.pull(band, nobody) == []
    assert (await world.view(task.id)).state is State.READY


async def test_a_renewed_lease_takes_work_again(store: Store, world: World, band: Band) -> None:
    member = await world.member(lease_s=-1)
    task = await world.submit(band)
    assert await world.pull(band, member) == []
    await store.renew(member, 60)
    assert ids(await world.pull(band, member)) == [task.id]


# -- held --------------------------------------------------------------------------------------------


async def test_held_is_every_running_row_of_an_incarnation(
    store: Store, world: World, band: Band, me: int
) -> None:
    other = await world.member("other")
    claim = await world.start(band, me, max_attempts=9)
    await world.settle(claim, me, requeue(failures=1, crashes=1))
    [again] = await world.pull(band, me)
    await world.start(band, other)
    [held] = await store.held(me)
    assert (held.id, held.attempt, held.incarnation, held.band) == (again.id, 2, me, band.id)
    assert (held.failures, held.crashes, held.max_attempts, held.alone, held.left) == (1, 1, 9, False, False)
    assert len(await store.held(other)) == 1
    assert await store.held(999_999) == []


async def test_nothing_is_held_after_its_settlement(store: Store, world: World, band: Band, me: int) -> None:
    claims = [await world.start(band, me) for _ in range(3)]
    await store.settle([settlement(claim, me, requeue()) for claim in claims[:2]])
    assert [held.id for held in await store.held(me)] == [claims[2].id]
