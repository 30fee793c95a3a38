"""Batch handlers: one call, and every task of it with its own outcome, policy, deadline and end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from actors import (
    Actor,
    Batch,
    BatchContext,
    Context,
    Fail,
    Harness,
    RegistrationError,
    Registry,
    Retry,
    handler,
    task,
)
from actors.authoring.registry import Kind
from actors.authoring.task import Task
from actors.executor import batches
from actors.harness import HarnessTask
from actors.intake.requests import spec_of
from actors.router.submitting import submit as accept
from runtime.core.task import AttemptKind, BandKey, Lane, State, Take
from runtime.errors import InvalidInput
from tests.support.actor_rig import Rig
from tests.support.factories import new_task


@dataclass
class Mail:
    to: str
    size: int = 0


class Post:
    """What was called, and what to do about it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.contexts: list[BatchContext] = []


@handler(batch=Batch(max=3, wait_s=5), max_attempts=2)
async def send(ctx: BatchContext, mail: list[Mail]) -> list[str | Exception]:
    post = ctx.use(Post)
    post.calls.append([each.to for each in mail])
    post.contexts.append(ctx)
    if any(each.to == "all" for each in mail):
        raise ConnectionError("the server is away")
    if any(each.to == "few" for each in mail):
        return ["one"]
    post.begun.set()
    if any(each.to == "wait" for each in mail):
        await post.gate.wait()
    for one, each in zip(ctx.each, mail, strict=True):
        if each.to == "child":
            one.submit(task(send, Mail("made")))
    return [_outcome(each) for each in mail]


def _outcome(mail: Mail) -> str | Exception:
    match mail.to:
        case "bad":
            return Fail("no such box")
        case "busy":
            return Retry("later", after_s=60)
        case "broken":
            return ValueError("broken")
        case "huge":
            return "x" * 2_000_000
    return f"sent to {mail.to}"


def harness(post: Post) -> Rig:
    return Rig(send, resources=[post])


async def submit(rig: Harness, *names: str) -> list[HarnessTask[str]]:
    return [await rig.submit(task(send, Mail(name))) for name in names]


# -- gathering ------------------------------------------------------------------------------------------


async def test_a_full_batch_is_called_at_once_and_the_rest_when_the_first_has_waited() -> None:
    async with harness(post := Post()) as rig:
        await submit(rig, "a", "b")
        assert post.calls == []
        await rig.advance(4)
        [late] = await submit(rig, "c")
        assert post.calls == [["a", "b", "c"]]
        assert late.result == "sent to c"
        await submit(rig, "d")
        await rig.advance(3)
        await submit(rig, "e")
        await rig.advance(1.9)
        assert post.calls[1:] == []
        await rig.advance(0.2)  # 5 s after the first, not after the last
        assert post.calls[1:] == [["d", "e"]]
        await rig.run_until_idle()
        assert [each.state for each in await rig.tasks()] == [State.SUCCEEDED] * 5
        assert rig.world.capacity.taken == 0
        assert rig.world.capacity.taken_of(rig.registry.get("send").kind) == 0  # type: ignore[union-attr]  # it is there


async def test_idle_is_when_the_last_batch_was_called() -> None:
    async with harness(post := Post()) as rig:
        began = rig.now
        await submit(rig, "a")
        await rig.run_until_idle()
        assert post.calls == [["a"]]
        assert (rig.now - began).total_seconds() < 6


async def bring(rig: Rig, *names: str, tenant: str = "default", **options: Any) -> None:
    """In one request."""
    specs = [spec_of(task(send, Mail(name)).options(**options), tenant=tenant) for name in names]
    await accept(rig.world, rig.actors.router, specs, 60)
    await rig.settle()


