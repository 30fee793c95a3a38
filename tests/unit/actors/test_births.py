"""Born running or waiting; and capacity that was reserved for a birth is never lost."""

from __future__ import annotations

import asyncio

import pytest

from actors import Context, handler, task
from actors.authoring.registry import Kind
from runtime.core.task import State
from runtime.errors import Overloaded, Unavailable
from tests.support.actor_rig import Gates, Rig


@handler("gated", timeout_s=100)
async def gated(ctx: Context, n: int = 0) -> int:
    await ctx.use(Gates).pass_through(n)
    return n


async def test_born_while_there_is_room_waiting_beyond() -> None:
    async with Rig(gated, concurrency=2) as rig:
        tasks = [await rig.submit(task(gated, n=n)) for n in range(4)]
        assert [each.state for each in tasks] == [State.RUNNING] * 2 + [State.READY] * 2
        assert rig.counted("tasks_claimed_total", "born") == 2
        rig.gates.open()
        await rig.advance(0)
        assert [each.result for each in tasks] == [0, 1, 2, 3]
        assert rig.counted("tasks_claimed_total", "pull") == 2


async def test_nothing_is_born_over_a_backlog_of_its_band() -> None:
    async with Rig(gated, concurrency=1) as rig:
        capacity = rig.world.capacity
        first, waiting = [await rig.submit(task(gated, n=n)) for n in range(2)]
        assert waiting.state is State.READY
        band = rig.band_of(waiting)
        assert band in capacity.backlog
        rig.gates.open()
        await rig.advance(0)
        assert (first.state, waiting.state) == (State.SUCCEEDED, State.SUCCEEDED)
        assert band not in capacity.backlog
        assert (await rig.submit(task(gated))).state is State.SUCCEEDED
        assert rig.counted("tasks_claimed_total", "born") == 2


async def test_a_delayed_or_expiring_task_is_not_born() -> None:
    async with Rig(gated, concurrency=5) as rig:
        await rig.submit(task(gated).options(delay_s=5))
        assert rig.world.capacity.taken == 0
        await rig.advance(5)
        assert (rig.counted("tasks_claimed_total", "born"), rig.counted("tasks_claimed_total", "pull")) == (
            0,
            1,
        )


async def test_a_caller_that_goes_away_before_the_router_has_looked_costs_no_slot() -> None:
    async with Rig(gated, concurrency=3) as rig:
        for _ in range(10):
            asking = rig.asking(task(gated))
            while not rig.world.capacity.taken and not asking.done():  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert rig.world.capacity.taken_of(Kind.ASYNC) == 0


async def test_a_full_mailbox_is_overload_and_costs_no_slot() -> None:
    async with Rig(gated, concurrency=2000) as rig:
        asking = [rig.asking(task(gated)) for _ in range(1500)]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert len(refused) == 1500 - 1024
        assert rig.world.capacity.taken == 1024


async def test_a_full_accept_queue_is_overload_and_costs_no_slot() -> None:
    async with Rig(gated, concurrency=100, accept_waiting_max=30) as rig:
        asking = [rig.asking(*(task(gated, n=n) for n in range(20))) for _ in range(3)]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [isinstance(answer, Overloaded) for answer in answers] == [False, True, True]
        assert "20 wait, 30 may" in str(answers[1])
        assert rig.world.capacity.taken == 20


async def test_a_record_that_is_away_costs_no_slot() -> None:
    async with Rig(gated, concurrency=3) as rig:
        await rig.submit(task(gated).options(delay_s=50))  # its band is known from here on
        rig.fault("accept", Unavailable("the record is away"))
        for _ in range(5):
            with pytest.raises(Unavailable, match="is away"):
                await rig.asking(task(gated))
        assert rig.world.capacity.taken == 0


async def test_a_birth_whose_answer_was_lost_is_handed_back_and_runs() -> None:
    async with Rig(gated, concurrency=3) as rig:
        await rig.submit(task(gated).options(delay_s=5000))
        rig.gates.open()
        heal = rig.fault("accept", Unavailable("whether it was committed is not known"), after=True)
        with pytest.raises(Unavailable):
            await rig.asking(task(gated, n=7))
        heal()
        [lost] = await rig.tasks(states=[State.RUNNING])
        await rig.advance(20)
        assert (lost.state, lost.attempt, lost.failures) == (State.SUCCEEDED, 2, 0)
        assert lost.result == 7
        assert rig.counted("sweep_repaired_total", "lost_claim") == 1
