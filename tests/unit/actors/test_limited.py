"""Limits as authors and testers see them, on a Harness: virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from actors import Context, Harness, InvalidInput, Retry, handler, task
from runtime.core.limits import Limit, Rate
from runtime.core.task import State


class Gate:
    """What bodies wait at, and what began."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.began: list[str] = []


@handler(rate_limit="10/s", burst=2)
async def paced(ctx: Context, number: int) -> int:
    ctx.use(Gate).began.append(f"paced {number}")
    return number


@handler(max_running=2)
async def narrow(ctx: Context, number: int = 0) -> None:
    ctx.use(Gate).began.append(f"narrow {number}")
    await ctx.use(Gate).open.wait()


@handler(max_running=1, limit_per="key")
async def by_key(ctx: Context, name: str) -> None:
    ctx.use(Gate).began.append(name)
    await ctx.use(Gate).open.wait()


@handler
async def free(ctx: Context) -> None:
    ctx.use(Gate).began.append("free")


@handler(rate_limit="1/min", max_attempts=3)
async def fails(ctx: Context) -> None:
    raise Retry("again", after_s=1)


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def test_starts_come_at_the_rate_and_what_is_free_passes(gate: Gate) -> None:
    async with Harness(paced, free, resources=[gate]) as harness:
        begun = harness.now
        tasks = [await harness.submit(task(paced, number=number)) for number in range(8)]
        await harness.submit(task(free))
        assert gate.began == ["paced 0", "paced 1", "free"]
        assert {each.state for each in tasks[2:]} == {State.READY}
        assert {each.attempt for each in tasks[2:]} == {0}  # waiting costs none
        await harness.advance(0.35)
        assert len(gate.began) == 3 + 3
        await harness.run_until_idle()
        assert [each.result for each in tasks] == list(range(8))
        assert timedelta(seconds=0.6) <= harness.now - begun <= timedelta(seconds=0.7)


async def test_only_so_many_run_at_once_and_the_next_begins_when_one_ends(gate: Gate) -> None:
    async with Harness(narrow, free, resources=[gate], patience_s=0.01) as harness:
        tasks = [await harness.submit(task(narrow, number=number)) for number in range(5)]
        await harness.submit(task(free))
        assert gate.began == ["narrow 0", "narrow 1", "free"]
        gate.open.set()
        await harness.run_until_idle()
        assert {each.state for each in tasks} == {State.SUCCEEDED}
        assert gate.began[3:] == ["narrow 2", "narrow 3", "narrow 4"]


async def test_a_full_key_holds_up_no_other(gate: Gate) -> None:
    async with Harness(by_key, resources=[gate], patience_s=0.01) as harness:
        for _ in range(3):
            await harness.submit(task(by_key, name="a").options(limit_key="a"))
        await harness.submit(task(by_key, name="b").options(limit_key="b"))
        assert gate.began == ["a", "b"]


async def test_retries_are_starts(gate: Gate) -> None:
    async with Harness(fails) as harness:
        begun = harness.now
        failing = await harness.submit(task(fails))
        await harness.run_until_idle()
        assert (failing.state, failing.failures) == (State.FAILED, 3)
        assert harness.now - begun >= timedelta(minutes=2)


async def test_a_limit_that_is_set_by_hand_counts_within_a_second(gate: Gate) -> None:
    async with Harness(free, paced, resources=[gate]) as harness:
        await harness.store.set_limit("free", Limit(Rate.parse("1/h")), "ann")
        await harness.advance(1)
        for _ in range(3):
            await harness.submit(task(free))
        assert gate.began == ["free"]
        await harness.store.unset_limit("free")
        await harness.advance(2)
        assert gate.began == ["free"] * 3


async def test_a_key_is_asked_for_where_it_counts(gate: Gate) -> None:
    async with Harness(by_key, free, narrow, resources=[gate]) as harness:
        with pytest.raises(InvalidInput, match="/limit_key: is required: by_key is limited for each key"):
            await harness.submit(task(by_key, name="a"))
        with pytest.raises(InvalidInput, match="free has no limit for each key"):
            await harness.submit(task(free).options(limit_key="a"))
        with pytest.raises(InvalidInput, match="narrow has a limit, which does not count messages to a key"):
            await harness.submit(task(narrow).options(actor_key="a"))
        with pytest.raises(InvalidInput, match="limit_key: 0 characters"):
            task(free).options(limit_key="")