async def test_tenants_are_not_mixed_and_priorities_are() -> None:
    async with harness(post := Post()) as rig:
        await bring(rig, "a", tenant="acme")
        await bring(rig, "b", tenant="other")
        await bring(rig, "c", tenant="acme", priority="high")
        await bring(rig, "d", tenant="acme", priority="low")
        assert post.calls == [["a", "c", "d"]]
        await rig.advance(6)
        assert post.calls[1:] == [["b"]]


async def test_a_call_is_no_larger_than_its_bytes_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PAYLOAD_BYTES_MAX", 60)  # two of them
    async with harness(post := Post()) as rig:
        await submit(rig, "a", "b", "c")
        assert post.calls == [["a", "b"]]
        await rig.advance(6)
        assert post.calls[1:] == [["c"]]


async def test_a_call_takes_one_place_however_many_tasks_it_has() -> None:
    post = Post()
    async with Rig(send, resources=[post], concurrency=2) as rig:
        await bring(rig, *["wait"] * 3)
        assert rig.world.capacity.taken_of(Kind.ASYNC) == 1
        await bring(rig, *["wait"] * 4)
        assert rig.world.capacity.taken_of(Kind.ASYNC) == 2
        await bring(rig, *["later"] * 6)
        assert (len(post.calls), rig.world.capacity.taken) == (2, 6)  # as much as there is place for
        post.gate.set()
        await rig.run_until_idle()
        assert [len(call) for call in post.calls[:4]] == [3, 3, 3, 3]
        assert {each.state for each in await rig.tasks()} == {State.SUCCEEDED}
        assert (rig.world.capacity.taken, rig.world.capacity.taken_of(Kind.ASYNC)) == (0, 0)


# -- outcomes -------------------------------------------------------------------------------------------


async def test_every_task_has_the_outcome_that_stands_in_its_place() -> None:
    async with harness(post := Post()) as rig:
        bad, busy, good = await submit(rig, "bad", "busy", "good")
        assert (bad.state, good.state, good.result) == (State.FAILED, State.SUCCEEDED, "sent to good")
        assert bad.error is not None
        assert bad.error.message == "no such box"
        assert (busy.state, busy.failures) == (State.SCHEDULED, 1)
        await rig.advance(59)
        assert len(post.calls) == 1
        await rig.advance(7)
        assert post.calls[1:] == [["busy"]]
        assert (busy.state, busy.attempt) == (State.FAILED, 2)  # its own attempts are over


async def test_what_the_whole_call_raises_each_of_its_tasks_has_raised() -> None:
    async with harness(Post()) as rig:
        tasks = await submit(rig, "a", "all", "b")
        assert [(each.state, each.failures) for each in tasks] == [(State.SCHEDULED, 1)] * 3
        assert {each.error and each.error.message for each in tasks} == {"the server is away"}
        await rig.run_until_idle()
        assert {each.state for each in tasks} == {State.FAILED}


async def test_outcomes_that_are_not_one_for_each_are_an_error_that_says_so() -> None:
    async with harness(Post()) as rig:
        tasks = await submit(rig, "a", "few", "b")
        said = (
            "send returned 1 outcomes; a batch handler returns a list with one result or exception for each of its 3 tasks, "
            "or None"
        )
        assert {each.error and (each.error.type, each.error.message) for each in tasks} == {
            ("WrongOutcomes", said)
        }


async def test_a_large_result_is_that_of_its_task_alone() -> None:
    async with harness(Post()) as rig:
        huge, good, _ = await submit(rig, "huge", "good", "child")
        await rig.advance(6)
        assert (len(huge.result), good.result) == (2_000_000, "sent to good")


async def test_each_submits_its_own_children() -> None:
    async with harness(post := Post()) as rig:
        await submit(rig, "child", "bad", "child")
        await rig.run_until_idle()
        assert post.calls[1:] == [["made", "made"]]


