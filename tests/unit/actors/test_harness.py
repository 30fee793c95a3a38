"""The Harness as authors use it: no service, virtual time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from actors import Backoff, Context, Fail, Harness, InvalidInput, Retry, Task, handler, lifespan, task
from runtime.core.task import AttemptKind, State
from runtime.errors import WrongState


@dataclass(frozen=True)
class Page:
    url: str
    day: date


class Session:
    async def get(self, url: str) -> str:
        raise AssertionError("a test does not use the network")


class FakeSession:
    async def get(self, url: str) -> str:
        return f"2030-01-02 {url}"


@handler("scrape")
async def scrape(ctx: Context, url: str) -> Page:
    text = await ctx.use(Session).get(url)
    day, _, found = text.partition(" ")
    return Page(found, date.fromisoformat(day))


@handler("flaky", timeout_s=5, max_attempts=3, backoff=Backoff(first_s=2, factor=3, max_s=100))
async def flaky(ctx: Context, good_from: int, after_s: float | None = None) -> str:
    if ctx.attempt < good_from:
        raise Retry("busy", after_s=after_s)
    return f"attempt {ctx.attempt}"


@handler("endless", timeout_s=5, max_attempts=1)
async def endless(ctx: Context) -> None:
    await asyncio.Event().wait()


@handler("naps")
async def naps(ctx: Context, naps: int) -> int:
    if ctx.attempt <= naps:
        ctx.snooze(86_400)
    return ctx.attempt


@handler("tree")
async def tree(ctx: Context, depth: int) -> int:
    if depth:
        ctx.submit(task(tree, depth=depth - 1), task(tree, depth=depth - 1))
    ctx.progress(depth, 3, "growing")
    return depth


@handler("crunch", cpu=True)
def crunch(ctx: Context, n: int) -> str:
    return f"{n * n} in {threading.current_thread().name}"


@handler("slow_thread", timeout_s=5, max_attempts=1)
def slow_thread(ctx: Context) -> None:
    while not ctx.cancelled:
        time.sleep(0.001)


@handler("fails")
async def fails(ctx: Context) -> None:
    raise Fail("gone")


async def test_a_retry_comes_when_its_time_has_come() -> None:
    async with Harness(flaky) as harness:
        retried = await harness.submit(task(flaky, good_from=2, after_s=60))
        assert (retried.state, retried.attempt, retried.failures) == (State.SCHEDULED, 1, 1)
        assert retried.error is not None
        assert (retried.error.type, retried.error.message) == ("Retry", "busy")
        await harness.advance(59.9)
        assert retried.state is State.SCHEDULED
        await harness.advance(0.1)
        assert retried.result == "attempt 2"
        assert [each.kind for each in retried.attempts] == [AttemptKind.FAILED]


async def test_back_off_waits_its_full_length_so_that_tests_can_count_on_it() -> None:
    async with Harness(flaky) as harness:
        retried = await harness.submit(task(flaky, good_from=3))
        for wait_s, attempts in ((1.9, 1), (0.1, 2), (5.9, 2), (0.1, 3)):
            await harness.advance(wait_s)
            assert retried.attempt == attempts
        assert retried.state is State.SUCCEEDED


async def test_results_have_the_type_that_the_handler_returns() -> None:
    async with Harness(scrape, resources={Session: FakeSession()}) as harness:
        scraped = await harness.submit(task(scrape, url="x"))
        assert scraped.result == Page("x", date(2030, 1, 2))


async def test_a_result_that_does_not_exist_says_why() -> None:
    async with Harness(fails, flaky) as harness:
        failed = await harness.submit(task(fails))
        with pytest.raises(WrongState, match="fails has no result, it is failed: Fail: gone"):
            _ = failed.result
        waiting = await harness.submit(task(flaky, good_from=9))
        with pytest.raises(WrongState, match="flaky has no result, it is scheduled: Retry: busy"):
            _ = waiting.result


async def test_a_body_that_waits_for_ever_times_out_in_virtual_time() -> None:
    async with Harness(endless, patience_s=0.01) as harness:
        hanging = await harness.submit(task(endless))
        await harness.advance(4.9)
        assert hanging.state is State.RUNNING
        await harness.advance(0.1)
        assert hanging.error is not None
        assert (hanging.state, hanging.error.type) == (State.FAILED, "TimedOut")


async def test_days_pass_quickly() -> None:
    async with Harness(naps) as harness:
        napping = await harness.submit(task(naps, naps=5))
        began_s = time.monotonic()
        await harness.advance(4 * 86_400)
        assert (napping.state, napping.attempt) == (State.SCHEDULED, 5)
        await harness.run_until_idle()
        assert napping.result == 6
        assert harness.now - napping.view.created_at == timedelta(days=5)
        assert time.monotonic() - began_s < 5


async def test_idle_is_when_children_have_ended_too() -> None:
    async with Harness(tree) as harness:
        root = await harness.submit(task(tree, depth=3).options(delay_s=10))
        await harness.run_until_idle()
        found = await harness.tasks("tree")
        assert [each.result for each in found] == [3, 2, 2, 1, 1, 1, 1, *[0] * 8]
        assert found[0] is root


async def test_idle_is_not_waited_for_without_end() -> None:
    @handler
    async def again(ctx: Context) -> None:
        ctx.snooze(3600)

    async with Harness(again) as harness:
        await harness.submit(task(again))
        with pytest.raises(
            TimeoutError, match=r"not idle after 86400 s of virtual time: <again .* scheduled"
        ):
            await harness.run_until_idle(86_400)


async def test_cpu_bodies_run_in_threads() -> None:
    async with Harness(crunch) as harness:
        crunched = await harness.submit(task(crunch, n=12))
        assert crunched.result.startswith("144 in noria-handler")


async def test_a_thread_that_waits_to_be_stopped_is_not_waited_for() -> None:
    async with Harness(slow_thread, patience_s=0.01) as harness:
        slow = await harness.submit(task(slow_thread))
        await harness.advance(5)
        assert slow.error is not None
        assert slow.error.type == "TimedOut"


async def test_virtual_time_stands_still_while_a_body_does_something_real() -> None:
    @handler(timeout_s=1)
    async def real(ctx: Context, path: str) -> str:
        await asyncio.sleep(0.05)  # a call over a network, say
        return Path(path).name

    async with Harness(real) as harness:
        read = await harness.submit(task(real, path="a/b"))
        assert read.result == "b"


async def test_lifespans_are_opened_and_closed_and_a_test_can_hide_what_they_yield() -> None:
    seen: list[str] = []

    @lifespan
    async def session() -> AsyncIterator[Session]:
        seen.append("opened")
        yield Session()
        seen.append("closed")

    @lifespan
    async def table() -> AsyncIterator[Counter[str]]:
        yield Counter("x")

    @handler
    async def both(ctx: Context, url: str) -> int:
        return ctx.use(Counter)[(await ctx.use(Session).get(url))[-1]]

    async with Harness(both, session, table, resources={Session: FakeSession()}) as harness:
        assert (await harness.submit(task(both, url="x"))).result == 1
    assert seen == ["opened", "closed"]


async def test_cancel_before_and_while_it_runs() -> None:
    async with Harness(endless, patience_s=0.01) as harness:
        later = await harness.submit(task(endless).options(delay_s=5))
        running = await harness.submit(task(endless))
        await harness.cancel(later)
        await harness.cancel(running)
        assert (later.state, later.attempt) == (State.CANCELLED, 0)
        assert (running.state, running.attempt) == (State.CANCELLED, 1)


async def test_one_key_is_one_task() -> None:
    async with Harness(naps) as harness:
        first = await harness.submit(task(naps, naps=1).options(idempotency_key="k"))
        again = await harness.submit(task(naps, naps=1).options(idempotency_key="k"))
        assert again is first
        with pytest.raises(InvalidInput, match="'k' is that of a different request"):
            await harness.submit(task(naps, naps=2).options(idempotency_key="k"))


async def test_what_a_node_would_refuse_is_refused() -> None:
    async with Harness(naps) as harness:
        with pytest.raises(InvalidInput, match="no handler is named 'nap'; did you mean naps"):
            await harness.submit(Task(handler="nap"))
        with pytest.raises(InvalidInput, match="#/payload/naps"):
            await harness.submit(Task(handler="naps", payload={"naps": "many"}))


async def test_tags_and_instants() -> None:
    async with Harness(naps, tags=["gpu"], start=datetime(2031, 5, 1, tzinfo=UTC)) as harness:
        served = await harness.submit(task(naps, naps=0).options(requires=["gpu"]))
        foreign = await harness.submit(task(naps, naps=0).options(requires=["tpu"]))
        dated = await harness.submit(task(naps, naps=0).options(run_at=datetime(2031, 5, 2, 12, tzinfo=UTC)))
        expiring = await harness.submit(
            task(naps, naps=0).options(requires=["tpu"], expires_at=datetime(2031, 5, 3, tzinfo=UTC))
        )
        await harness.run_until_idle()
        assert [each.state for each in (served, foreign, dated, expiring)] == [
            State.SUCCEEDED, State.READY, State.SUCCEEDED, State.CANCELLED,
        ]  # fmt: skip
        assert harness.now - datetime(2031, 5, 3, tzinfo=UTC) < timedelta(seconds=1.5)
        assert dated.view.finished_at == datetime(2031, 5, 2, 12, tzinfo=UTC)


async def test_progress_is_seen() -> None:
    @handler
    async def reports(ctx: Context) -> None:
        ctx.progress(3, 10, "digging")
        await asyncio.Event().wait()

    async with Harness(reports, patience_s=0.01) as harness:
        running = await harness.submit(task(reports))
        assert running.progress is not None
        assert (running.progress.done, running.progress.total, running.progress.message) == (3, 10, "digging")


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
async def test_time_moves_forward_and_not_for_ever(seconds: float) -> None:
    async with Harness(naps) as harness:
        with pytest.raises(ValueError, match="must be a finite number of seconds"):
            await harness.advance(seconds)


async def test_nothing_of_it_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with Harness(naps, crunch, endless, patience_s=0.01) as harness:
        await harness.submit(task(naps, naps=0))
        await harness.submit(task(crunch, n=2))
        await harness.submit(task(endless))
    assert asyncio.all_tasks() == before


def test_importing_the_face_does_not_bring_a_node_along() -> None:
    import subprocess
    import sys

    code = "import sys, actors; print([m for m in sys.modules if m.startswith(('actors.executor', 'runtime.ad'))])"
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
