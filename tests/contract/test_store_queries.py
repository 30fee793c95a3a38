"""Reading: views, filters, pages, attempts, progress, counts."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson
import pytest

from runtime.core.task import BandCount, Lane, Progress, State, TaskFilter, TaskView
from tests.support.factories import cancelled, error, failed, new_id, new_task, requeue, succeeded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from runtime.core.task import Band, NewTask
    from runtime.ports import Store
    from tests.contract.world import World


async def listed(store: Store, which: TaskFilter | None = None, limit: int = 50) -> list[UUID]:
    """Every page; ids as they came."""
    which, ids, before, pages = which or TaskFilter(), [], None, 0
    while True:
        page = await store.list(which, limit, before)
        assert len(page.tasks) <= limit
        ids += [view.id for view in page.tasks]
        pages += 1
        assert pages < 200, "a list that does not end"
        if page.next_cursor is None:
            return ids
        assert before is None or page.next_cursor < before
        before = page.next_cursor


def newest_first(tasks: Sequence[UUID]) -> list[UUID]:
    return sorted(tasks, reverse=True)


# -- views -------------------------------------------------------------------------------------------


async def test_a_view_shows_what_was_accepted(store: Store, world: World) -> None:
    band = await world.band("resize", Lane.HIGH, tenant="t1", requires=("gpu", "x"), keyed=True)
    now = await store.now()
    task = new_task(
        band,
        tenant="t1",
        key="k",
        slot=4095,
        max_attempts=9,
        timeout_s=0.25,
        actor_type="account",
        actor_key="42",
        prefers=("eu", "us"),
        run_at=now + timedelta(hours=1),
        expires_at=now + timedelta(hours=2),
        metadata=b'{"a":{"b":[1,2.5,null,true,"\\u00e4"]}}',
        created_by="alice",
        trace_context="00-trace",
        workflow_id=new_id(),
    )
    [stored] = await world.accept(task)
    view = await world.view(task.id)
    assert (view.handler, view.lane, view.tenant, view.requires) == ("resize", Lane.HIGH, "t1", ("gpu", "x"))
    assert (view.slot, view.max_attempts, view.timeout_s) == (4095, 9, 0.25)
    assert (view.idempotency_key, view.actor_key, view.prefers) == ("k", "42", ("eu", "us"))
    assert (view.run_at, view.due, view.expires_at) == (task.run_at, task.run_at, task.expires_at)
    assert (view.created_by, view.trace_context, view.workflow_id) == ("alice", "00-trace", task.workflow_id)
    assert view.created_at == stored.created_at
    assert view.metadata is not None
    assert orjson.loads(view.metadata) == {"a": {"b": [1, 2.5, None, True, "ä"]}}


async def test_a_view_of_the_least_task_has_no_extras(store: Store, world: World, band: Band) -> None:
    view = await world.view((await world.submit(band)).id)
    empty = (
        "idempotency_key actor_key started_at finished_at expires_at cancel_requested_at node metadata "
        "trace_context workflow_id result error progress"
    )
    assert {name: getattr(view, name) for name in empty.split()} == dict.fromkeys(empty.split())
    assert (view.requires, view.prefers, view.created_by, view.suspect) == ((), (), "", False)
    assert (view.failures, view.crashes, view.attempt) == (0, 0, 0)
    assert view.created_at.utcoffset() == timedelta(0)


async def test_there_is_no_view_of_nothing(store: Store) -> None:
    assert await store.get(new_id()) is None
    assert await store.get_many([new_id(), new_id()]) == []
    assert await store.get_many([]) == []
    assert await store.finished([]) == []
    assert await store.attempts(new_id()) == []


async def test_get_many_has_each_task_that_exists_once(
    store: Store, world: World, band: Band, me: int
) -> None:
    waiting, running, ended = await world.submit(band), await world.start(band, me), await world.end(band, me)
    wanted = [ended.id, new_id(), waiting.id, running.id, waiting.id]
    views = await store.get_many(wanted)
    assert sorted(view.id for view in views) == sorted({waiting.id, running.id, ended.id})
    for view in views:
        assert view == await store.get(view.id)


async def test_finished_has_only_what_is_final_with_results(
    store: Store, world: World, band: Band, me: int
) -> None:
    waiting, running = await world.submit(band), await world.start(band, me)
    good = await world.end(band, me, succeeded(b"r"))
    bad, gone = await world.end(band, me, failed()), await world.end(band, me, cancelled())
    views = await store.finished([waiting.id, good.id, running.id, gone.id, new_id(), bad.id])
    assert {view.id: view for view in views} == {view.id: view for view in (good, bad, gone)}
    assert {view.id: view.result for view in views}[good.id] == b"r"


# -- list --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 500])
async def test_pages_lose_and_repeat_nothing(store: Store, world: World, band: Band, limit: int) -> None:
    tasks = [new_task(band) for _ in range(20)]
    await world.accept(*tasks)
    assert await listed(store, limit=limit) == newest_first([task.id for task in tasks])


async def test_tasks_of_all_states_come_newest_first(store: Store, world: World, band: Band, me: int) -> None:
    ids = [
        (await world.end(band, me)).id,
        (await world.submit(band)).id,
        (await world.start(band, me)).id,
        (await world.end(band, me, failed())).id,
        (await world.submit(band, delay_s=60)).id,
    ]
    assert await listed(store) == newest_first(ids)
    assert await listed(store, limit=2) == newest_first(ids)


async def test_a_cursor_is_a_place_not_a_row(store: Store, world: World, band: Band, me: int) -> None:
    tasks = [await world.submit(band) for _ in range(6)]
    ids = [task.id for task in tasks]
    first = await store.list(TaskFilter(), 2)
    assert [view.id for view in first.tasks] == ids[:3:-1]
    assert first.next_cursor is not None
    [claim] = await store.claim([(first.next_cursor, 1)], me)
    await world.settle(claim, me, failed())
    await store.purge_matching(TaskFilter(ids=(first.next_cursor,)), 1)  # its row is gone
    newer = await world.submit(band)
    second = await store.list(TaskFilter(), 10, first.next_cursor)
    assert [view.id for view in second.tasks] == ids[3::-1]
    assert newer.id not in {view.id for view in second.tasks}


async def test_a_list_of_nothing_is_one_empty_page(store: Store) -> None:
    page = await store.list(TaskFilter(), 10)
    assert (page.tasks, page.next_cursor) == ((), None)


async def test_a_list_has_everything_but_results(store: Store, world: World, band: Band, me: int) -> None:
    await world.end(band, me, succeeded(b"r"))
    await world.end(band, me, failed(error=error("why")))
    await world.start(band, me)
    await world.submit(band, metadata=b'{"a": 1}')
    page = await store.list(TaskFilter(), 10)
    assert len(page.tasks) == 4
    for view in page.tasks:
        full = await world.view(view.id)
        assert view.result is None
        for each in fields(TaskView):
            if each.name != "result":
                assert getattr(view, each.name) == getattr(full, each.name), each.name


async def test_a_rare_task_below_many_others_is_found(
    store: Store, world: World, band: Band, me: int
) -> None:
    rare = await world.band("rare")
    failure = await world.end(rare, me, failed(error=error(type="KeyError")))
    wanted = await world.submit(rare, delay_s=60)
    running = await world.start(rare, me)
    for _ in range(8):
        await store.accept([[new_task(band) for _ in range(500)]])
    await world.pull(band, me, 300)
    expected = newest_first([failure.id, wanted.id, running.id])
    assert await listed(store, TaskFilter(handler="rare"), limit=2) == expected
    assert await listed(store, TaskFilter(states=(State.SCHEDULED,)), limit=2) == [wanted.id]
    assert await listed(store, TaskFilter(error_type="KeyError"), limit=2) == [failure.id]
    assert await store.cancel_matching(TaskFilter(handler="rare"), 2, dry_run=True) == (2, 0)
    assert await store.cancel_matching(TaskFilter(handler="rare"), 2) == (2, 2)
    assert await store.replay_matching(TaskFilter(handler="rare", states=(State.FAILED,)), 2) == (1, 1)


class Crowd:
    """Tasks that differ in everything a filter can ask for."""

    def __init__(self) -> None:
        self.ids: dict[str, UUID] = {}

    async def fill(self, world: World, me: int) -> None:
        echo, other = await world.band("echo"), await world.band("other")
        theirs = await world.band("echo", tenant="theirs")
        self.workflow = new_id()
        await self._add(world, "old", new_task(echo, id=new_id(age_s=100)))
        await world.advance(100)
        self.t1 = await world.store.now()
        await self._add(world, "scheduled", new_task(echo, delay_s=60))
        await self._add(world, "ready", new_task(other, key="k1"))
        await self._add(world, "keyed", new_task(echo, actor_type="a", actor_key="42"))
        await self._add(world, "in workflow", new_task(echo, workflow_id=self.workflow))
        await self._add(world, "theirs", new_task(theirs, tenant="theirs", key="k1"))
        self.ids["running"] = (await world.start(echo, me)).id
        self.ids["succeeded"] = (await world.end(other, me)).id
        self.ids["failed"] = (await world.end(echo, me, failed(error=error(type="KeyError")))).id
        self.ids["failed in workflow"] = (await world.end(other, me, failed(), workflow_id=self.workflow)).id
        self.ids["cancelled"] = (await world.end(echo, me, cancelled())).id
        again = await world.start(echo, me)
        await world.settle(again, me, requeue(delay_s=60))
        self.ids["retried"] = again.id

    async def _add(self, world: World, name: str, task: NewTask) -> None:
        await world.accept(task)
        self.ids[name] = task.id

    def cases(self) -> list[tuple[TaskFilter, set[str]]]:
        ids, everything = self.ids, set(self.ids)
        others = {"ready", "succeeded", "failed in workflow"}
        return [
            (TaskFilter(), everything),
            (TaskFilter(ids=(ids["ready"], ids["failed"], new_id())), {"ready", "failed"}),
            (TaskFilter(ids=(new_id(),)), set()),
            (TaskFilter(tenant="theirs"), {"theirs"}),
            (TaskFilter(tenant="default"), everything - {"theirs"}),
            (TaskFilter(tenant="nobody"), set()),
            (TaskFilter(handler="other"), others),
            (TaskFilter(handler="echo"), everything - others),
            (TaskFilter(handler="nothing"), set()),
            (TaskFilter(states=(State.SCHEDULED,)), {"scheduled", "retried"}),
            (TaskFilter(states=(State.READY,)), {"old", "ready", "keyed", "in workflow", "theirs"}),
            (TaskFilter(states=(State.RUNNING,)), {"running"}),
            (TaskFilter(states=(State.SUCCEEDED,)), {"succeeded"}),
            (TaskFilter(states=(State.FAILED,)), {"failed", "failed in workflow"}),
            (TaskFilter(states=(State.CANCELLED,)), {"cancelled"}),
            (TaskFilter(states=(State.BLOCKED,)), set()),
            (
                TaskFilter(states=(State.RUNNING, State.SUCCEEDED, State.CANCELLED)),
                {"running", "succeeded", "cancelled"},
            ),
            (
                TaskFilter(states=(State.READY, State.FAILED), handler="other"),
                {"ready", "failed in workflow"},
            ),
            (TaskFilter(actor_key="42"), {"keyed"}),
            (TaskFilter(tenant="default", actor_key="42"), {"keyed"}),
            (TaskFilter(actor_key="43"), set()),
            (TaskFilter(idempotency_key="k1"), {"ready", "theirs"}),
            (TaskFilter(tenant="default", idempotency_key="k1"), {"ready"}),
            (TaskFilter(workflow_id=self.workflow), {"in workflow", "failed in workflow"}),
            (TaskFilter(workflow_id=self.workflow, states=(State.FAILED,)), {"failed in workflow"}),
            (TaskFilter(created_after=self.t1), everything - {"old"}),
            (TaskFilter(created_before=self.t1), {"old"}),
            (TaskFilter(created_after=self.t1, created_before=self.t1), set()),
            (TaskFilter(error_type="KeyError"), {"failed"}),
            (TaskFilter(error_type="ValueError"), {"failed in workflow"}),
            (TaskFilter(error_type="KeyError", states=(State.CANCELLED,)), set()),
        ]


@pytest.mark.parametrize("limit", [2, 50])
async def test_every_filter_lists_what_it_says(store: Store, world: World, me: int, limit: int) -> None:
    crowd = Crowd()
    await crowd.fill(world, me)
    for which, names in crowd.cases():
        expected = newest_first([crowd.ids[name] for name in names])
        assert await listed(store, which, limit) == expected, which


async def test_every_filter_matches_the_same_for_operations(store: Store, world: World, me: int) -> None:
    crowd = Crowd()
    await crowd.fill(world, me)
    unfinished = {"old", "scheduled", "ready", "keyed", "in workflow", "theirs", "running", "retried"}
    for which, names in crowd.cases():
        dead = {"failed", "failed in workflow"} | (
            {"cancelled"} if State.CANCELLED in which.states else set()
        )
        assert await store.cancel_matching(which, 100, dry_run=True) == (len(names & unfinished), 0), which
        assert await store.replay_matching(which, 100, dry_run=True) == (len(names & dead), 0), which
        assert await store.purge_matching(which, 100, dry_run=True) == (len(names & dead), 0), which


# -- progress ----------------------------------------------------------------------------------------


async def test_progress_of_running_attempts_is_shown(store: Store, world: World, band: Band, me: int) -> None:
    one, two = await world.start(band, me), await world.start(band, me)
    first, second = Progress(done=1, total=4, message="ü 1/4"), Progress(done=0.5)
    await store.report_progress(me, {(one.id, 1): first, (two.id, 1): second})
    assert (await world.view(one.id)).progress == first
    assert (await world.view(two.id)).progress == second
    newer = Progress(done=2, total=4)
    await store.report_progress(me, {(one.id, 1): newer})
    assert (await world.view(one.id)).progress == newer
    assert (await world.view(two.id)).progress == second
    await store.report_progress(me, {})


async def test_progress_of_others_is_ignored(store: Store, world: World, band: Band, me: int) -> None:
    claim, waiting = await world.start(band, me), await world.submit(band)
    other = await world.member("other")
    late = Progress(done=9)
    await store.report_progress(me, {(claim.id, 2): late, (waiting.id, 1): late, (new_id(), 1): late})
    await store.report_progress(other, {(claim.id, 1): late})
    assert (await world.view(claim.id)).progress is None
    assert (await world.view(waiting.id)).progress is None


async def test_progress_ends_with_its_attempt(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    await store.report_progress(me, {(claim.id, 1): Progress(done=1)})
    await world.settle(claim, me, requeue())
    assert (await world.view(claim.id)).progress is None
    [again] = await world.pull(band, me)
    assert (await world.view(claim.id)).progress is None
    await store.report_progress(me, {(claim.id, 1): Progress(done=2)})
    assert (await world.view(again.id)).progress is None


# -- census ------------------------------------------------------------------------------------------


async def counts(store: Store) -> dict[int, tuple[int, int, int]]:
    """(ready, scheduled, running) of each band that has any."""
    bands = {
        count.band: (count.ready, count.scheduled, count.running) for count in (await store.census()).bands
    }
    assert len(bands) == len((await store.census()).bands)
    return {band: numbers for band, numbers in bands.items() if any(numbers)}


async def test_an_empty_record_counts_nothing(store: Store) -> None:
    census = await store.census()
    assert await counts(store) == {}
    assert (census.succeeded, census.failed, census.cancelled) == (0, 0, 0)


async def test_the_census_counts_by_band(store: Store, world: World, me: int) -> None:
    one, two = await world.band("one"), await world.band("two")
    for delay_s in (0, 0, 0, 60):
        await world.submit(one, delay_s=delay_s)
    claim = await world.start(two, me)
    await world.start(two, me)
    await world.settle(claim, me, requeue(suspect=True))
    for end in (succeeded(), succeeded(), failed(), failed(), failed(), cancelled()):
        await world.end(two, me, end)
    assert await counts(store) == {one.id: (3, 1, 0), two.id: (0, 0, 1), -two.id: (1, 0, 0)}
    census = await store.census()
    assert (census.failed, census.cancelled) == (3, 1)
    assert census.succeeded_is_estimate or census.succeeded == 2
    await world.advance(60)
    assert (await counts(store))[one.id] == (4, 0, 0)
    await world.pull(-two.id, me, alone=True)
    assert (await counts(store))[two.id] == (0, 0, 2)


async def test_the_census_knows_the_oldest_due_row(store: Store, world: World, band: Band, me: int) -> None:
    async def oldest() -> float:
        [count] = [count for count in (await store.census()).bands if count.band == band.id]
        assert isinstance(count, BandCount)
        return count.oldest_due_s

    await world.submit(band, delay_s=60)
    assert await oldest() == 0
    await world.submit(band)
    await world.advance(10)
    await world.submit(band)
    assert 10 <= await oldest() < 20
    await world.pull(band, me, 1)
    assert 0 <= await oldest() < 10


async def test_now_goes_on_with_the_time(store: Store, world: World) -> None:
    instants = [await store.now() for _ in range(5)]
    assert all(earlier <= later for earlier, later in pairwise(instants))
    assert instants[0].utcoffset() == timedelta(0)