async def test_what_does_not_bind_takes_no_part_in_the_call() -> None:
    async with harness(post := Post()) as rig:
        with pytest.raises(InvalidInput, match="mail/to: should be a valid string; got 5"):
            await rig.submit(Task(handler="send", payload={"mail": {"to": 5}}))
        [band] = await rig.world.bands.intern([BandKey("send", Lane.MEDIUM)])
        foreign = new_task(band, payload=b'{"mail": {"to": 5}}')  # as another version took it
        await rig.store.accept([[foreign]])
        good = await submit(rig, "a", "b")
        await rig.advance(6)
        assert (post.calls, {each.state for each in good}) == ([["a", "b"]], {State.SUCCEEDED})
        view = await rig.store.get(foreign.id)
        assert view is not None
        assert (view.state, view.failures, view.unbound) == (State.READY, 0, True)


@handler(batch=Batch(max=2, wait_s=0))
async def note(ctx: BatchContext, text: list[str]) -> None:
    ctx.use(Post).calls.append(text)


@handler(batch=Batch(max=9, wait_s=1))
async def gathered(ctx: BatchContext, number: list[int]) -> list[float | BaseException]:
    async def divide(one: Context, by: int) -> float:
        if by == 9:
            one.snooze(3600)
        return 18 / by

    return await asyncio.gather(
        *(divide(one, by) for one, by in zip(ctx.each, number, strict=True)), return_exceptions=True
    )


async def test_none_is_success_for_all_and_what_gather_returns_will_do() -> None:
    async with Rig(note, gathered, resources=[post := Post()]) as rig:
        noted = await rig.submit(task(note, "a"))
        await rig.advance(0.01)
        assert (post.calls, noted.result) == ([["a"]], None)
        parts = [await rig.submit(task(gathered, number)) for number in (3, 0, 9)]
        await rig.advance(1)
        assert parts[0].result == 6
        assert parts[1].error is not None
        assert (parts[1].error.type, parts[1].failures) == ("ZeroDivisionError", 1)
        assert (parts[2].state, parts[2].failures) == (State.SCHEDULED, 0)


# -- stopping -------------------------------------------------------------------------------------------


async def test_one_of_them_is_cancelled_or_times_out_while_the_call_goes_on() -> None:
    async with harness(post := Post()) as rig:
        first = await rig.submit(task(send, Mail("wait")))
        second = await rig.submit(task(send, Mail("a")))
        hurried = await rig.submit(task(send, Mail("b")).options(timeout_s=2))
        await rig.cancel(second)
        assert (second.state, second.attempt) == (State.CANCELLED, 1)
        assert [one.cancelled for one in post.contexts[0].each] == [False, True, False]
        assert not post.contexts[0].cancelled
        await rig.advance(3)
        assert (hurried.failures, first.state) == (1, State.RUNNING)
        assert [each.kind for each in hurried.attempts] == [AttemptKind.TIMED_OUT]
        post.gate.set()
        await rig.advance(0)
        assert first.result == "sent to wait"
        assert second.state is State.CANCELLED  # whatever the call has returned for it
        await rig.run_until_idle()
        assert (hurried.result, rig.world.capacity.taken_of(Kind.ASYNC)) == ("sent to b", 0)


async def test_the_call_is_stopped_with_the_last_of_them() -> None:
    async with harness(post := Post()) as rig:
        tasks = await submit(rig, "wait", "a", "b")
        for each in tasks:
            await rig.cancel(each)
        assert {each.state for each in tasks} == {State.CANCELLED}
        assert post.contexts[0].cancelled
        late = await submit(rig, "wait", "a", "b")
        await rig.advance(301)
        assert [[one.kind for one in each.attempts] for each in late] == [[AttemptKind.TIMED_OUT]] * 3
        post.gate.set()
        await rig.run_until_idle()
        assert rig.world.capacity.taken == 0


async def test_one_that_gathers_is_cancelled_at_once() -> None:
    async with harness(post := Post()) as rig:
        gone, stays = await submit(rig, "a", "b")
        await rig.cancel(gone)
        assert gone.state is State.CANCELLED
        await submit(rig, "c")
        assert post.calls == []
        await rig.advance(6)
        assert (post.calls, stays.state) == ([["b", "c"]], State.SUCCEEDED)


