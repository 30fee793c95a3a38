"""What people do to many tasks at once, by filter: cancel, replay, purge; dry runs and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from runtime.core.task import State, Stored, TaskFilter
from tests.contract.world import ALL
from tests.support.factories import cancelled, error, failed, new_id, new_task

if TYPE_CHECKING:
    from uuid import UUID

    from runtime.core.task import Band
    from runtime.ports import Store
    from tests.contract.world import World


class Operation(Protocol):
    async def __call__(self, which: TaskFilter, limit: int, *, dry_run: bool = False) -> tuple[int, int]: ...


async def states(world: World, ids: list[UUID]) -> list[State]:
    return [(await world.view(task_id)).state for task_id in ids]


# -- cancel ------------------------------------------------------------------------------------------


async def test_cancel_matching_ends_what_waits_and_asks_what_runs(
    store: Store, world: World, band: Band, me: int
) -> None:
    waiting = [(await world.submit(band, delay_s=delay_s)).id for delay_s in (0, 60)]
    running = (await world.start(band, me)).id
    done = (await world.end(band, me)).id
    everything = [*waiting, running, done]
    assert await store.cancel_matching(TaskFilter(), ALL, dry_run=True) == (3, 0)
    assert await states(world, everything) == [
        State.READY,
        State.SCHEDULED,
        State.RUNNING,
        State.SUCCEEDED,
    ]
    assert await store.cancel_requests(me) == []
    assert await store.cancel_matching(TaskFilter(), ALL) == (3, 3)
    assert await states(world, everything) == [
        State.CANCELLED,
        State.CANCELLED,
        State.RUNNING,
        State.SUCCEEDED,
    ]
    assert await store.cancel_requests(me) == [(running, 1)]
    assert await store.cancel_matching(TaskFilter(), ALL) == (0, 0)


async def test_cancel_matching_takes_only_what_matches(store: Store, world: World, me: int) -> None:
    mine, theirs = await world.band("mine"), await world.band("theirs")
    ready, scheduled = await world.submit(mine), await world.submit(mine, delay_s=60)
    running = await world.start(mine, me)
    other = await world.submit(theirs)
    assert await store.cancel_matching(TaskFilter(handler="mine", states=(State.SCHEDULED,)), ALL) == (1, 1)
    assert (await world.view(scheduled.id)).state is State.CANCELLED
    assert await store.cancel_matching(TaskFilter(handler="mine", states=(State.RUNNING,)), ALL) == (1, 1)
    assert (await world.view(running.id)).cancel_requested_at is not None
    assert await store.cancel_matching(TaskFilter(states=(State.FAILED,)), ALL) == (0, 0)
    assert await states(world, [ready.id, other.id]) == [State.READY, State.READY]


# -- replay ------------------------------------------------------------------------------------------


async def test_replay_matching_opens_dead_letters_only(
    store: Store, world: World, band: Band, me: int
) -> None:
    dead = [(await world.end(band, me, failed())).id for _ in range(2)]
    stopped = (await world.end(band, me, cancelled())).id
    others = [(await world.end(band, me)).id, (await world.submit(band)).id, (await world.start(band, me)).id]
    before = await states(world, [*dead, stopped, *others])
    assert await store.replay_matching(TaskFilter(), ALL, dry_run=True) == (2, 0)
    assert await states(world, [*dead, stopped, *others]) == before
    assert await store.replay_matching(TaskFilter(), ALL) == (2, 2)
    assert await states(world, dead) == [State.READY] * 2
    assert await states(world, [stopped, *others]) == before[2:]
    assert (await world.view(dead[0])).failures == 0


@pytest.mark.parametrize(
    ("asked", "replayed"),
    [
        ((State.CANCELLED,), ["cancelled"]),
        ((State.FAILED,), ["failed"]),
        ((State.FAILED, State.CANCELLED), ["failed", "cancelled"]),
        ((State.SUCCEEDED, State.READY, State.RUNNING), []),
    ],
)
async def test_replay_and_purge_take_cancelled_tasks_when_asked(
    world: World, band: Band, me: int, asked: tuple[State, ...], replayed: list[str]
) -> None:
    ended = {
        "failed": await world.end(band, me, failed()),
        "cancelled": await world.end(band, me, cancelled()),
        "succeeded": await world.end(band, me),
    }
    which = TaskFilter(states=asked)
    for operation in (world.store.purge_matching, world.store.replay_matching):
        assert await operation(which, ALL, dry_run=True) == (len(replayed), 0)
    assert await world.store.replay_matching(which, ALL) == (len(replayed), len(replayed))
    for name, view in ended.items():
        assert ((await world.view(view.id)).state is State.READY) is (name in replayed)


async def test_replay_matching_by_error_type(store: Store, world: World, band: Band, me: int) -> None:
    key = (await world.end(band, me, failed(error=error(type="KeyError")))).id
    await world.end(band, me, failed(error=error(type="ValueError")))
    await world.end(band, me, failed(error=None))
    assert await store.replay_matching(TaskFilter(error_type="KeyError"), ALL) == (1, 1)
    assert (await world.view(key)).state is State.READY


# -- purge -------------------------------------------------------------------------------------------


async def test_purge_matching_deletes_dead_letters_for_good(
    store: Store, world: World, band: Band, me: int
) -> None:
    task = new_task(band, key="k")
    await world.accept(task)
    [claim] = await world.pull(band, me)
    await world.settle(claim, me, failed())
    kept = [(await world.end(band, me)).id, (await world.submit(band)).id, (await world.start(band, me)).id]
    assert await store.purge_matching(TaskFilter(), ALL, dry_run=True) == (1, 0)
    assert await store.get(task.id) is not None
    assert await store.purge_matching(TaskFilter(), ALL) == (1, 1)
    assert await store.get(task.id) is None
    assert await store.attempts(task.id) == []
    assert await store.finished([task.id]) == []
    assert (await store.census()).failed == 0
    assert len(await store.get_many(kept)) == 3
    [[again]] = await store.accept([[new_task(band, key="k", request="b")]])
    assert isinstance(again, Stored)  # the key is free


async def test_purge_deletes_the_attempts_too(store: Store, world: World, band: Band, me: int) -> None:
    view = await world.end(band, me, failed())
    await store.replay(view.id)
    [claim] = await world.pull(band, me)
    await world.settle(claim, me, failed())
    assert len(await store.attempts(view.id)) == 1
    await store.purge_matching(TaskFilter(ids=(view.id,)), ALL)
    assert await store.attempts(view.id) == []


# -- limits ------------------------------------------------------------------------------------------


WORKFLOW = new_id()
NARROW = {
    "everything": TaskFilter(),
    "handler": TaskFilter(handler="echo"),
    "tenant": TaskFilter(tenant="default"),
    "workflow": TaskFilter(workflow_id=WORKFLOW),
    "actor key": TaskFilter(actor_key="42"),
    "tenant's actor key": TaskFilter(tenant="default", actor_key="42"),
    "states": TaskFilter(states=(State.READY, State.RUNNING, State.FAILED)),
}


@pytest.mark.parametrize("which", NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("name", ["cancel", "replay", "purge"])
async def test_small_limits_reach_everything_that_matches(
    world: World, band: Band, me: int, name: str, which: TaskFilter
) -> None:
    store = world.store
    operation: Operation = getattr(store, f"{name}_matching")
    narrow = {"workflow_id": WORKFLOW, "actor_type": "account", "actor_key": "42"}
    if name == "cancel":  # what runs and was asked before must not stand in the way of the rest
        running = [claim.id for claim in await world.start_all(band, me, 4, **narrow)]
        ids = [(await world.submit(band, **narrow)).id for _ in range(5)] + running
    else:
        ids = [(await world.end(band, me, failed(), **narrow)).id for _ in range(9)]
    changed: list[int] = []
    while (count := (await operation(which, 2))[1]) and len(changed) < 20:
        changed.append(count)
    assert sum(changed) == 9
    assert max(changed) == 2
    assert await operation(which, 2, dry_run=True) == (0, 0)
    views = {view.id: view for view in await store.get_many(ids)}
    match name:
        case "cancel":
            assert len(await store.cancel_requests(me)) == 4
            assert [views[task_id].state for task_id in ids[:5]] == [State.CANCELLED] * 5
        case "replay":
            assert [view.state for view in views.values()] == [State.READY] * 9
        case _:
            assert views == {}


async def test_who_was_asked_to_cancel_matches_no_more(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me, idempotency_key="k", digest=b"d" * 32, actor_type="a", actor_key="42")
    await store.cancel(claim.id)
    for which in (
        TaskFilter(),
        TaskFilter(ids=(claim.id,)),
        TaskFilter(idempotency_key="k"),
        TaskFilter(tenant="default", idempotency_key="k"),
        TaskFilter(tenant="default", actor_key="42"),
        TaskFilter(states=(State.RUNNING,)),
        TaskFilter(handler="echo"),
    ):
        assert await store.cancel_matching(which, ALL, dry_run=True) == (0, 0), which
        assert await store.cancel_matching(which, ALL) == (0, 0), which


@pytest.mark.parametrize("name", ["cancel", "replay", "purge"])
async def test_a_filter_that_matches_nothing_changes_nothing(
    world: World, band: Band, me: int, name: str
) -> None:
    operation: Operation = getattr(world.store, f"{name}_matching")
    await world.submit(band)
    await world.end(band, me, failed())
    for which in (TaskFilter(ids=(new_id(),)), TaskFilter(handler="nobody"), TaskFilter(tenant="nobody")):
        assert await operation(which, ALL) == (0, 0)
    census = await world.store.census()
    assert (census.failed, census.cancelled) == (1, 0)
