"""Limits of handlers: what counts, what may begin, what a look says."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from runtime.core.limits import (
    KEYS_MAX,
    HandlerLimit,
    Limit,
    LimitedPull,
    LimitedTake,
    Per,
    Rate,
    limiter_id,
)
from runtime.core.task import Lane, Verdict
from tests.support.factories import new_task, requeue, settlement, succeeded

if TYPE_CHECKING:
    from runtime.core.task import Band, Claim, NewTask
    from runtime.ports import Store
    from tests.contract.world import World

FIVE_A_SECOND = Rate(5, 1.0, 3)
ALL = 1_000


async def limit(
    store: Store, rate: Rate | None = None, running: int | None = None, per: Per = Per.HANDLER
) -> None:
    await store.declare_limits({"echo": Limit(rate, running, per)})


async def pull(store: Store, me: int, *bands: Band, limit: int = ALL, alone: bool = False) -> LimitedPull:
    takes = [LimitedTake(-band.id if alone else band.id) for band in bands]
    return await store.pull_limited(takes, limit, me, alone=alone)


async def submit(
    world: World, band: Band, count: int = 1, key: str | None = None, **fields: Any
) -> list[NewTask]:
    limiter = None if key is None else limiter_id(band.handler, Per.KEY, band.tenant, key)
    tasks = [
        new_task(band, limit_key=key, limiter=limiter, tenant=band.tenant, **fields) for _ in range(count)
    ]
    await world.accept(*tasks)
    return tasks


async def finish(store: Store, me: int, *claims: Claim) -> None:
    verdicts = await store.settle([settlement(claim, me, succeeded()) for claim in claims])
    assert set(verdicts) <= {Verdict.COMMITTED}


def ids(of: LimitedPull) -> list[Any]:
    return [claim.id for claim in of.claims]


# -- what counts -------------------------------------------------------------------------------------


async def test_what_code_declares_counts_unless_somebody_sets_another(store: Store) -> None:
    code, other = Limit(FIVE_A_SECOND, None, Per.TENANT), Limit(None, 7)
    await store.declare_limits({"echo": code, "free": Limit()})
    assert await store.limits() == [HandlerLimit("echo", code, code)]
    await store.set_limit("echo", other, "ann")
    by_hand = HandlerLimit("echo", Limit(None, 7, Per.TENANT), code, "ann")
    assert await store.limits() == [by_hand]
    await store.declare_limits({"echo": code})
    assert await store.limits() == [by_hand]
    assert (await store.unset_limit("echo"), await store.unset_limit("echo"), await store.unset_limit("no")) == (
        True, False, False,
    )  # fmt: skip
    assert await store.limits() == [HandlerLimit("echo", code, code)]
    await store.declare_limits({"echo": Limit()})
    assert await store.limits() == [HandlerLimit("echo", Limit())]


async def test_a_handler_without_a_limit_can_be_given_one(store: Store) -> None:
    await store.set_limit("echo", Limit(FIVE_A_SECOND), "ann")
    assert await store.limits() == [HandlerLimit("echo", Limit(FIVE_A_SECOND), None, "ann")]
    assert await store.unset_limit("echo")
    assert await store.limits() == [HandlerLimit("echo", Limit())]


# -- rates -------------------------------------------------------------------------------------------


async def test_a_rate_lets_begin_what_gcra_says(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, FIVE_A_SECOND)
    tasks = await submit(world, band, 9)
    first = await pull(store, me, band)
    assert ids(first) == [task.id for task in tasks[:3]]  # in order, a burst
    assert first.again_s == 0.0  # there may be more
    second = await pull(store, me, band)
    assert second.claims == ()
    assert second.again_s is not None
    assert 0 < second.again_s <= 0.2
    await world.advance(0.41)
    third = await pull(store, me, band)
    assert ids(third) == [task.id for task in tasks[3:5]]
    await world.advance(60)
    assert len((await pull(store, me, band)).claims) == 3  # no more than a burst is ever saved up


async def test_ends_give_nothing_back_to_a_rate_and_retries_are_starts(
    world: World, store: Store, band: Band, me: int
) -> None:
    await limit(store, Rate(1, 100.0, 2))
    await submit(world, band, 1)
    first = await pull(store, me, band)
    assert await store.settle([settlement(first.claims[0], me, requeue())]) == [Verdict.COMMITTED]
    second = await pull(store, me, band)
    assert (second.claims[0].attempt, second.claims[0].failures) == (2, 1)
    await store.settle([settlement(second.claims[0], me, requeue(failures=2))])
    third = await pull(store, me, band)
    assert third.claims == ()
    assert third.again_s == pytest.approx(100.0, abs=2)
    view = await world.view(second.claims[0].id)
    assert (view.attempt, view.failures) == (2, 2)  # waiting cost no attempt


async def test_what_nothing_waits_for_costs_no_time(store: Store, band: Band, me: int) -> None:
    await limit(store, FIVE_A_SECOND)
    assert await pull(store, me, band) == LimitedPull((), None, {band.id: LimitedTake(1).after})


async def test_no_more_than_was_asked_for_is_spent(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, Rate(1, 100.0, 3))
    await submit(world, band, 5)
    assert len((await pull(store, me, band, limit=1)).claims) == 1
    assert len((await pull(store, me, band)).claims) == 2


# -- concurrency -------------------------------------------------------------------------------------


async def test_only_so_many_run_at_once(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, running=2)
    tasks = await submit(world, band, 5)
    first = await pull(store, me, band)
    assert ids(first) == [task.id for task in tasks[:2]]
    second = await pull(store, me, band)
    assert (second.claims, second.again_s) == ((), None)  # no time lets one begin
    await finish(store, me, first.claims[0])
    assert ids(await pull(store, me, band)) == [tasks[2].id]


async def test_a_dead_node_holds_its_places_until_its_work_is_repaired(
    world: World, store: Store, band: Band
) -> None:
    dead = await world.member("dead")
    await limit(store, running=2)
    await submit(world, band, 3)
    assert len((await pull(store, dead, band)).claims) == 2
    await world.declare_dead(dead)
    other = await world.member("other")
    assert (await pull(store, other, band)).claims == ()
    assert (await pull(store, dead, band)).claims == ()
    for orphan in await store.orphans(ALL):
        await store.settle([settlement(orphan, dead, requeue())])
    assert len((await pull(store, other, band)).claims) == 2


async def test_both_limits_hold(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, Rate(1, 100.0, 5), running=2)
    await submit(world, band, 9)
    first = await pull(store, me, band)
    assert len(first.claims) == 2
    await finish(store, me, *first.claims)
    second = await pull(store, me, band)
    await finish(store, me, *second.claims)
    assert [len(second.claims), len((await pull(store, me, band)).claims)] == [2, 1]


async def test_nodes_at_the_same_time_never_start_more(world: World, store: Store, band: Band) -> None:
    members = [await world.member(f"n{number}") for number in range(4)]
    await limit(store, Rate(1, 1000.0, 30), running=20)
    await submit(world, band, 60)
    pulls = await asyncio.gather(*(pull(store, each, band, limit=7) for each in members for _ in range(4)))
    running = sum(len(each.claims) for each in pulls)
    assert 7 <= running <= 20
    assert len((await pull(store, members[0], band)).claims) == 20 - running
    assert (await pull(store, members[0], band)).claims == ()


# -- per tenant, per key -------------------------------------------------------------------------------


async def test_each_tenant_has_its_own(world: World, store: Store, me: int) -> None:
    bands = [await world.band(tenant=name) for name in ("a", "b")]
    await limit(store, running=2, per=Per.TENANT)
    for band in bands:
        await submit(world, band, 5)
    claims = (await pull(store, me, *bands)).claims
    assert Counter(claim.band for claim in claims) == {bands[0].id: 2, bands[1].id: 2}


async def test_a_full_key_holds_up_no_other(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, running=2, per=Per.KEY)
    full = await submit(world, band, 300, key="full")
    assert len((await pull(store, me, band)).claims) == 2
    [other] = await submit(world, band, key="other")
    got = await pull(store, me, band)
    assert ids(got) == [other.id]
    assert (await world.view(other.id)).limit_key == "other"
    assert (await world.view(full[9].id)).state.value == "ready"


async def test_keys_take_turns_row_by_row(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, running=9, per=Per.KEY)
    await submit(world, band, 20, key="first")
    for number in range(3):
        await submit(world, band, 1, key=f"k{number}")
    got = {claim.id for claim in (await pull(store, me, band, limit=4)).claims}
    assert len({(await world.view(one)).limit_key for one in got}) == 4


async def test_all_keys_are_found_page_by_page(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, running=1, per=Per.KEY)
    tasks = [
        task for number in range(KEYS_MAX + 20) for task in await submit(world, band, 2, key=f"k{number}")
    ]
    first = await pull(store, me, band)
    assert len(first.claims) == KEYS_MAX
    second = await store.pull_limited([LimitedTake(band.id, first.afters[band.id])], ALL, me)
    assert len(second.claims) == 20
    assert second.afters[band.id] == LimitedTake(1).after
    assert len({*ids(first), *ids(second)} & {task.id for task in tasks}) == KEYS_MAX + 20
    assert (await pull(store, me, band)).claims == ()


async def test_a_key_survives_retry_and_replay(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, running=1, per=Per.KEY)
    [task] = await submit(world, band, key="k")
    [claim] = (await pull(store, me, band)).claims
    await store.settle([settlement(claim, me, requeue())])
    [blocker] = await submit(world, band, key="k")
    [claim] = (await pull(store, me, band)).claims
    assert claim.id in {blocker.id, task.id}
    assert (await pull(store, me, band)).claims == ()
    await store.cancel(blocker.id if claim.id == task.id else task.id)
    await store.replay(blocker.id if claim.id == task.id else task.id)
    assert (await pull(store, me, band)).claims == ()  # still counted under its key
    await finish(store, me, claim)
    assert len((await pull(store, me, band)).claims) == 1


async def test_what_names_no_key_counts_together(world: World, store: Store, band: Band, me: int) -> None:
    """Rows from before the limit was one for each key."""
    await limit(store, running=2, per=Per.KEY)
    await submit(world, band, 3)
    await submit(world, band, 1, key="k")
    assert len((await pull(store, me, band)).claims) == 3


# -- beside others -------------------------------------------------------------------------------------


async def test_lanes_share_a_limit_eight_to_four_to_one(world: World, store: Store, me: int) -> None:
    bands = [await world.band(lane=lane) for lane in Lane]
    await limit(store, running=520)
    for band in bands:
        await submit(world, band, 520)
    began = Counter(claim.band for claim in (await pull(store, me, *bands, limit=520)).claims)
    shares = [began[band.id] / 520 for band in bands]
    assert shares == pytest.approx([8 / 13, 4 / 13, 1 / 13], abs=0.1)


async def test_tenants_share_a_limit_by_their_weights(world: World, store: Store, me: int) -> None:
    bands = [await world.band(tenant=name) for name in ("acme", "other")]
    await store.set_tenant_weight("acme", 4)
    await limit(store, running=400)
    for band in bands:
        await submit(world, band, 400)
    began = Counter(claim.band for claim in (await pull(store, me, *bands, limit=400)).claims)
    assert [began[band.id] / 400 for band in bands] == pytest.approx([0.8, 0.2], abs=0.1)


async def test_a_suspect_runs_alone_and_counts(world: World, store: Store, band: Band, me: int) -> None:
    await limit(store, running=1)
    await submit(world, band, 1)
    [claim] = (await pull(store, me, band)).claims
    await store.settle([settlement(claim, me, requeue(suspect=True, crashes=2))])
    assert (await pull(store, me, band)).claims == ()
    [suspect] = (await pull(store, me, band, alone=True)).claims
    assert (suspect.id, suspect.band, suspect.alone) == (claim.id, band.id, True)
    await submit(world, band, 1)
    assert (await pull(store, me, band)).claims == ()


async def test_a_dead_member_begins_nothing(world: World, store: Store, band: Band) -> None:
    gone = await world.dead_member()
    await limit(store, FIVE_A_SECOND)
    await submit(world, band, 1)
    assert (await pull(store, gone, band)).claims == ()


async def test_a_band_without_a_limit_is_none_of_this(
    world: World, store: Store, band: Band, me: int
) -> None:
    await submit(world, band, 1)
    assert await pull(store, me, band) == LimitedPull((), None, {band.id: LimitedTake(1).after})


async def test_old_limiters_are_forgotten_and_made_anew(
    world: World, store: Store, band: Band, me: int
) -> None:
    await limit(store, Rate(1, 10.0, 1))
    await submit(world, band, 2)
    assert len((await pull(store, me, band)).claims) == 1
    assert await store.forget_limiters(60.0, ALL) == 0
    await world.advance(100)
    assert await store.forget_limiters(60.0, ALL) == 1
    assert len((await pull(store, me, band)).claims) == 1