async def test_those_that_wait_for_a_worker_are_cancelled_and_with_the_last_their_call() -> None:
    async with Rig(send, resources=[post := Post()], concurrency=1) as rig:
        await bring(rig, "wait")
        await rig.advance(1)
        await bring(rig, "c", "d", tenant="acme")
        await rig.advance(6)
        assert {each.state for each in await rig.tasks()} == {State.RUNNING}
        for each in (await rig.tasks())[1:]:
            await rig.cancel(each)
        assert [each.state for each in await rig.tasks()][1:] == [State.CANCELLED] * 2
        post.gate.set()
        await rig.run_until_idle()
        assert post.calls == [["wait"]]
        assert (rig.world.capacity.taken, rig.world.capacity.taken_of(Kind.ASYNC)) == (0, 0)


@handler(batch=Batch(max=2, wait_s=5), timeout_s=5)
async def stubborn(ctx: BatchContext, number: list[int]) -> list[int]:
    while not ctx.use(Post).gate.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await ctx.use(Post).gate.wait()
    return number


async def test_a_call_that_swallows_its_cancellation_is_abandoned() -> None:
    async with Rig(stubborn, resources=[post := Post()]) as rig:
        tasks = [await rig.submit(task(stubborn, number)) for number in (1, 2)]
        await rig.advance(13)
        assert [[one.kind for one in each.attempts][:1] for each in tasks] == [[AttemptKind.TIMED_OUT]] * 2
        assert rig.counted("abandoned_bodies_total", "stubborn") == 1
        post.gate.set()
        await rig.run_until_idle()
        assert [each.result for each in tasks] == [1, 2]


async def test_a_drain_hands_back_what_gathers_and_waits_for_what_runs() -> None:
    async with harness(post := Post()) as rig:
        running = await submit(rig, "wait", "a", "b")
        gathers = await submit(rig, "c")
        draining = rig.draining(within_s=10)
        await rig.settle()
        await rig.advance(1)
        assert gathers[0].state is State.READY
        post.gate.set()
        await rig.advance(1)
        drained = await draining
        assert (drained.finished, drained.released) == (3, 1)
        assert {each.state for each in running} == {State.SUCCEEDED}


async def test_a_drain_that_cannot_wait_burns_nothing() -> None:
    async with harness(Post()) as rig:
        running = await submit(rig, "wait", "a", "b")
        draining = rig.draining(within_s=10)
        await rig.settle()
        await rig.advance(11)
        assert (await draining).released == 3
        assert {(each.state, each.failures) for each in running} == {(State.READY, 0)}


async def test_suspects_are_called_alone() -> None:
    async with harness(post := Post()) as rig:
        await rig.store.set_paused("send", paused=True)
        await rig.advance(1)
        band = rig.band_of((await submit(rig, "a", "b"))[0])
        for name in ("b", "c"):  # two incarnations die with both of them
            other = await rig.store.join(name, 1, {})
            while len(await rig.store.pull([Take(band, 2)], other)) < 2:
                await rig.advance(0.5)
            await rig.advance(2.5)
        await rig.store.set_paused("send", paused=False)
        await submit(rig, "c", "d")
        await rig.advance(20)
        assert sorted(post.calls) == [["a"], ["b"], ["c", "d"]]


# -- other bodies ---------------------------------------------------------------------------------------


@handler(batch=Batch(max=2, wait_s=5))
def in_thread(ctx: BatchContext, number: list[int]) -> Sequence[int | Exception]:
    ctx.raise_if_cancelled()
    assert threading.current_thread() is not threading.main_thread()
    return [number[0] * 10, ValueError("odd")] if len(number) == 2 else (number[0],)


