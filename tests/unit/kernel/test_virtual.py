"""The virtual-time loop: what it promises to every other test."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Any

import pytest

from runtime.kernel.virtual import SimLoop, SimulationDeadlock, SimulationOverrun, run, simulated

DAY_S = 86_400.0


def test_a_century_of_sleep_takes_no_time() -> None:
    """A float of that size is coarser than the resolution of asyncio's timers."""

    async def main() -> float:
        for _ in range(36_525):
            await asyncio.sleep(DAY_S)
        return asyncio.get_running_loop().time()

    before_s = time.monotonic()
    assert run(main) == pytest.approx(36_525 * DAY_S)
    assert time.monotonic() - before_s < 20


@simulated
async def test_timers_fire_in_order_each_at_its_time() -> None:
    loop = asyncio.get_running_loop()
    seen: list[tuple[float, str]] = []

    def note(name: str) -> None:
        seen.append((loop.time(), name))

    for delay_s, name in [(2.0, "b"), (1.0, "a"), (0.0, "now"), (1e6, "beyond")]:
        loop.call_later(delay_s, note, name)
    await asyncio.sleep(3)
    assert seen == [(0, "now"), (1, "a"), (2, "b")]


@simulated
async def test_timeouts_work_as_always() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == 10


def test_the_same_program_has_the_same_history() -> None:
    async def main() -> list[tuple[int, float]]:
        history: list[tuple[int, float]] = []

        async def walk(number: int) -> None:
            for step in range(20):
                await asyncio.sleep((number * 7 + step * 3) % 5 / 10)
                history.append((number, asyncio.get_running_loop().time()))

        await asyncio.gather(*map(walk, range(10)))
        return history

    assert run(main) == run(main)


def test_a_deadlock_is_reported_with_who_waits_where() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(waits_for_ever(), name="the lost one")

    with pytest.raises(SimulationDeadlock) as caught:
        run(main)
    assert "no timer is set; 2 tasks wait:" in str(caught.value)
    assert "the lost one: " in str(caught.value)
    assert "in wait" in str(caught.value)


def test_a_program_that_goes_on_for_ever_has_a_limit() -> None:
    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(60)

    loop = SimLoop(limit_s=3600)
    task = loop.create_task(main())
    with pytest.raises(SimulationOverrun, match=r"virtual time went beyond 3600 s; 1 tasks wait:"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


@simulated
async def test_executors_run_at_once_in_the_loops_thread() -> None:
    def work(error: Exception | None) -> int:
        if error is not None:
            raise error
        return threading.get_ident()

    assert await asyncio.to_thread(work, None) == threading.get_ident()
    with pytest.raises(ValueError, match="as told"):
        await asyncio.get_running_loop().run_in_executor(None, work, ValueError("as told"))


@pytest.mark.parametrize("number", [1, 2])
@simulated
async def test_simulated_tests_take_arguments_and_keep_their_name(number: int, request: Any) -> None:
    assert request.node.originalname == "test_simulated_tests_take_arguments_and_keep_their_name"
    assert number in {1, 2}
    assert isinstance(asyncio.get_running_loop(), SimLoop)
