"""Back to waiting: every kind of requeue, counters, attempts, suspects; orphans and their repair."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runtime.core.task import AttemptKind, Reason, State, Verdict
from tests.support.factories import cancelled, error, failed, requeue, settlement, succeeded

if TYPE_CHECKING:
    from runtime.core.task import Band, Finish
    from runtime.ports import Store
    from tests.contract.world import World

KINDS = [kind for kind in AttemptKind if kind is not AttemptKind.REPLAYED]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name.lower())
async def test_an_attempt_goes_back_to_waiting_under_the_next(
    world: World, band: Band, me: int, kind: AttemptKind, reason: Reason
) -> None:
    store = world.store
    claim = await world.start(band, me)
    move = requeue(kind, reason=reason, failures=5, crashes=4, error=error("why"))
    assert await world.settle(claim, me, move) is Verdict.COMMITTED
    view = await world.view(claim.id)
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.READY, 1, 5, 4)
    assert (view.reason, view.suspect, view.node, view.started_at) == (reason, False, None, None)
    assert (view.error, view.progress, view.finished_at) == (None, None, None)
    [attempt] = await store.attempts(claim.id)
    assert (attempt.attempt, attempt.kind, attempt.node, attempt.error) == (1, kind, "me", error("why"))
    assert attempt.started_at == claim.started_at
    assert attempt.ended_at >= claim.started_at
    assert await store.claim([(claim.id, 1)], me) == []
    [again] = await store.claim([(claim.id, 2)], me)
    assert (again.attempt, again.failures, again.crashes, again.seq) == (2, 5, 4, claim.seq)


async def test_a_requeue_is_due_after_its_delay(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    before = await store.now()
    await world.settle(claim, me, requeue(delay_s=60.0))
    after = await store.now()
    view = await world.view(claim.id)
    assert view.state is State.SCHEDULED
    assert view.due is not None
    assert before + timedelta(seconds=60) <= view.due <= after + timedelta(seconds=60)
    assert view.run_at < view.due
    await world.advance(50)
    assert await world.pull(band, me) == []
    await world.advance(10)
    assert [again.attempt for again in await world.pull(band, me)] == [2]


async def test_a_requeue_goes_behind_what_was_due_before(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    waited = await world.submit(band)
    await world.settle(claim, me, requeue(AttemptKind.RELEASED))
    later = await world.submit(band)
    assert [again.id for again in await world.pull(band, me)] == [waited.id, claim.id, later.id]


async def test_attempts_are_listed_oldest_first(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    for kind in KINDS:
        assert await world.settle(claim, me, requeue(kind, error=error(kind.name))) is Verdict.COMMITTED
        [claim] = await world.pull(band, me)
    await world.settle(claim, me, succeeded())
    attempts = await store.attempts(claim.id)
    assert [(a.attempt, a.kind) for a in attempts] == list(enumerate(KINDS, start=1))
    assert [a.error.message for a in attempts if a.error] == [kind.name for kind in KINDS]
    assert (await world.view(claim.id)).attempt == len(KINDS) + 1


async def test_a_requeue_without_an_error_is_an_attempt_without_one(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(AttemptKind.SNOOZED))
    assert [attempt.error for attempt in await store.attempts(claim.id)] == [None]


async def test_a_success_leaves_no_attempt_row(store: Store, world: World, band: Band, me: int) -> None:
    assert await store.attempts((await world.end(band, me)).id) == []
    assert await store.attempts((await world.end(band, me, failed())).id) == []


async def test_a_suspect_becomes_usual_again_when_a_requeue_says_so(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(AttemptKind.CRASHED, suspect=True))
    assert (await world.view(claim.id)).suspect
    assert await world.pull(band, me) == []
    [alone] = await world.pull(-band.id, me, alone=True)
    await world.settle(alone, me, requeue(AttemptKind.CRASHED, crashes=2, suspect=True))
    assert await world.pull(band, me) == []
    [alone] = await world.pull(-band.id, me, alone=True)
    await world.settle(alone, me, requeue(crashes=2))
    assert not (await world.view(claim.id)).suspect
    [usual] = await world.pull(band, me)
    assert (usual.attempt, usual.crashes, usual.alone) == (4, 2, False)


async def test_an_ended_suspect_is_suspect_no_more(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(AttemptKind.CRASHED, suspect=True))
    [alone] = await world.pull(-band.id, me, alone=True)
    await world.settle(alone, me, succeeded())
    assert not (await world.view(claim.id)).suspect


async def test_a_retry_keeps_its_expiry(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me, expires_at=await store.now() + timedelta(seconds=60))
    await world.settle(claim, me, requeue())
    await world.advance(60)
    assert await store.expire(10) == [claim.id]


# -- a request to cancel meets the end of the attempt ------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
async def test_a_requeue_of_a_cancelled_attempt_is_its_end(
    store: Store, world: World, band: Band, me: int, kind: AttemptKind
) -> None:
    claim = await world.start(band, me)
    await store.cancel(claim.id)
    move = requeue(kind, failures=1, crashes=2, error=error())
    assert await world.settle(claim, me, move) is Verdict.COMMITTED
    view = await world.view(claim.id)
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.CANCELLED, 1, 1, 2)
    assert await world.pull(band, me) == []
    assert [(a.attempt, a.kind, a.error) for a in await store.attempts(claim.id)] == [(1, kind, error())]
    assert await world.settle(claim, me, move) is Verdict.COMMITTED


@pytest.mark.parametrize(
    "end", [succeeded(), failed(), cancelled()], ids=["succeeded", "failed", "cancelled"]
)
async def test_an_outcome_stands_although_somebody_asked_to_cancel(
    store: Store, world: World, band: Band, me: int, end: Finish
) -> None:
    claim = await world.start(band, me)
    await store.cancel(claim.id)
    assert await world.settle(claim, me, end) is Verdict.COMMITTED
    assert (await world.view(claim.id)).state is end.status.state


# -- orphans -----------------------------------------------------------------------------------------


async def test_the_living_have_no_orphans(store: Store, world: World, band: Band, me: int) -> None:
    await world.start(band, me)
    out_of_lease = await world.member("late")
    await world.start(band, out_of_lease)
    await store.renew(out_of_lease, -1)
    assert await store.orphans(10) == []


@pytest.mark.parametrize("fate", ["dead", "left"])
async def test_the_rows_of_the_dead_and_the_departed_are_orphans(
    store: Store, world: World, band: Band, me: int, fate: str
) -> None:
    gone = await world.member("gone")
    mine = await world.start(band, me)
    claim = await world.start(band, gone, max_attempts=5)
    await world.settle(claim, gone, requeue(failures=1, crashes=1))
    await world.pull(band, gone)
    if fate == "dead":
        await world.declare_dead(gone)
    else:
        await store.set_state(gone, "left")
    [orphan] = await store.orphans(10)
    assert orphan in await store.held(gone)
    assert (orphan.id, orphan.attempt, orphan.incarnation, orphan.band) == (claim.id, 2, gone, band.id)
    assert (orphan.failures, orphan.crashes, orphan.max_attempts, orphan.alone) == (1, 1, 5, False)
    assert orphan.left is (fate == "left")
    assert [held.id for held in await store.held(me)] == [mine.id]


async def test_an_orphan_that_ran_alone_says_so(store: Store, world: World, band: Band) -> None:
    gone = await world.member("gone")
    claim = await world.start(band, gone)
    await world.settle(claim, gone, requeue(AttemptKind.CRASHED, suspect=True))
    await world.pull(-band.id, gone, alone=True)
    await world.declare_dead(gone)
    assert [(orphan.alone, orphan.band) for orphan in await store.orphans(10)] == [(True, band.id)]


async def test_orphans_come_oldest_first_and_no_more_than_asked(
    store: Store, world: World, band: Band
) -> None:
    gone = await world.member("gone")
    claims = [await world.start(band, gone) for _ in range(5)]
    await store.set_state(gone, "left")
    order = [claim.id for claim in claims]
    assert [orphan.id for orphan in await store.orphans(3)] == order[:3]
    assert [orphan.id for orphan in await store.orphans(100)] == order


async def test_repair_moves_every_orphan_once(store: Store, world: World, band: Band, me: int) -> None:
    gone = await world.member("gone")
    claims = [await world.start(band, gone) for _ in range(5)]
    await world.declare_dead(gone)
    while batch := await store.orphans(2):
        moves = [settlement(orphan, gone, requeue(AttemptKind.CRASHED, crashes=1)) for orphan in batch]
        assert await store.settle(moves) == [Verdict.COMMITTED] * len(batch)
    again = await world.pull(band, me)
    assert sorted(claim.id for claim in again) == [claim.id for claim in claims]
    assert {(claim.attempt, claim.crashes) for claim in again} == {(2, 1)}
    assert {a.node for claim in claims for a in await store.attempts(claim.id)} == {"gone"}


async def test_two_repairs_of_one_orphan_are_one(store: Store, world: World, band: Band) -> None:
    gone = await world.member("gone")
    claim = await world.start(band, gone)
    await world.declare_dead(gone)
    [orphan] = await store.orphans(10)
    repair = settlement(orphan, gone, requeue(AttemptKind.CRASHED, crashes=1))
    assert await store.settle([repair]) == [Verdict.COMMITTED]
    assert await store.settle([repair]) == [Verdict.COMMITTED]
    view = await world.view(claim.id)
    assert (view.state, view.attempt, view.crashes) == (State.READY, 1, 1)
    assert len(await store.attempts(claim.id)) == 1