async def test_a_def_runs_in_a_thread() -> None:
    async with Rig(in_thread, threads=1) as rig:
        first, second = [await rig.submit(task(in_thread, number)) for number in (4, 5)]
        await rig.advance(0)
        assert (first.result, second.failures) == (40, 1)
        await rig.run_until_idle()
        assert second.result == 5


@pytest.mark.parametrize("fn", [send, in_thread])
async def test_with_an_actor_key_they_run_one_after_the_other(fn: Any) -> None:
    async with Rig(fn, resources=[post := Post()]) as rig:
        values: list[Any] = [Mail("a"), Mail("bad")] if fn is send else [1, 2]
        tasks = [await rig.submit(task(fn, value).options(actor_key="k")) for value in values]
        await rig.advance(1)
        assert tasks[0].state is State.SUCCEEDED
        if fn is send:
            assert post.calls == [["a"], ["bad"]]
            assert tasks[1].state is State.FAILED


# -- registration ---------------------------------------------------------------------------------------


def marked(**options: Any) -> Any:
    return handler(batch=Batch(max=2), **options)


async def no_context(ctx: Context, x: list[int]) -> None: ...
async def no_batch(ctx: BatchContext, x: list[int]) -> None: ...
async def no_list(ctx: BatchContext, x: int) -> None: ...
async def two(ctx: BatchContext, x: list[int], y: list[int]) -> None: ...
async def default(ctx: BatchContext, x: list[int] = []) -> None: ...  # noqa: B006
async def one_result(ctx: BatchContext, x: list[int]) -> int: ...  # type: ignore[empty-body]
def cpu(ctx: BatchContext, x: list[int]) -> None: ...


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: marked()(no_context), r"must be the context \(ctx: BatchContext\)"),
        (lambda: handler(no_batch), r"say how many tasks a call gets: @handler\(batch=Batch\(max=100\)\)"),
        (lambda: marked()(no_list), "takes one list after the context"),
        (lambda: marked()(two), "takes one list after the context"),
        (lambda: marked()(default), "'x' has a default; every task of a batch has a value"),
        (lambda: marked()(one_result), "returns a list or None, not <class 'int'>"),
        (lambda: marked(cpu=True)(cpu), "batch: is for async def and for def in threads, not for cpu=True"),
        (lambda: handler(batch=Batch(max=0)), "batch: max=0 is not a whole number from 1 to 1000"),
        (lambda: handler(batch=Batch(wait_s=61)), "batch: wait_s=61 is not a number of seconds from 0 to 60"),
        (lambda: handler(batch=5), r"batch: 5 is not a Batch\(max=…, wait_s=…\)"),  # type: ignore[call-overload]
    ],
)
def test_what_cannot_be_a_batch_is_refused_at_its_line(make: Any, said: str) -> None:
    async def plain(ctx: Context) -> None: ...

    with pytest.raises(RegistrationError, match=said):
        made = make()
        Registry(made if hasattr(made, "__noria_handler__") else made(plain))


def test_methods_of_actors_are_refused() -> None:
    class Box(Actor):
        @handler(batch=Batch())  # type: ignore[arg-type]  # a method
        async def put(self, ctx: BatchContext, mail: list[int]) -> None: ...

    with pytest.raises(RegistrationError, match="batch= is for functions"):
        Registry(Box)


async def test_a_harness_does_not_wait_in_real_time_for_what_only_gathers() -> None:
    async with Harness(send, resources=[Post()]) as plain:
        began_s = asyncio.get_running_loop().time()
        await submit(plain, "a", "b")
        assert asyncio.get_running_loop().time() - began_s < 1
        assert {each.state for each in await plain.tasks()} == {State.RUNNING}


async def test_a_batch_handler_can_be_called_directly() -> None:
    ctx = BatchContext.for_test(post := Post(), size=2)
    assert await send(ctx, [Mail("a"), Mail("child")]) == ["sent to a", "sent to child"]
    assert [len(one.children) for one in ctx.each] == [0, 1]
    assert (len(ctx), post.calls) == (2, [["a", "child"]])
