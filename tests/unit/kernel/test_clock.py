"""Clocks: the system's follows the loop, the manual one moves only when told."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from runtime.errors import AskTimeout
from runtime.kernel import clock as clock_module
from runtime.kernel.clock import Clock, ManualClock, SystemClock
from runtime.kernel.supervision import ChildSpec
from runtime.kernel.system import ActorSystem
from runtime.kernel.virtual import simulated
from tests.support.probe import Do, Echo, Journal, Note, Probe, block, boom, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.kernel.actor import ActorContext

START = datetime(2026, 1, 1, tzinfo=UTC)


@simulated
async def test_the_system_clock_is_the_loops() -> None:
    clock: Clock = SystemClock()
    fired: list[float] = []
    clock.call_later(2, lambda: fired.append(clock.now_s()))
    clock.call_later(1, lambda: fired.append(-1)).cancel()
    await clock.sleep(3)
    assert (clock.now_s(), fired) == (3, [2])
    assert abs(clock.wall() - datetime.now(UTC)) < timedelta(seconds=60)


async def test_manual_timers_fire_in_order_each_at_its_time() -> None:
    clock = ManualClock(START)
    seen: list[tuple[float, str]] = []

    def note(name: str) -> None:
        seen.append((clock.now_s(), name))
        if name == "a":
            clock.call_later(1, lambda: note("set by a"))
            clock.call_later(-5, lambda: note("at once"))

    for delay_s, name in [(3, "c"), (1, "a"), (1, "b"), (9, "beyond")]:
        clock.call_later(delay_s, partial(note, name))
    cancelled = clock.call_later(1, lambda: note("cancelled"))
    cancelled.cancel()
    cancelled.cancel()
    await clock.advance(5)
    assert seen == [(1, "a"), (1, "b"), (1, "at once"), (2, "set by a"), (3, "c")]
    assert clock.now_s() == 5
    assert clock.wall() == START + timedelta(seconds=5)


async def test_manual_time_stands_still_until_advanced() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await clock.sleep(0)
    await clock.advance(9.999)
    assert not sleeper.done()
    await clock.advance(0.001)
    assert sleeper.done()


async def test_a_cancelled_manual_sleep_forgets_its_timer() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await settle()
    sleeper.cancel()
    await clock.advance(20)
    assert sleeper.cancelled()


@pytest.mark.parametrize("tells", [True, False], ids=["asyncio", "a loop that does not tell what is ready"])
async def test_advancing_lets_everybody_run_between_two_timers(
    tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that sleeps a hundred times sees every one of its moments, with tasks between."""
    if not tells:
        monkeypatch.setattr(clock_module, "_is_idle", lambda _: False)
    clock = ManualClock()
    moments: list[float] = []

    async def walk() -> None:
        for _ in range(100):
            await clock.sleep(0.5)
            await asyncio.create_task(settle(10))
            moments.append(clock.now_s())

    walker = asyncio.create_task(walk())
    await clock.advance(50)
    await walker
    assert moments == [(number + 1) / 2 for number in range(100)]


async def test_a_loop_with_nothing_to_run_is_settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what a settling costs does not grow with the tasks that there are, or were, of other loops too."""
    looked: list[int] = []
    monkeypatch.setattr(asyncio, "all_tasks", lambda: looked.append(1))
    await ManualClock().advance(1000)
    assert len(looked) == 1


async def test_who_never_waits_is_not_waited_for() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - it is what must not be waited for
            await asyncio.sleep(0)

    spinner = asyncio.create_task(spin())
    await ManualClock().advance(1)
    assert not spinner.done()
    spinner.cancel()


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_time_moves_forward_and_not_for_ever(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number of seconds, 0 or more"):
        await ManualClock().advance(seconds)
    with pytest.raises(ValueError, match="must be a finite number of seconds, 0 or more"):
        ManualClock().skip(seconds)


async def test_what_came_due_during_a_skip_fires_late_and_in_order() -> None:
    clock = ManualClock()
    seen: list[tuple[float, str]] = []

    def note(name: str) -> None:
        seen.append((clock.now_s(), name))

    for delay_s, name in [(2, "b"), (1, "a"), (50, "not yet")]:
        clock.call_later(delay_s, partial(note, name))
    clock.skip(40)
    assert seen == []
    await clock.advance(1)
    assert seen == [(40, "a"), (40, "b")]


async def test_advancing_waits_for_work_that_the_loop_cannot_see() -> None:
    may_end = threading.Event()
    working = asyncio.get_running_loop().run_in_executor(None, may_end.wait, 20)

    def busy() -> bool:
        may_end.set()  # the thread ends only after somebody has looked
        return not working.done()

    await ManualClock(busy=busy).advance(0)
    assert working.done()


async def test_work_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "BUSY_LIMIT_S", 0.01)
    clock = ManualClock(busy=lambda: True)
    async with asyncio.timeout(10):
        await clock.advance(1)
    assert clock.now_s() == 1


@pytest.fixture
async def manual() -> AsyncIterator[tuple[ManualClock, ActorSystem]]:
    clock = ManualClock()
    async with ActorSystem(clock) as actors:
        yield clock, actors


async def test_actors_live_by_the_manual_clock(manual: tuple[ManualClock, ActorSystem]) -> None:
    """Timers, ask deadlines and restart back-off."""
    clock, actors = manual
    journal = Journal()
    ref = await actors.spawn(ChildSpec[Any](name="a", make=lambda: Probe(journal)))

    def tick(ctx: ActorContext[Any]) -> None:
        journal(f"{clock.now_s():g}")
        ctx.after(60, Do(tick), key="tick")

    ref.tell(Do(tick))
    await clock.advance(3600)
    assert len(journal.take()) == 61

    gate = asyncio.Event()
    ref.tell(block(gate))
    late = asyncio.create_task(ref.ask(Echo("late"), 5))
    await clock.advance(4.9)
    assert not late.done()
    await clock.advance(0.1)
    with pytest.raises(AskTimeout):
        await late
    gate.set()

    ref.tell(Do(boom))
    ref.tell(Note("after the back-off"))
    await clock.advance(0)
    assert journal.take() == []
    await clock.advance(60)
    assert journal.take() == ["after the back-off"]
