"""Settling attempts: the fence, outcomes, children, repeats, and rows that PostgreSQL refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runtime.core.task import AttemptKind, Codec, Settlement, State, Status, TaskFilter, Verdict
from tests.support.factories import (
    band_key,
    cancelled,
    error,
    failed,
    new_id,
    new_task,
    requeue,
    settlement,
    succeeded,
)

if TYPE_CHECKING:
    from runtime.core.task import Band, Finish, Requeue
    from runtime.ports import Store
    from tests.contract.world import World


# -- outcomes ----------------------------------------------------------------------------------------


async def test_a_success_is_an_outcome_with_its_result(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    before = await store.now()
    assert await world.settle(claim, me, succeeded(b'{"x": 1}')) is Verdict.COMMITTED
    view = await world.view(claim.id)
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.SUCCEEDED, 1, 0, 0)
    assert (view.result, view.result_codec, view.error) == (b'{"x": 1}', Codec.JSON, None)
    assert (view.node, view.started_at, view.due) == ("me", claim.started_at, None)
    assert view.finished_at is not None
    assert view.finished_at >= before
    assert await store.held(me) == []
    assert await world.pull(band, me) == []


async def test_a_result_is_kept_byte_by_byte(store: Store, world: World, band: Band, me: int) -> None:
    result = bytes(range(256)) * 1024
    view = await world.end(band, me, succeeded(result, result_codec=Codec.BYTES))
    assert (view.result, view.result_codec) == (result, Codec.BYTES)


async def test_no_result_is_not_an_empty_result(store: Store, world: World, band: Band, me: int) -> None:
    assert (await world.end(band, me, replace(succeeded(), result=None))).result is None
    assert (await world.end(band, me, succeeded(b""))).result == b""


async def test_a_failure_is_a_dead_letter_with_its_error(
    store: Store, world: World, band: Band, me: int
) -> None:
    problem = error("kaputt: ü 🪣", type="KeyError", traceback='File "x.py", line 3\n  boom')
    view = await world.end(band, me, failed(failures=3, crashes=1, error=problem))
    assert (view.state, view.attempt, view.failures, view.crashes) == (State.FAILED, 1, 3, 1)
    assert (view.error, view.result) == (problem, None)


async def test_a_cancelled_attempt_is_an_outcome(store: Store, world: World, band: Band, me: int) -> None:
    view = await world.end(band, me, cancelled(error=error(type="Cancelled")))
    assert (view.state, view.attempt, view.started_at is not None) == (State.CANCELLED, 1, True)
    assert view.error == error(type="Cancelled")


async def test_a_batch_is_answered_in_its_order(store: Store, world: World, band: Band, me: int) -> None:
    claims = [await world.start(band, me) for _ in range(6)]
    batch = [settlement(claim, me, succeeded(str(n).encode())) for n, claim in enumerate(claims)]
    batch[1] = Settlement(claims[1].id, 9, me, succeeded())
    batch[4] = Settlement(new_id(), 1, me, succeeded())
    order = [5, 1, 3, 4, 0, 2]
    verdicts = await store.settle([batch[n] for n in order])
    assert verdicts == [Verdict.FENCED if n in (1, 4) else Verdict.COMMITTED for n in order]
    for n in (0, 2, 3, 5):
        assert (await world.view(claims[n].id)).result == str(n).encode()
    assert await store.settle([]) == []


async def test_outcomes_and_requeues_of_one_batch_commit_together(
    store: Store, world: World, band: Band, me: int
) -> None:
    claims = [await world.start(band, me) for _ in range(6)]
    moves: list[Finish | Requeue] = [
        succeeded(),
        requeue(),
        failed(),
        requeue(AttemptKind.SNOOZED, delay_s=60),
        cancelled(),
        requeue(AttemptKind.CRASHED, suspect=True),
    ]
    verdicts = await store.settle([settlement(c, me, move) for c, move in zip(claims, moves, strict=True)])
    assert verdicts == [Verdict.COMMITTED] * 6
    states = [(await world.view(claim.id)).state for claim in claims]
    assert states == [
        State.SUCCEEDED,
        State.READY,
        State.FAILED,
        State.SCHEDULED,
        State.CANCELLED,
        State.READY,
    ]


@pytest.mark.parametrize("suspect", [False, True])
async def test_a_requeue_may_leave_a_task_to_those_who_serve_another_band(
    store: Store, world: World, band: Band, me: int, suspect: bool
) -> None:
    [others] = await store.intern([band_key(band.handler, requires=("noria:not:1:7",))])
    claim, crashes = await world.start(band, me), 2 if suspect else 0
    released = requeue(AttemptKind.RELEASED, band=others.id, suspect=suspect, crashes=crashes)
    assert await world.settle(claim, me, released) is Verdict.COMMITTED
    view = await world.view(claim.id)
    assert (view.unbound, view.suspect, view.requires) == (True, suspect, ()), (
        "callers see what they asked for"
    )
    listed = await store.list(TaskFilter(handler=band.handler, states=(State.READY,)), limit=10)
    assert [one.id for one in listed.tasks] == [claim.id]
    assert await world.pull(band, me) == await world.pull(-band.id, me, alone=True) == []
    [again] = await world.pull(-others.id if suspect else others, me, alone=suspect)
    assert (again.id, again.attempt, again.band) == (claim.id, 2, others.id)
    await world.settle(again, me, succeeded())
    assert (await world.view(claim.id)).state is State.SUCCEEDED


# -- the fence ---------------------------------------------------------------------------------------

MOVES = {"finish": succeeded(b"late"), "requeue": requeue()}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("wrong", ["attempt", "incarnation", "task"])
async def test_a_foreign_settlement_writes_nothing(
    world: World, band: Band, me: int, wrong: str, move: Finish | Requeue
) -> None:
    store = world.store
    claim = await world.start(band, me)
    other = await world.member("other")
    foreign = {
        "attempt": Settlement(claim.id, claim.attempt + 1, me, move),
        "incarnation": Settlement(claim.id, claim.attempt, other, move),
        "task": Settlement(new_id(), claim.attempt, me, move),
    }
    assert await store.settle([foreign[wrong]]) == [Verdict.FENCED]
    view = await world.view(claim.id)
    assert (view.state, view.attempt) == (State.RUNNING, 1)
    assert await store.attempts(claim.id) == []
    assert await world.settle(claim, me, succeeded(b"mine")) is Verdict.COMMITTED
    assert (await world.view(claim.id)).result == b"mine"


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
async def test_an_attempt_that_never_began_is_fenced(
    store: Store, world: World, band: Band, me: int, move: Finish | Requeue
) -> None:
    task = await world.submit(band)
    assert await store.settle([Settlement(task.id, 1, me, move)]) == [Verdict.FENCED]
    assert (await world.view(task.id)).state is State.READY


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
async def test_a_zombie_is_fenced_once_its_work_was_taken_over(
    store: Store, world: World, band: Band, me: int, move: Finish | Requeue
) -> None:
    zombie = await world.member("zombie")
    claim = await world.start(band, zombie)
    await world.declare_dead(zombie)
    [orphan] = await store.orphans(10)
    assert await store.settle([settlement(orphan, zombie, requeue(AttemptKind.CRASHED))]) == [
        Verdict.COMMITTED
    ]
    assert await world.settle(claim, zombie, move) is Verdict.FENCED  # while it waits
    [again] = await world.pull(band, me)
    assert await world.settle(claim, zombie, move) is Verdict.FENCED  # while it runs elsewhere
    assert await world.settle(again, me, succeeded(b"new")) is Verdict.COMMITTED
    assert await world.settle(claim, zombie, move) is Verdict.FENCED  # when it has ended
    view = await world.view(claim.id)
    assert (view.state, view.result, view.attempt) == (State.SUCCEEDED, b"new", 2)


async def test_an_old_attempt_of_the_same_incarnation_is_fenced(
    store: Store, world: World, band: Band, me: int
) -> None:
    old = await world.start(band, me)
    await world.settle(old, me, requeue(AttemptKind.RELEASED))
    [new] = await world.pull(band, me)
    assert await world.settle(old, me, succeeded(b"old")) is Verdict.FENCED
    assert await world.settle(new, me, succeeded(b"new")) is Verdict.COMMITTED
    assert await world.settle(old, me, succeeded(b"old")) is Verdict.FENCED
    assert (await world.view(old.id)).result == b"new"


async def test_death_alone_does_not_fence_because_repair_settles_in_the_name_of_the_dead(
    store: Store, world: World, band: Band
) -> None:
    doomed = await world.member("doomed")
    claim = await world.start(band, doomed)
    await world.declare_dead(doomed)
    assert await world.settle(claim, doomed, failed(crashes=3)) is Verdict.COMMITTED
    view = await world.view(claim.id)
    assert (view.state, view.crashes, view.node) == (State.FAILED, 3, "doomed")


async def test_two_ends_of_one_attempt_at_the_same_time_commit_one(
    store: Store, world: World, band: Band, me: int
) -> None:
    claims = [await world.start(band, me) for _ in range(20)]
    won = await asyncio.gather(
        store.settle([settlement(claim, me, succeeded()) for claim in claims]),
        store.settle([settlement(claim, me, requeue(AttemptKind.TIMED_OUT)) for claim in claims[::-1]]),
    )
    for claim, first, second in zip(claims, won[0], won[1][::-1], strict=True):
        assert {first, second} == {Verdict.COMMITTED, Verdict.FENCED}
        state = (await world.view(claim.id)).state
        assert state is (State.SUCCEEDED if first is Verdict.COMMITTED else State.READY)


# -- repeats -----------------------------------------------------------------------------------------

ENDS: dict[str, Finish | Requeue] = {
    "success": succeeded(b"r"),
    "failure": failed(),
    "cancelled": cancelled(),
    **{kind.name.lower(): requeue(kind) for kind in AttemptKind if kind is not AttemptKind.REPLAYED},
}


@pytest.mark.parametrize("move", ENDS.values(), ids=ENDS)
async def test_a_repeat_of_ones_own_settlement_is_committed_and_changes_nothing(
    store: Store, world: World, band: Band, me: int, move: Finish | Requeue
) -> None:
    claim = await world.start(band, me)
    assert await world.settle(claim, me, move) is Verdict.COMMITTED
    view, attempts = await store.get(claim.id), await store.attempts(claim.id)
    assert await world.settle(claim, me, move) is Verdict.COMMITTED  # the first answer was lost
    assert (await store.get(claim.id), await store.attempts(claim.id)) == (view, attempts)


async def test_a_repeat_is_recognised_after_the_task_went_on(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue())
    [again] = await world.pull(band, me)
    assert await world.settle(claim, me, requeue()) is Verdict.COMMITTED
    await world.settle(again, me, succeeded())
    assert await world.settle(claim, me, requeue()) is Verdict.COMMITTED
    assert (await world.view(claim.id)).state is State.SUCCEEDED


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("success", "failure"),
        ("failure", "failed"),
        ("snoozed", "failed"),
        ("failed", "success"),
        ("released", "crashed"),
        ("cancelled", "success"),
    ],
)
async def test_another_end_of_the_same_attempt_is_fenced(
    world: World, band: Band, me: int, first: str, second: str
) -> None:
    store = world.store
    claim = await world.start(band, me)
    assert await world.settle(claim, me, ENDS[first]) is Verdict.COMMITTED
    view = await store.get(claim.id)
    assert await world.settle(claim, me, ENDS[second]) is Verdict.FENCED
    assert await store.get(claim.id) == view


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
async def test_a_repeat_by_somebody_else_is_fenced(
    store: Store, world: World, band: Band, me: int, move: Finish | Requeue
) -> None:
    claim, other = await world.start(band, me), await world.member("other")
    assert await world.settle(claim, me, move) is Verdict.COMMITTED
    assert await world.settle(claim, other, move) is Verdict.FENCED


async def test_two_ends_of_one_attempt_in_one_batch_commit_the_first(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    verdicts = await store.settle(
        [settlement(claim, me, move) for move in (succeeded(), failed(), succeeded())]
    )
    assert verdicts == [Verdict.COMMITTED, Verdict.FENCED, Verdict.COMMITTED]
    assert (await world.view(claim.id)).state is State.SUCCEEDED


async def test_a_refused_end_leaves_the_attempt_to_another_in_its_batch(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    bad = failed(error=error("a\0b"))
    verdicts = await store.settle([settlement(claim, me, move) for move in (bad, bad, failed(), succeeded())])
    assert verdicts == [Verdict.REFUSED, Verdict.REFUSED, Verdict.COMMITTED, Verdict.FENCED]
    assert (await world.view(claim.id)).state is State.FAILED


# -- children ----------------------------------------------------------------------------------------


async def test_children_are_committed_with_the_outcome(
    store: Store, world: World, band: Band, me: int
) -> None:
    other = await world.band("other")
    now, later = new_task(other, key="child"), new_task(band, delay_s=60)
    claim = await world.start(band, me)
    assert await world.settle(claim, me, succeeded(children=(now, later))) is Verdict.COMMITTED
    assert (await world.view(now.id)).state is State.READY
    assert (await world.view(later.id)).state is State.SCHEDULED
    assert [child.id for child in await world.pull(other, me)] == [now.id]


async def test_children_have_their_order(store: Store, world: World, band: Band, me: int) -> None:
    children = tuple(new_task(band) for _ in range(10))
    claim = await world.start(band, me)
    await world.settle(claim, me, succeeded(children=children))
    claims = await world.pull(band, me)
    assert [child.id for child in claims] == [child.id for child in children]
    seqs = [child.seq for child in claims]
    assert seqs == sorted(set(seqs))
    assert seqs[0] > claim.seq


async def test_a_fenced_outcome_has_no_children(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    child = new_task(band)
    late = Settlement(claim.id, 2, me, succeeded(children=(child,)))
    assert await store.settle([late]) == [Verdict.FENCED]
    assert await store.get(child.id) is None


async def test_children_are_not_stored_twice_by_a_repeat(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    move = succeeded(children=(new_task(band), new_task(band, key="k")))
    assert await world.settle(claim, me, move) is Verdict.COMMITTED
    assert await world.settle(claim, me, move) is Verdict.COMMITTED
    assert len((await store.list(TaskFilter(), 50)).tasks) == 3


async def test_a_child_that_exists_is_the_one_that_exists(
    store: Store, world: World, band: Band, me: int
) -> None:
    existing = await world.submit(band, key="k", delay_s=60)
    first, second = await world.start(band, me), await world.start(band, me)
    copies = [new_task(band, key=key) for key in ("k", "new", "new")]
    verdicts = await store.settle(
        [
            settlement(first, me, succeeded(children=(copies[0], copies[1]))),
            settlement(second, me, succeeded(children=(copies[2],))),
        ]
    )
    assert verdicts == [Verdict.COMMITTED] * 2
    assert {task.id for task in (await store.list(TaskFilter(), 50)).tasks} == {
        existing.id,
        first.id,
        second.id,
        copies[1].id,
    }


async def test_a_child_whose_key_is_used_for_another_request_refuses_the_outcome(
    store: Store, world: World, band: Band, me: int
) -> None:
    await world.submit(band, key="k", request="a", delay_s=60)
    claim = await world.start(band, me)
    children = (new_task(band), new_task(band, key="k", request="b"))
    assert await world.settle(claim, me, succeeded(children=children)) is Verdict.REFUSED
    assert (await world.view(claim.id)).state is State.RUNNING
    assert await store.get(children[0].id) is None
    assert await world.settle(claim, me, failed()) is Verdict.COMMITTED


# -- rows that PostgreSQL refuses --------------------------------------------------------------------

BAD_MOVES: dict[str, Finish | Requeue] = {
    "NUL in an error": failed(error=error("a\0b")),
    "lone surrogate in an error": failed(error=error("a\ud800b")),
    "NUL in the traceback of a retry": requeue(error=error(traceback="a\0b")),
    "a delay beyond all instants": requeue(delay_s=1e30),
    "a child in no slot": succeeded(children=(new_task(slot=1), new_task(slot=5_000))),
    "a child with a NUL": succeeded(children=(new_task(key="a\0b", slot=1),)),
}


@pytest.mark.parametrize("move", BAD_MOVES.values(), ids=BAD_MOVES)
async def test_a_bad_settlement_is_refused_alone_and_still_runs(
    store: Store, world: World, band: Band, me: int, move: Finish | Requeue
) -> None:
    claims = [await world.start(band, me) for _ in range(5)]
    batch = [settlement(claim, me, succeeded()) for claim in claims]
    batch[1], batch[3] = settlement(claims[1], me, move), settlement(claims[3], me, requeue())
    verdicts = await store.settle(batch)
    assert verdicts == [Verdict.COMMITTED, Verdict.REFUSED, *[Verdict.COMMITTED] * 3]
    assert (await world.view(claims[1].id)).state is State.RUNNING
    assert await store.attempts(claims[1].id) == []
    census = await store.census()
    assert census.succeeded == 3
    assert [held.id for held in await store.held(me)] == [claims[1].id]
    assert await world.settle(claims[1], me, failed()) is Verdict.COMMITTED


# -- statuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", Status)
async def test_every_status_is_its_state(
    store: Store, world: World, band: Band, me: int, status: Status
) -> None:
    move = {Status.SUCCEEDED: succeeded(), Status.FAILED: failed(), Status.CANCELLED: cancelled()}[status]
    assert (await world.end(band, me, move)).state is status.state
