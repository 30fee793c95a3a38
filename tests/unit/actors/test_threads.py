"""Bodies in threads: they cannot be stopped, so they must cost nobody else anything."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from actors import Context, handler, task
from runtime.core.task import State
from tests.support.actor_rig import Rig
from tests.support.memory_node import until

WHERE: ContextVar[str] = ContextVar("where", default="nowhere")


class Latch:
    """Holds threads; a test lets them go at its end."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.cancelled: list[bool] = []


@handler("stuck", timeout_s=2, max_attempts=1)
def stuck(ctx: Context) -> str:
    latch = ctx.use(Latch)
    latch.event.wait(30)
    latch.cancelled.append(ctx.cancelled)
    return "too late"


@handler("plain")
def plain(ctx: Context, what: str = "return") -> Any:
    match what:
        case "stop":
            raise StopIteration
        case "exit":
            raise SystemExit(1)
        case "context":
            before = WHERE.get()
            WHERE.set("in a body")
            return [before, threading.current_thread() is threading.main_thread()]
    return what


async def test_stuck_threads_are_given_up_and_others_go_on() -> None:
    latch = Latch()
    async with Rig(stuck, plain, threads=2, resources=[latch]) as rig:
        hanging = [await rig.submit(task(stuck)) for _ in range(2)]
        behind = await rig.submit(task(plain))
        assert behind.state == "ready"
        await rig.advance(2.1)
        assert [each.error and each.error.type for each in hanging] == ["TimedOut"] * 2
        async with asyncio.timeout(20):
            while not behind.state.final:  # its thread runs in real time
                await rig.advance(0)
        assert behind.result == "return"
        latch.event.set()
        await rig.advance(1)
        assert [each.state for each in hanging] == [State.FAILED] * 2
    await until(lambda: len(latch.cancelled) == 2)
    assert latch.cancelled == [True, True]


@pytest.mark.parametrize(("what", "error"), [("stop", "RuntimeError"), ("exit", "SystemExit")])
async def test_what_asyncio_cannot_carry_is_an_error_like_any_other(what: str, error: str) -> None:
    async with Rig(plain) as rig:
        ended = await rig.submit(task(plain, what=what))
        assert (ended.state, ended.error and ended.error.type) == (State.SCHEDULED, error)


async def test_a_body_has_a_context_of_its_own() -> None:
    async with Rig(plain, threads=1) as rig:
        for _ in range(2):
            seen = await rig.submit(task(plain, what="context"))
            assert seen.result == ["nowhere", False]
