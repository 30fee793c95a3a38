"""Tasks that wait for others: blocked until their parents have ended, and what a failed parent does to them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runtime.core.keyed import Ask, actor_id
from runtime.core.task import (
    Duplicate,
    OnParentFailure,
    Reason,
    Refused,
    State,
    Status,
    Stored,
    TaskFilter,
    Undone,
    Verdict,
)
from runtime.core.workflow import Freed
from tests.contract.world import ALL
from tests.support.factories import cancelled, failed, new_id, new_task, requeue, settlement, succeeded

if TYPE_CHECKING:
    from uuid import UUID

    from runtime.core.task import Band, Finish, NewTask
    from runtime.ports import Store
    from tests.contract.world import World


async def family(world: World, band: Band, parents: int = 1, **fields: Any) -> tuple[list[NewTask], NewTask]:
    """Parents that are ready, and a child of all of them, stored together."""
    above = [new_task(band, awaited=True) for _ in range(parents)]
    child = new_task(band, parents=tuple(parent.id for parent in above), **fields)
    [answers] = await world.store.accept([[*above, child]])
    assert all(isinstance(answer, Stored) for answer in answers)
    return above, child


async def end(world: World, me: int, *tasks: NewTask | UUID, move: Finish | None = None) -> None:
    """Run these, which are ready, to their end, all in one commit."""
    ids = [task if not hasattr(task, "id") else task.id for task in tasks]
    views = [await world.view(task_id) for task_id in ids]
    claims = await world.store.claim([(view.id, view.attempt + 1) for view in views], me)
    assert len(claims) == len(ids)
    verdicts = await world.store.settle([settlement(claim, me, move or succeeded()) for claim in claims])
    assert all(verdict.committed for verdict in verdicts)


async def pass_on(store: Store, limit: int = ALL) -> dict[UUID, Freed]:
    freed: dict[UUID, Freed] = {}
    while True:
        passed = await store.pass_on(limit)
        freed |= {each.id: each for each in passed.freed}
        if not passed.more:
            return freed


async def states(world: World, *tasks: NewTask) -> list[State]:
    return [(await world.view(task.id)).state for task in tasks]


async def test_a_child_is_blocked_until_all_its_parents_have_ended(
    store: Store, world: World, band: Band, me: int
) -> None:
    parents, child = await family(world, band, 3)
    view = await world.view(child.id)
    assert (view.state, view.reason or None, view.open_parents) == (
        State.BLOCKED,
        Reason.PARENTS,
        3,
    )
    assert (view.due, view.parents, view.attempt) == (None, tuple(p.id for p in parents), 0)
    assert await store.claim([(child.id, 1)], me) == []
    await end(world, me, *parents[:2])
    assert await pass_on(store) == {}
    assert (await world.view(child.id)).open_parents == 1
    assert [claim.id for claim in await world.pull(band, me)] == [parents[2].id]
    [held] = await store.held(me)
    assert await store.settle([settlement(held, me, succeeded())]) == [Verdict.AWAITED]
    freed = await pass_on(store)
    assert freed == {child.id: Freed(child.id, 1, band.id, child.slot)}
    assert await states(world, child) == [State.READY]
    [claim] = await world.pull(band, me)
    assert (claim.id, claim.parents) == (child.id, tuple(p.id for p in parents))
    assert await pass_on(store) == {}


async def test_a_plain_task_has_nothing_to_pass_on(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    assert await world.settle(claim, me, succeeded()) is Verdict.COMMITTED
    assert claim.parents == ()
    assert await store.pass_on(ALL) == type(await store.pass_on(ALL))()


async def test_a_retry_is_no_end(store: Store, world: World, band: Band, me: int) -> None:
    [parent], child = await family(world, band)
    [claim] = await world.pull(band, me)
    assert await world.settle(claim, me, requeue()) is Verdict.COMMITTED
    assert await pass_on(store) == {}
    await end(world, me, parent)
    assert list(await pass_on(store)) == [child.id]


@pytest.mark.parametrize(
    "move", [succeeded(), failed(), cancelled()], ids=["succeeded", "failed", "cancelled"]
)
async def test_a_child_of_a_parent_that_has_ended_hears_of_it(
    store: Store, world: World, band: Band, me: int, move: Finish
) -> None:
    parent = await world.end(band, me, move)
    child = await world.submit(band, parents=(parent.id,), on_parent_failure=OnParentFailure.RUN_ANYWAY)
    assert await states(world, child) == [State.BLOCKED]
    assert list(await pass_on(store)) == [child.id]
    assert await states(world, child) == [State.READY]


async def test_a_child_that_comes_while_its_parent_runs_hears_of_its_end(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    child = await world.submit(band, parents=(claim.id,))
    assert await pass_on(store) == {}
    assert await world.settle(claim, me, succeeded()) is Verdict.AWAITED
    assert list(await pass_on(store)) == [child.id]


async def test_a_child_that_comes_while_its_parent_waits_hears_of_its_end_also_after_a_retry(
    store: Store, world: World, band: Band, me: int
) -> None:
    parent = await world.submit(band)
    child = await world.submit(band, parents=(parent.id,))
    [claim] = await world.pull(band, me)
    await world.settle(claim, me, requeue())
    await end(world, me, parent)
    assert list(await pass_on(store)) == [child.id]


async def test_a_parent_that_is_not_there_is_named_and_nothing_is_stored(
    store: Store, world: World, band: Band
) -> None:
    parent = await world.submit(band)
    nobody = new_id()
    theirs = await world.submit(await world.band(tenant="other"), tenant="other")
    good, bad, foreign = new_task(band), new_task(band, parents=(parent.id, nobody)), new_task(band)
    foreign = new_task(band, parents=(theirs.id,))
    beside = new_task(band, parents=(parent.id,))
    answers = await store.accept([[good, bad], [beside], [foreign]])
    assert answers[0] == [Undone(), Refused(f"there is no task {nobody}", "/depends_on/1")]
    assert [type(answer) for answer in answers[1]] == [Stored]
    assert answers[2] == [Refused(f"there is no task {theirs.id}", "/depends_on/0")]
    assert await store.get_many([good.id, bad.id, foreign.id]) == []
    assert await states(world, beside) == [State.BLOCKED]


@pytest.mark.parametrize(
    ("move", "policy", "state"),
    [
        (failed(), OnParentFailure.FAIL, State.FAILED),
        (cancelled(), OnParentFailure.FAIL, State.CANCELLED),
        (failed(), OnParentFailure.SKIP, State.CANCELLED),
        (cancelled(), OnParentFailure.SKIP, State.CANCELLED),
        (failed(), OnParentFailure.RUN_ANYWAY, State.READY),
        (cancelled(), OnParentFailure.RUN_ANYWAY, State.READY),
    ],
    ids=str,
)
async def test_what_a_child_does_whose_parent_did_not_succeed(
    store: Store, world: World, band: Band, me: int, move: Finish, policy: OnParentFailure, state: State
) -> None:
    [one, other], child = await family(world, band, 2, on_parent_failure=policy, name="join")
    grandchild = await world.submit(band, parents=(child.id,))
    await end(world, me, one, move=move)
    freed = await pass_on(store)
    if state is State.READY:
        assert freed == {}
        await end(world, me, other)
        assert list(await pass_on(store)) == [child.id]
        assert await states(world, child, grandchild) == [State.READY, State.BLOCKED]
        return
    assert set(freed) == {child.id, grandchild.id}
    assert await states(world, child, grandchild) == [state, state]
    view = await world.view(child.id)
    assert view.error is not None
    assert (view.error.type, view.attempt) == ("ParentFailed", 0)
    assert str(one.id) in view.error.message
    below = await world.view(grandchild.id)
    assert below.error is not None
    assert f"join ({child.id})" in below.error.message
    await end(world, me, other)
    assert await pass_on(store) == {}
    assert await states(world, child) == [state]


async def test_children_of_one_commit_may_wait_for_each_other_and_for_their_parent(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    parts = [new_task(band, awaited=True) for _ in range(3)]
    join = new_task(band, parents=tuple(part.id for part in parts))
    after = new_task(band, parents=(claim.id,))
    move = succeeded(children=(*parts, join, after))
    assert (await world.settle(claim, me, move)).committed
    assert await states(world, *parts, join, after) == [State.READY] * 3 + [State.BLOCKED] * 2
    assert list(await pass_on(store)) == [after.id]
    await end(world, me, *parts)
    assert list(await pass_on(store)) == [join.id]


async def test_a_child_of_nobody_is_refused_with_its_attempt(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    child = new_task(band, parents=(new_id(),))
    assert await world.settle(claim, me, succeeded(children=(child,))) is Verdict.REFUSED
    assert await states(world, new_task(band, id=claim.id)) == [State.RUNNING]


async def test_a_task_that_was_there_under_its_key_stands_for_the_one_that_is_not_stored(
    store: Store, world: World, band: Band, me: int
) -> None:
    there = await world.submit(band, key="k")
    again, other = new_task(band, key="k", awaited=True), new_task(band, awaited=True)
    child = new_task(band, parents=(again.id, other.id))
    [[first, *rest]] = await store.accept([[again, other, child]])
    assert first == Duplicate(there.id)
    assert [type(answer) for answer in rest] == [Stored, Stored]
    view = await world.view(child.id)
    assert (view.parents, view.open_parents) == ((there.id, other.id), 2)
    await end(world, me, there, other)
    assert list(await pass_on(store)) == [child.id]
    # the same group again, as after a lost answer, changes nothing
    assert [type(answer) for answer in (await store.accept([[again, other, child]]))[0]] == [
        Duplicate,
        Stored,
        Stored,
    ]
    assert await pass_on(store) == {}
    assert await states(world, child) == [State.READY]


async def test_a_limit_leaves_the_rest_for_the_next_time(
    store: Store, world: World, band: Band, me: int
) -> None:
    parent = new_task(band, awaited=True)
    children = [new_task(band, parents=(parent.id,)) for _ in range(7)]
    await store.accept([[parent, *children]])
    await end(world, me, parent)
    passed = await store.pass_on(3)
    assert (len(passed.freed), passed.more) == (3, True)
    assert set(await pass_on(store, 3)) == {child.id for child in children} - {
        each.id for each in passed.freed
    }


async def test_an_end_that_is_told_again_is_counted_once(
    store: Store, world: World, band: Band, me: int
) -> None:
    [one, other], child = await family(world, band, 2)
    await end(world, me, one)
    assert await pass_on(store) == {}
    late = await world.submit(band, parents=(one.id,))  # tells that end once more
    assert list(await pass_on(store)) == [late.id]
    assert (await world.view(child.id)).open_parents == 1
    await end(world, me, other)
    assert list(await pass_on(store)) == [child.id]


async def test_cancelling_a_blocked_child_or_its_expiry_leaves_the_others(
    store: Store, world: World, band: Band, me: int
) -> None:
    soon = await store.now() + timedelta(seconds=50)
    parent = new_task(band, awaited=True)
    kept = new_task(band, parents=(parent.id,))
    dropped = new_task(band, parents=(parent.id,))
    late = new_task(band, parents=(parent.id,), expires_at=soon)
    await store.accept([[parent, kept, dropped, late]])
    await store.cancel(dropped.id)
    await world.advance(51)
    assert await store.expire(ALL) == [late.id]
    assert await states(world, dropped, late) == [State.CANCELLED] * 2
    await end(world, me, parent)
    assert list(await pass_on(store)) == [kept.id]
    assert await states(world, dropped, late) == [State.CANCELLED] * 2


@pytest.mark.parametrize("how", ["cancel", "expire"])
async def test_a_parent_that_ends_while_it_waits_tells_its_children(
    store: Store, world: World, band: Band, how: str
) -> None:
    expires_at = await store.now() + timedelta(seconds=50)
    parent = await world.submit(band, expires_at=expires_at)
    child = await world.submit(band, parents=(parent.id,))
    if how == "cancel":
        await store.cancel(parent.id)
    else:
        await world.advance(51)
        await store.expire(ALL)
    assert list(await pass_on(store)) == [child.id]
    assert await states(world, child) == [State.CANCELLED]


async def test_a_child_with_a_time_of_its_own_is_not_run_before_it(
    store: Store, world: World, band: Band, me: int
) -> None:
    [parent], child = await family(world, band, delay_s=100.0)
    await end(world, me, parent)
    freed = await pass_on(store)
    assert 90 < freed[child.id].due_in_s <= 100
    assert await states(world, child) == [State.SCHEDULED]
    await world.advance(100)
    assert [claim.id for claim in await world.pull(band, me)] == [child.id]


async def test_a_blocked_message_holds_up_its_key(store: Store, world: World, me: int) -> None:
    band = await world.band("account.deposit", keyed=True)
    parent = await world.submit(await world.band())
    key: dict[str, Any] = {"actor_type": "account", "actor_key": "42"}
    first = await world.submit(band, parents=(parent.id,), **key)
    second = await world.submit(band, **key)
    actor = actor_id("default", "account", "42")
    ask = [Ask(actor=actor, limit=10)]
    assert await store.begin_turns(ask, [band.id], me) == []
    await end(world, me, parent)
    assert (await pass_on(store))[first.id].actor == actor
    [turn] = await store.begin_turns(ask, [band.id], me)
    assert [claim.id for claim in turn.claims] == [first.id, second.id]
    assert turn.claims[0].parents == (parent.id,)


# -- again and again ---------------------------------------------------------------------------------


async def test_replayed_together_a_child_waits_for_its_parent_again(
    store: Store, world: World, band: Band, me: int
) -> None:
    [parent], child = await family(world, band)
    await end(world, me, parent, move=failed())
    await pass_on(store)
    assert await states(world, parent, child) == [State.FAILED] * 2
    assert await store.replay_matching(TaskFilter(ids=(parent.id, child.id)), ALL) == (2, 2)
    assert await states(world, parent, child) == [State.READY, State.BLOCKED]
    assert await pass_on(store) == {}
    await end(world, me, parent)
    assert list(await pass_on(store)) == [child.id]
    [claim] = await world.pull(band, me)
    assert (claim.id, claim.attempt) == (child.id, 1)


async def test_replayed_alone_a_child_hears_again_that_its_parent_failed(
    store: Store, world: World, band: Band, me: int
) -> None:
    [parent], child = await family(world, band)
    await end(world, me, parent, move=failed())
    await pass_on(store)
    assert (await store.replay(child.id)).state is State.BLOCKED
    assert (await pass_on(store))[child.id].status is Status.FAILED
    await store.replay(parent.id)
    assert (await store.replay(child.id)).state is State.BLOCKED
    await end(world, me, parent)
    assert list(await pass_on(store)) == [child.id]
    assert await states(world, child) == [State.READY]


async def test_a_parent_is_kept_until_its_children_have_ended(
    store: Store, world: World, band: Band, me: int
) -> None:
    [one, other], child = await family(world, band, 2)
    await end(world, me, one)
    await pass_on(store)
    await world.advance(100)
    retention: dict[str, Any] = {"finished_before_s": 50, "keys_before_s": 0, "limit": ALL}
    await store.tidy_dependences()
    assert await store.forget(**retention) == 0
    await end(world, me, other)
    await pass_on(store)
    await world.advance(100)
    await store.tidy_dependences()
    assert await store.forget(**retention) == 0
    assert [parent.result for parent in await store.parents((one.id, other.id), 100)] == [b"42", b"42"]
    await end(world, me, child)
    await world.advance(100)
    await store.tidy_dependences()
    assert await store.forget(**retention) == 3
    assert (await store.parents((one.id,), 100))[0].state is None


# -- reading -----------------------------------------------------------------------------------------


async def test_results_come_in_order_as_long_as_all_stay_within_the_bound(
    store: Store, world: World, band: Band, me: int
) -> None:
    a = await world.end(band, me, succeeded(b'"aaaa"'), name="a")
    b = await world.end(band, me, failed())
    c = await world.end(band, me, succeeded(b'"cccc"'))
    d = await world.submit(band)
    gone = new_id()
    found = await store.parents((c.id, a.id, b.id, d.id, gone), 8)
    assert [view.id for view in found] == [c.id, a.id, b.id, d.id, gone]
    assert [view.result for view in found] == [b'"cccc"', None, None, None, None]
    assert [view.result_bytes for view in found] == [6, 6, 0, 0, 0]
    assert [view.state for view in found] == [
        State.SUCCEEDED,
        State.SUCCEEDED,
        State.FAILED,
        State.READY,
        None,
    ]
    assert [view.name for view in found] == ["", "a", "", "", ""]
    assert found[2].error == b.error


async def test_a_workflow_tells_its_tasks_and_how_far_they_are(
    store: Store, world: World, band: Band, me: int
) -> None:
    older, newer = new_id(), new_id()
    root = new_task(band, workflow_id=newer, name="root", awaited=True)
    left, right = (
        new_task(band, workflow_id=newer, name=name, parents=(root.id,), awaited=True)
        for name in ("left", "right")
    )
    join = new_task(band, workflow_id=newer, name="join", parents=(left.id, right.id))
    await store.accept([[root, left, right, join], [new_task(band, workflow_id=older)]])
    view = await store.workflow(newer, ALL)
    assert view is not None
    assert (view.state, view.total, view.ended) == ("running", 4, 0)
    assert view.counts == {State.READY: 1, State.BLOCKED: 3}
    assert [task.name for task in view.tasks] == ["root", "left", "right", "join"]
    assert view.tasks[3].parents == (left.id, right.id)
    await end(world, me, root)
    await pass_on(store)
    await end(world, me, left, move=failed())
    await pass_on(store)
    view = await store.workflow(newer, 2)
    assert view is not None
    assert view.counts == {State.SUCCEEDED: 1, State.FAILED: 2, State.READY: 1}
    assert [task.state for task in view.tasks] == [State.SUCCEEDED, State.FAILED]
    await end(world, me, right)
    found = await store.workflows("default", 10)
    assert [(each.id, each.state) for each in found] == [(newer, "failed"), (older, "running")]
    assert [each.id for each in await store.workflows("default", 1, newer)] == [older]
    assert await store.workflows("other", 10) == []
    assert await store.workflow(new_id(), ALL) is None


async def test_a_whole_workflow_is_cancelled_without_a_dead_letter(
    store: Store, world: World, band: Band, me: int
) -> None:
    workflow = new_id()
    root = new_task(band, workflow_id=workflow, awaited=True)
    children = [
        new_task(band, workflow_id=workflow, parents=(root.id,), on_parent_failure=policy)
        for policy in OnParentFailure
    ]
    await store.accept([[root, *children]])
    assert await store.cancel_matching(TaskFilter(workflow_id=workflow), ALL) == (4, 4)
    await pass_on(store)
    assert await states(world, root, *children) == [State.CANCELLED] * 4


async def test_blocked_tasks_are_counted_and_listed_as_such(store: Store, world: World, band: Band) -> None:
    _, child = await family(world, band, 2)
    await world.submit(band, delay_s=100.0)
    [count] = (await store.census()).bands
    assert (count.ready, count.scheduled, count.blocked) == (2, 1, 1)
    assert [view.id for view in (await store.list(TaskFilter(states=(State.BLOCKED,)), 10)).tasks] == [
        child.id
    ]
    assert len((await store.list(TaskFilter(states=(State.READY, State.BLOCKED)), 10)).tasks) == 3
    assert len((await store.list(TaskFilter(states=(State.SCHEDULED,)), 10)).tasks) == 1
