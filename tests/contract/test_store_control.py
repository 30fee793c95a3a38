"""What people do to one task: cancel and replay, in every state; and what time does: expire."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runtime.core.task import AttemptKind, Reason, State, Verdict
from runtime.errors import TaskNotFound, WrongState
from tests.support.factories import cancelled, error, failed, new_id, requeue, settlement, succeeded

if TYPE_CHECKING:
    from uuid import UUID

    from runtime.core.task import Band, Finish, TaskView
    from runtime.ports import Store
    from tests.contract.world import World


# -- cancel ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_s", [0.0, 60.0], ids=["ready", "scheduled"])
async def test_a_waiting_task_is_cancelled_at_once(
    store: Store, world: World, band: Band, me: int, delay_s: float
) -> None:
    task = await world.submit(band, delay_s=delay_s)
    view = await store.cancel(task.id)
    assert view == await store.get(task.id)
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.CANCELLED, 0, 0, 0)
    assert (view.started_at, view.node, view.due) == (None, None, None)
    assert view.finished_at is not None
    await world.advance(60)
    assert await world.pull(band, me) == []
    assert await store.claim([(task.id, 1)], me) == []


async def test_a_task_cancelled_between_attempts_keeps_its_counters(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(AttemptKind.CRASHED, failures=1, crashes=2, suspect=True))
    view = await store.cancel(claim.id)
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.CANCELLED, 1, 1, 2)
    assert await world.pull(-band.id, me, alone=True) == []


async def test_a_running_task_is_asked_to_end(store: Store, world: World, band: Band, me: int) -> None:
    claim, other = await world.start(band, me), await world.start(band, await world.member("other"))
    assert await store.cancel_requests(me) == []
    before = await store.now()
    view = await store.cancel(claim.id)
    assert view == await store.get(claim.id)
    assert (view.state, view.attempt) == (State.RUNNING, 1)
    assert view.cancel_requested_at is not None
    assert view.cancel_requested_at >= before
    assert await store.cancel_requests(me) == [(claim.id, 1)]
    assert await world.settle(claim, me, cancelled()) is Verdict.COMMITTED
    assert await store.cancel_requests(me) == []
    assert (await world.view(other.id)).cancel_requested_at is None


async def test_the_first_request_to_cancel_counts(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    first = (await store.cancel(claim.id)).cancel_requested_at
    assert (await store.cancel(claim.id)).cancel_requested_at == first


@pytest.mark.parametrize(
    "end", [succeeded(), failed(), cancelled()], ids=["succeeded", "failed", "cancelled"]
)
async def test_a_final_task_stays_as_it_is(
    store: Store, world: World, band: Band, me: int, end: Finish
) -> None:
    view = await world.end(band, me, end)
    assert await store.cancel(view.id) == view
    assert await store.get(view.id) == view


async def test_cancelling_twice_is_cancelling_once(store: Store, world: World, band: Band) -> None:
    task = await world.submit(band)
    assert await store.cancel(task.id) == await store.cancel(task.id)


async def test_nobody_cancels_what_does_not_exist(store: Store) -> None:
    with pytest.raises(TaskNotFound):
        await store.cancel(new_id())


async def test_a_request_to_cancel_ends_with_its_attempt(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await store.cancel(claim.id)
    await world.settle(claim, me, cancelled())
    await store.replay(claim.id)
    [again] = await world.pull(band, me)
    assert (await world.view(again.id)).cancel_requested_at is None
    assert await store.cancel_requests(me) == []


async def test_cancel_and_claim_at_the_same_time_agree(
    store: Store, world: World, band: Band, me: int
) -> None:
    tasks = [await world.submit(band) for _ in range(20)]

    async def cancel_all() -> list[TaskView]:
        return await asyncio.gather(*(store.cancel(task.id) for task in tasks))

    claims, views = await asyncio.gather(store.claim([(task.id, 1) for task in tasks], me), cancel_all())
    claimed = {claim.id for claim in claims}
    for view in views:
        assert view.state is (State.RUNNING if view.id in claimed else State.CANCELLED)
        assert await world.view(view.id) == view
    assert set(await store.cancel_requests(me)) == {(task_id, 1) for task_id in claimed}


# -- replay ------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_replayed_with_a_new_budget(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(failures=1))
    [claim] = await world.pull(band, me)
    await world.settle(claim, me, failed(failures=2, crashes=1, error=error("last")))
    ended = await world.view(claim.id)
    before = await store.now()
    view = await store.replay(claim.id)
    assert view == await store.get(claim.id)
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.READY, 2, 0, 0)
    assert (view.error, view.result, view.finished_at, view.node) == (None, None, None, None)
    assert (view.reason, view.suspect) == (Reason.NONE, False)
    assert view.due is not None
    assert view.due >= before
    attempts = await store.attempts(claim.id)
    assert [(a.attempt, a.kind) for a in attempts] == [(1, AttemptKind.FAILED), (2, AttemptKind.REPLAYED)]
    assert (attempts[1].error, attempts[1].node) == (error("last"), "me")
    assert (attempts[1].started_at, attempts[1].ended_at) == (ended.started_at, ended.finished_at)
    [again] = await world.pull(band, me)
    assert (again.attempt, again.failures, again.crashes) == (3, 0, 0)
    assert await world.settle(claim, me, succeeded()) is Verdict.FENCED
    assert await world.settle(again, me, succeeded()) is Verdict.COMMITTED


async def test_a_cancelled_task_is_replayed(store: Store, world: World, band: Band, me: int) -> None:
    task = await world.submit(band)
    for _ in range(2):
        await store.cancel(task.id)
        view = await store.replay(task.id)
        assert (view.state, view.attempt) == (State.READY, 0)
    assert await store.attempts(task.id) == []  # no attempt had begun
    assert [claim.attempt for claim in await world.pull(band, me)] == [1]


async def test_what_an_attempt_met_first_stays_when_its_task_is_replayed(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(AttemptKind.TIMED_OUT))
    await store.cancel(claim.id)
    assert (await store.replay(claim.id)).attempt == 1
    assert [(a.attempt, a.kind) for a in await store.attempts(claim.id)] == [(1, AttemptKind.TIMED_OUT)]
    [again] = await world.pull(band, me)
    await store.cancel(claim.id)
    await world.settle(again, me, requeue(AttemptKind.CRASHED))  # ends cancelled
    assert (await store.replay(claim.id)).attempt == 2
    kinds = [(a.attempt, a.kind) for a in await store.attempts(claim.id)]
    assert kinds == [(1, AttemptKind.TIMED_OUT), (2, AttemptKind.CRASHED)]


async def in_state(world: World, band: Band, me: int, state: State) -> UUID:
    match state:
        case State.SCHEDULED:
            return (await world.submit(band, delay_s=60)).id
        case State.READY:
            return (await world.submit(band)).id
        case State.RUNNING:
            return (await world.start(band, me)).id
        case _:
            return (await world.end(band, me)).id


@pytest.mark.parametrize("state", [State.SCHEDULED, State.READY, State.RUNNING, State.SUCCEEDED])
async def test_no_other_state_is_replayed(
    store: Store, world: World, band: Band, me: int, state: State
) -> None:
    task_id = await in_state(world, band, me, state)
    view = await store.get(task_id)
    with pytest.raises(WrongState) as refused:
        await store.replay(task_id)
    assert refused.value.state == state
    assert await store.get(task_id) == view


async def test_nobody_replays_what_does_not_exist(store: Store) -> None:
    with pytest.raises(TaskNotFound):
        await store.replay(new_id())


async def test_a_dead_letter_is_replayed_once_by_many(
    store: Store, world: World, band: Band, me: int
) -> None:
    dead = await world.end(band, me, failed())
    answers = await asyncio.gather(*(store.replay(dead.id) for _ in range(5)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["TaskView", *["WrongState"] * 4]
    assert [claim.attempt for claim in await world.pull(band, me)] == [2]


async def test_a_replayed_suspect_waits_among_the_others(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(AttemptKind.CRASHED, suspect=True))
    [alone] = await world.pull(-band.id, me, alone=True)
    await world.settle(alone, me, failed(crashes=3))
    assert not (await store.replay(claim.id)).suspect
    assert [again.id for again in await world.pull(band, me)] == [claim.id]


# -- expire ------------------------------------------------------------------------------------------


async def test_a_waiting_task_expires(store: Store, world: World, band: Band, me: int) -> None:
    expires_at = await store.now() + timedelta(seconds=60)
    ready = await world.submit(band, expires_at=expires_at)
    scheduled = await world.submit(band, expires_at=expires_at, delay_s=3600)
    later = await world.submit(band, expires_at=expires_at + timedelta(seconds=60))
    unlimited = await world.submit(band)
    assert (await world.view(ready.id)).expires_at == expires_at
    assert await store.expire(10) == []
    await world.advance(60)
    assert sorted(await store.expire(10)) == [ready.id, scheduled.id]
    assert await store.expire(10) == []
    view = await world.view(ready.id)
    assert (view.state, view.attempt, view.started_at, view.node) == (State.CANCELLED, 0, None, None)
    assert view.error is not None
    assert view.error.type == "Expired"
    assert view.error.message
    assert [claim.id for claim in await world.pull(band, me)] == [later.id, unlimited.id]


async def test_a_task_that_expires_between_attempts_keeps_its_counters(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me, expires_at=await store.now() + timedelta(seconds=60))
    await world.settle(claim, me, requeue(AttemptKind.CRASHED, failures=2, crashes=1, suspect=True))
    await world.advance(60)
    assert await store.expire(10) == [claim.id]
    view = await world.view(claim.id)
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.CANCELLED, 1, 2, 1)


async def test_running_and_final_tasks_do_not_expire(store: Store, world: World, band: Band, me: int) -> None:
    expires_at = await store.now() + timedelta(seconds=60)
    running = await world.start(band, me, expires_at=expires_at)
    ended = await world.end(band, me, expires_at=expires_at)
    await world.advance(120)
    assert await store.expire(10) == []
    assert (await world.view(running.id)).state is State.RUNNING
    assert (await world.view(ended.id)).state is State.SUCCEEDED


async def test_no_more_expire_than_asked(store: Store, world: World, band: Band) -> None:
    now = await store.now()
    tasks = [await world.submit(band, expires_at=now + timedelta(seconds=n)) for n in range(5)]
    await world.advance(10)
    batches = [await store.expire(2) for _ in range(4)]
    assert [len(batch) for batch in batches] == [2, 2, 1, 0]
    assert sorted(task_id for batch in batches for task_id in batch) == [task.id for task in tasks]


async def test_a_replayed_expired_task_is_not_expired_again(
    store: Store, world: World, band: Band, me: int
) -> None:
    task = await world.submit(band, expires_at=await store.now() + timedelta(seconds=60))
    await world.advance(60)
    await store.expire(10)
    assert (await store.replay(task.id)).state is State.READY
    assert await store.expire(10) == []
    assert [(claim.id, claim.expired) for claim in await world.pull(band, me)] == [(task.id, False)]


async def test_a_replayed_task_keeps_an_expiry_that_lies_ahead(
    store: Store, world: World, band: Band
) -> None:
    task = await world.submit(band, expires_at=await store.now() + timedelta(seconds=60))
    await store.cancel(task.id)
    await store.replay(task.id)
    await world.advance(60)
    assert await store.expire(10) == [task.id]


async def test_expire_and_claim_at_the_same_time_agree(
    store: Store, world: World, band: Band, me: int
) -> None:
    expires_at = await store.now() + timedelta(seconds=1)
    tasks = [await world.submit(band, expires_at=expires_at) for _ in range(50)]
    await world.advance(5)
    expired, claims = await asyncio.gather(
        store.expire(50), store.claim([(task.id, 1) for task in reversed(tasks)], me)
    )
    assert sorted([*expired, *(claim.id for claim in claims)]) == [task.id for task in tasks]


async def test_settling_in_a_batch_keeps_other_peoples_requests(
    store: Store, world: World, band: Band, me: int
) -> None:
    claims = [await world.start(band, me) for _ in range(4)]
    await store.cancel(claims[2].id)
    await store.settle([settlement(claim, me, requeue()) for claim in claims[:2]])
    assert await store.cancel_requests(me) == [(claims[2].id, 1)]
