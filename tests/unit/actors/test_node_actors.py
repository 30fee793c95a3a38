"""What the actors of a node do together: turns, repair, drain, isolation, retention, and those who wait."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from actors import Context, handler, task
from actors.authoring.registry import Kind
from actors.executor.messages import SuspectsWait, Waits
from actors.keyed.fence import boottime_s
from actors.router.messages import AwaitEnd
from actors.world import Keeping
from runtime.core import decisions
from runtime.core.task import AttemptKind, Finish, Settlement, State, Status, Take, TaskFilter, TaskView
from runtime.errors import AskTimeout, Overloaded, Unavailable
from tests.support.actor_rig import Gates, Rig

if TYPE_CHECKING:
    from actors.authoring.options import Priority


@handler("gated", timeout_s=1000)
async def gated(ctx: Context, n: int = 0) -> int:
    await ctx.use(Gates).pass_through(n)
    return n


@handler("quick")
async def quick(ctx: Context, n: Any = 0) -> Any:
    ctx.use(Gates).started.append(n)
    return n


@handler("deaf", timeout_s=1000)
async def deaf(ctx: Context) -> None:
    while not ctx.use(Gates).opened:
        with contextlib.suppress(asyncio.CancelledError):
            await ctx.use(Gates).pass_through("not listening")


# -- turns ------------------------------------------------------------------------------------------


async def test_high_overtakes_a_backlog_and_low_is_not_starved() -> None:
    async with Rig(gated, quick, concurrency=1) as rig:
        holding = await rig.submit(task(gated))
        lanes: tuple[Priority, ...] = ("low", "medium", "high")
        for lane in lanes:
            await rig.asking(*(task(quick, n=lane).options(priority=lane) for _ in range(40)))
        rig.gates.started.clear()
        rig.gates.open()
        await rig.advance(0)
        assert holding.state is State.SUCCEEDED
        started = rig.gates.started
        assert len(started) == 120
        assert started[0] == "high"
        shares = [started[:52].count(priority) for priority in ("high", "medium", "low")]
        assert shares[0] >= 28
        assert shares[1] >= 12
        assert shares[2] >= 3


async def test_within_a_band_the_oldest_is_first() -> None:
    async with Rig(gated, quick, concurrency=1) as rig:
        await rig.submit(task(gated))
        await rig.asking(*(task(quick, n=n) for n in range(30)))
        rig.gates.started.clear()
        rig.gates.open()
        await rig.advance(0)
        assert rig.gates.started == list(range(30))


async def test_a_paused_handler_waits_and_goes_on() -> None:
    async with Rig(quick) as rig:
        await rig.store.set_paused("quick", paused=True)
        await rig.advance(1)
        waiting = await rig.submit(task(quick))
        await rig.advance(5)
        assert waiting.state == "ready"
        await rig.store.set_paused("quick", paused=False)
        await rig.advance(1)
        assert waiting.state is State.SUCCEEDED


async def test_a_sweep_comes_although_a_pull_is_always_under_way() -> None:
    async with Rig(gated, quick, concurrency=2) as rig:
        seen = await rig.submit(task(quick).options(delay_s=1))
        await rig.advance(1)  # from here on its band is pulled from a watermark on
        assert seen.state is State.SUCCEEDED
        asked: list[Take] = []
        holding = asyncio.Event()
        real = rig.store.pull

        async def slow_pull(takes: list[Take], incarnation: int, *, alone: bool = False) -> Any:
            asked.extend(takes)
            await holding.wait()
            return await real(takes, incarnation, alone=alone)

        rig.store.pull = slow_pull  # type: ignore[method-assign, assignment] # as on a slow record
        rig.actors.executor.tell(Waits(frozenset({rig.band_of(seen)})))
        await rig.advance(1.2)
        before = len(asked)
        assert before
        holding.set()
        await rig.settle()
        assert len(asked) > before
        assert all(take.since is None for take in asked[before:][:1])


async def test_bands_that_others_serve_are_no_backlog() -> None:
    async with Rig(quick) as rig:
        foreign = await rig.submit(task(quick).options(requires=["gpu"]))
        await rig.advance(2)
        assert (foreign.state, list(rig.world.capacity.backlog)) == ("ready", [])


# -- drain ------------------------------------------------------------------------------------------


async def test_drain_lets_work_end_and_claims_nothing_more() -> None:
    async with Rig(gated, concurrency=1) as rig:
        running = await rig.submit(task(gated))
        waiting = await rig.submit(task(gated))
        draining = rig.draining(within_s=10)
        await rig.advance(5)
        rig.gates.open()
        await rig.advance(1)
        drained = await draining
        assert (drained.finished, drained.released) == (1, 0)
        assert (running.state, waiting.state) == (State.SUCCEEDED, State.READY)
        assert [node.state for node in await rig.store.nodes()] == ["left"]


async def test_drain_hands_back_what_does_not_end_in_time_and_burns_nothing() -> None:
    async with Rig(gated, concurrency=2) as rig:
        running = [await rig.submit(task(gated, n=n)) for n in range(2)]
        draining = rig.draining(within_s=10)
        await rig.advance(9.9)
        assert [each.state for each in running] == [State.RUNNING] * 2
        await rig.advance(0.3)
        drained = await draining
        assert (drained.finished, drained.released) == (0, 2)
        for each in running:
            assert (each.state, each.attempt, each.failures, each.view.crashes) == (State.READY, 1, 0, 0)
            assert each.attempts[0].kind is AttemptKind.RELEASED


async def test_a_drain_may_be_asked_for_twice_and_the_sooner_counts() -> None:
    async with Rig(gated) as rig:
        running = await rig.submit(task(gated))
        first, second = rig.draining(within_s=60), rig.draining(within_s=2)
        await rig.advance(2.2)
        assert [(await each).released for each in (first, second)] == [1, 1]
        assert running.state is State.READY


async def test_a_body_that_does_not_listen_neither_blocks_a_drain_nor_burns_a_budget() -> None:
    async with Rig(deaf) as rig:
        running = await rig.submit(task(deaf))
        draining = rig.draining(within_s=1)
        await rig.advance(8)
        drained = await draining
        assert drained.released == 1
        assert (running.state, running.failures, running.view.crashes) == (State.READY, 0, 0)
        assert [node.state for node in await rig.store.nodes()] == ["left"]
        rig.gates.open()


async def test_a_drain_while_the_record_is_away_ends_in_bounded_time() -> None:
    async with Rig(gated) as rig:
        await rig.submit(task(gated))
        heal = rig.fault("settle", Unavailable("away"))
        draining = rig.draining(within_s=1)
        await rig.advance(9.1)
        with pytest.raises(AskTimeout):
            await draining
        assert [node.state for node in await rig.store.nodes()] == ["left"]
        heal()
        await rig.advance(2)


# -- those who wait ---------------------------------------------------------------------------------


async def waiting_for(rig: Rig, each: Any, within_s: float = 30) -> asyncio.Task[TaskView | None]:
    asking = asyncio.create_task(rig.actors.router.ask(AwaitEnd(each.id), within_s))
    await rig.advance(0)
    return asking


async def test_who_waits_is_answered_when_the_task_ends() -> None:
    async with Rig(gated) as rig:
        running = await rig.submit(task(gated, n=7))
        askers = [await waiting_for(rig, running) for _ in range(3)]
        assert not any(asker.done() for asker in askers)
        rig.gates.open()
        await rig.advance(0)
        for asker in askers:
            view = await asker
            assert view is not None
            assert (view.state, view.result) == (State.SUCCEEDED, b"7")


async def test_who_asks_late_or_for_nothing_is_answered_at_once() -> None:
    async with Rig(quick) as rig:
        done = await rig.submit(task(quick))
        view = await (await waiting_for(rig, done))
        assert view is not None
        assert view.state is State.SUCCEEDED
        assert (await rig.store.purge_matching(TaskFilter(), 10))[1] == 0
        await rig.store.forget(finished_before_s=-1, keys_before_s=-1, limit=10)
        assert await (await waiting_for(rig, done)) is None


async def test_what_another_node_ends_is_seen_within_a_second() -> None:
    async with Rig(gated, concurrency=1) as rig:
        await rig.submit(task(gated))
        waiting = await rig.submit(task(gated))
        asker = await waiting_for(rig, waiting)
        await end_elsewhere(rig, waiting)
        await rig.advance(1)
        view = await asker
        assert view is not None
        assert view.result == b'"elsewhere"'


async def test_a_drain_answers_all_who_wait_and_who_come_later() -> None:
    async with Rig(gated) as rig:
        running = await rig.submit(task(gated))
        before = await waiting_for(rig, running)
        rig.draining(within_s=10).add_done_callback(lambda done: done.exception())
        await rig.advance(0)
        after = await waiting_for(rig, running)
        for asker in (before, after):
            view = await asker
            assert view is not None
            assert view.state is State.RUNNING
        await rig.advance(11)


async def test_a_drain_while_the_record_is_away_answers_too() -> None:
    async with Rig(gated) as rig:
        running = await rig.submit(task(gated))
        asker = await waiting_for(rig, running)
        heal = rig.fault("get_many", Unavailable("away"))
        draining = rig.draining(within_s=1)
        await rig.settle()
        with pytest.raises(Unavailable, match="away"):
            await asker
        heal()
        await rig.advance(2)
        await draining


async def test_too_many_who_wait_are_refused_and_those_who_left_make_room() -> None:
    async with Rig(gated, waiters_max=2) as rig:
        running = await rig.submit(task(gated))
        first, second = [await waiting_for(rig, running, within_s=5) for _ in range(2)]
        third = await waiting_for(rig, running)
        with pytest.raises(Overloaded, match="2 requests already wait"):
            await third
        await rig.advance(5)
        for asker in (first, second):
            with pytest.raises(AskTimeout):
                await asker
        fourth = await waiting_for(rig, running)
        rig.gates.open()
        await rig.advance(0)
        assert await fourth is not None


# -- repair -----------------------------------------------------------------------------------------


async def test_a_pull_whose_answer_was_lost_is_handed_back_and_runs() -> None:
    async with Rig(quick) as rig:
        heal = rig.fault("pull", Unavailable("whether it was committed is not known"), after=True)
        lost = await rig.submit(task(quick, n=5).options(delay_s=1))
        await rig.advance(1)
        assert (lost.state, rig.gates.started) == (State.RUNNING, [])
        heal()
        await rig.advance(8)
        assert (lost.result, lost.attempt, lost.failures) == (5, 2, 0)


async def test_an_answer_that_is_only_late_is_not_taken_for_lost() -> None:
    async with Rig(gated) as rig:
        running = await rig.submit(task(gated))
        await rig.advance(60)
        assert (running.state, running.attempt) == (State.RUNNING, 1)
        assert rig.counted("sweep_repaired_total", "lost_claim") == 0


async def test_outcomes_wait_for_a_record_that_is_away() -> None:
    async with Rig(gated) as rig:
        ended = await rig.submit(task(gated, n=3))
        heal = rig.fault("settle", Unavailable("away"))
        rig.gates.open()
        await rig.advance(20)
        assert ended.state is State.RUNNING
        heal()
        await rig.advance(2)
        assert (ended.result, ended.attempt) == (3, 1)


async def test_a_commit_whose_answer_was_lost_counts_once() -> None:
    async with Rig(gated) as rig:
        ended = await rig.submit(task(gated, n=3))
        heal = rig.fault("settle", Unavailable("whether it was committed is not known"), after=True)
        rig.gates.open()
        await rig.advance(0)
        heal()
        await rig.advance(1)
        assert (ended.result, ended.attempt) == (3, 1)
        assert rig.counted("fenced_commits_total") == 0
        assert rig.counted("tasks_finished_total", "gated", "succeeded") == 1


async def test_an_outcome_that_the_record_cannot_take_neither_blocks_others_nor_is_forgotten() -> None:
    async with Rig(gated, quick) as rig:
        real = rig.store.settle

        async def settle(settlements: list[Settlement]) -> Any:
            if any(isinstance(s.move, Finish) and s.move.result == b"13" for s in settlements):
                raise RuntimeError("nobody has foreseen this")
            return await real(settlements)

        rig.store.settle = settle  # type: ignore[method-assign, assignment] # a fault
        await rig.asking(*(task(quick, n=n) for n in range(10, 16)))
        await rig.advance(0)
        await rig.advance(10)
        ended = await rig.tasks("quick")
        assert [each.state for each in ended] == [
            State.FAILED if n == 13 else State.SUCCEEDED for n in range(10, 16)
        ]
        assert ended[3].error is not None
        assert ended[3].error.type == "ResultNotStorable"
        assert rig.world.capacity.taken == 0


async def test_a_zombie_commits_nothing() -> None:
    async with Rig(gated) as rig:
        running = await rig.submit(task(gated, n=3))
        await take_over(rig, running)
        rig.gates.open()
        await rig.advance(0)
        assert (running.attempt, running.view.result) == (2, b'"elsewhere"')
        assert rig.counted("fenced_commits_total") == 1


@pytest.mark.parametrize(("leaves", "crashes"), [(True, 0), (False, 1)])
async def test_what_a_dead_incarnation_ran_goes_on_and_what_one_that_left_ran_burns_nothing(
    leaves: bool, crashes: int
) -> None:
    async with Rig(gated, quick, concurrency=1) as rig:
        await rig.submit(task(gated))
        orphan = await rig.submit(task(quick, n=9))
        other = await rig.store.join("other", 5, {})
        assert len(await rig.store.pull([Take(rig.band_of(orphan), 1)], other)) == 1
        if leaves:
            await rig.store.set_state(other, "left")
        rig.gates.open()
        await rig.advance(3)
        assert (orphan.state is State.SUCCEEDED) is leaves
        await rig.advance(4)
        assert (orphan.result, orphan.attempt) == (9, 2)
        assert (orphan.failures, orphan.view.crashes) == (0, crashes)


async def test_who_is_not_certain_of_its_own_lease_declares_nobody_dead() -> None:
    async with Rig(gated, quick, concurrency=1) as rig:
        await rig.submit(task(gated))
        orphan = await rig.submit(task(quick, n=9))
        other = await rig.store.join("other", 5, {})
        assert len(await rig.store.pull([Take(rig.band_of(orphan), 1)], other)) == 1
        rig.gates.open()
        rig.world.fence.renewed(boottime_s() - 100, 5)  # no renewal was answered since
        await rig.advance(20)
        assert orphan.state is State.RUNNING
        rig.world.fence.renewed(boottime_s(), 1000)
        await rig.advance(2)
        assert (orphan.result, orphan.attempt) == (9, 2)


async def test_an_executor_that_fails_comes_back_and_loses_nothing() -> None:
    async with Rig(gated, quick, concurrency=2) as rig:
        running = [await rig.submit(task(gated, n=n)) for n in range(2)]
        waiting = await rig.submit(task(quick, n=5))
        rig.fault("paused", ValueError("a bug"), times=3)
        await rig.advance(1)
        rig.gates.open()
        await rig.advance(30)
        assert [each.result for each in (*running, waiting)] == [0, 1, 5]
        assert [each.failures for each in (*running, waiting)] == [0, 0, 0]
        assert rig.world.capacity.taken == 0


# -- suspects ---------------------------------------------------------------------------------------


async def crash_twice(rig: Rig, each: Any) -> None:
    """Two incarnations die with it."""
    for name in ("b", "c"):
        other = await rig.store.join(name, 1, {})
        while not await rig.store.pull([Take(rig.band_of(each), 1)], other):
            await rig.advance(0.5)
        await rig.advance(2.5)


async def test_a_suspect_runs_alone_and_nothing_is_begun_beside_it() -> None:
    async with Rig(gated, quick, concurrency=1) as rig:
        holding = await rig.submit(task(quick))
        assert holding.state is State.SUCCEEDED
        await rig.store.set_paused("gated", paused=True)
        await rig.advance(1)
        suspect = await rig.submit(task(gated, n=1))
        await crash_twice(rig, suspect)
        assert (suspect.view.crashes, suspect.view.suspect) == (2, True)
        await rig.store.set_paused("gated", paused=False)
        await rig.advance(12)  # the census finds it
        assert (suspect.state, suspect.attempt) == (State.RUNNING, 3)
        beside = await rig.submit(task(quick, n=2))
        await rig.advance(5)
        assert beside.state is State.READY
        rig.gates.open()
        await rig.advance(2)
        assert (suspect.result, beside.result) == (1, 2)


async def test_a_suspect_that_this_node_may_not_run_is_left_to_others_and_stops_nothing() -> None:
    async with Rig(gated, quick) as rig:
        foreign = await rig.submit(task(gated).options(requires=["gpu"]))
        await crash_twice(rig, foreign)
        assert (foreign.view.crashes, foreign.view.suspect) == (2, True)
        rig.actors.executor.tell(SuspectsWait(frozenset({rig.band_of(foreign), 4711})))
        await rig.advance(0.5)
        beside = await rig.submit(task(quick, n=2))
        assert (beside.result, rig.counted("tasks_claimed_total", "born")) == (2, 1)
        await rig.advance(12)
        assert (foreign.state, foreign.attempt) == ("ready", 2)


async def test_an_executor_that_failed_in_an_isolation_opens_again() -> None:
    async with Rig(gated, quick, concurrency=5) as rig:
        await rig.submit(task(gated))
        later = await rig.submit(task(quick).options(delay_s=60))
        rig.actors.executor.tell(SuspectsWait(frozenset({rig.band_of(later)})))
        await rig.advance(1)
        assert rig.world.capacity.room(Kind.ASYNC) == 0  # it waits until nothing runs
        rig.fault("paused", ValueError("a bug"), times=1)
        await rig.advance(20)
        ended = await rig.submit(task(quick, n=2))
        assert ended.result == 2


# -- what is told of ends that no body had -----------------------------------------------------------


def told(rig: Rig) -> list[tuple[Any, State, str | None]]:
    log = rig.world.activity.events
    return [(event.id, event.state, event.error_type) for event in log.since(0)]


async def test_dead_letters_of_repair_and_what_has_expired_are_told_of() -> None:
    async with Rig(quick) as rig:
        expiring = await rig.submit(task(quick).options(requires=["gpu"], expires_at=rig.at(5)))
        poison = await rig.submit(task(quick).options(requires=["tpu"]))
        await rig.advance(8)
        assert told(rig) == [(expiring.id, State.CANCELLED, "Expired")]
        band = next(band.id for band in rig.world.bands if band.requires == ("tpu",))
        for name, waits in (("b", band), ("c", band), ("d", -band)):  # at last among the suspects
            other = await rig.store.join(name, 1, {})
            while not await rig.store.pull([Take(waits, 1)], other, alone=waits < 0):
                await rig.advance(0.5)
            await rig.advance(2.5)
        assert told(rig)[1:] == [(poison.id, State.FAILED, "NodeCrashed")]
        assert rig.counted("tasks_finished_total", "quick", "failed") == 1


# -- retention --------------------------------------------------------------------------------------


async def test_what_ended_long_ago_is_forgotten_keys_later() -> None:
    async with Rig(quick, keeping=Keeping(finished_s=60, keys_s=120)) as rig:
        plain = await rig.submit(task(quick))
        keyed = await rig.submit(task(quick).options(idempotency_key="k"))
        await rig.advance(40)
        assert len(await rig.tasks()) == 2
        await rig.advance(55)
        assert [each.id for each in await rig.tasks()] == [keyed.id]
        await rig.advance(60)
        assert await rig.tasks() == []
        assert plain.state is State.SUCCEEDED


# -- helpers ----------------------------------------------------------------------------------------


async def end_elsewhere(rig: Rig, each: Any) -> None:
    """Another node runs and ends what waits."""
    other = await rig.store.join("other", 1000, {})
    [claim] = await rig.store.pull([Take(rig.band_of(each), 1)], other)
    outcome = Finish(status=Status.SUCCEEDED, result=b'"elsewhere"')
    await rig.store.settle([Settlement(claim.id, claim.attempt, other, outcome)])


async def take_over(rig: Rig, each: Any) -> None:
    """What runs here is repaired and ended elsewhere, as after a pause longer than the lease."""
    [held] = await rig.store.held(rig.world.incarnation)
    release = decisions.after_release(held)
    await rig.store.settle([Settlement(held.id, held.attempt, held.incarnation, release)])
    await end_elsewhere(rig, each)
