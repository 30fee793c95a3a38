"""One actor: messages, answers, timers, watching, stopping. All in virtual time."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, assert_type

import pytest

from runtime.core.restarts import RestartPolicy
from runtime.errors import ActorRestarted, ActorStopped, AskError, AskTimeout, MailboxFull
from runtime.kernel.actor import ActorContext, Behavior, Ref, Reply, Request
from runtime.kernel.clock import SystemClock
from runtime.kernel.mailbox import Overflow
from runtime.kernel.supervision import ChildSpec, Restart, Supervision
from runtime.kernel.system import ActorSystem
from runtime.kernel.virtual import simulated
from tests.support.probe import Broken, Do, Echo, Journal, Note, Probe, Urgent, block, boom, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from runtime.kernel.clock import Timer


@asynccontextmanager
async def system() -> AsyncGenerator[ActorSystem]:
    async with ActorSystem(supervision=Supervision(restarts=RestartPolicy(max_restarts=100))) as actors:
        yield actors


def spec(journal: Journal, name: str = "probe", *, hooks: bool = False, **options: Any) -> ChildSpec[Any]:
    return ChildSpec(name=name, make=lambda: Probe(journal, hooks=hooks), **options)


async def blocked(ref: Ref[Any]) -> asyncio.Event:
    """Keep the actor in a turn until the returned gate is opened."""
    gate = asyncio.Event()
    ref.tell(block(gate))
    await settle()
    return gate


def asking(ref: Ref[Any], text: str, timeout_s: float = 10) -> asyncio.Task[str]:
    return asyncio.create_task(ref.ask(Echo(text), timeout_s))


async def error_of(awaitable: Awaitable[object]) -> str:
    """The type of the error that an ask ends with, or its answer."""
    try:
        return str(await awaitable)
    except Exception as error:  # noqa: BLE001 - this is what it is for
        return type(error).__name__


# -- tell and ask -----------------------------------------------------------------------------------------


@simulated
async def test_messages_are_handled_one_at_a_time_in_order() -> None:
    journal = Journal()

    async def slow(number: int, _: ActorContext[Any]) -> None:
        journal(f"in {number}")
        await asyncio.sleep(1)
        journal(f"out {number}")

    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        for number in range(3):
            assert ref.tell(Do(partial(slow, number)))
        assert await ref.ask(Echo("end"), 10) == "end"
    assert journal.lines == ["in 0", "out 0", "in 1", "out 1", "in 2", "out 2", "end"]


@simulated
async def test_control_overtakes_and_is_not_refused_by_a_full_mailbox() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, capacity=2))
        gate = await blocked(ref)
        assert [ref.tell(Note(text)) for text in "abc"] == [True, True, False]
        assert [ref.tell(Urgent(text)) for text in "uv"] == [True, True]
        gate.set()
        await settle()
    assert journal.lines == ["u", "v", "a", "b"]
    assert actors.dead_letters.counts == {"mailbox_full": 1}


@simulated
async def test_a_busy_actor_gives_others_their_turn() -> None:
    """It sends itself a message from every message; others do not wait until it has had enough."""
    handled = 0

    class Busy(Behavior[Note]):
        async def receive(self, ctx: ActorContext[Note], message: Note) -> None:
            nonlocal handled
            handled += 1
            if handled < 10_000:
                ctx.self.tell(message)

    async with system() as actors:
        busy = await actors.spawn(ChildSpec(name="busy", make=Busy))
        other = await actors.spawn(spec(Journal()))
        busy.tell(Note("again"))
        assert await other.ask(Echo("hello"), 1) == "hello"
        assert handled < 1_000


@simulated
async def test_an_ask_times_out_and_its_message_is_dropped_unhandled() -> None:
    journal = Journal()
    loop = asyncio.get_running_loop()
    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        gate = await blocked(ref)
        with pytest.raises(AskTimeout, match="probe did not answer Echo in time"):
            await ref.ask(Echo("late"), 2.5)
        assert loop.time() == 2.5
        gate.set()
        assert await ref.ask(Echo("next"), 1) == "next"
    assert journal.lines == ["next"]
    assert actors.dead_letters.counts == {"expired": 1}


@simulated
async def test_an_asker_that_leaves_takes_its_message_along() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        gate = await blocked(ref)
        ask = asking(ref, "left")
        await settle()
        ask.cancel()
        gate.set()
        assert await ref.ask(Echo("next"), 1) == "next"
        assert ask.cancelled()
    assert journal.lines == ["next"]
    assert actors.dead_letters.counts == {"expired": 1}


@simulated
async def test_an_answer_after_the_deadline_is_harmless() -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))

        async def late(ctx: ActorContext[Any]) -> None:
            await asyncio.sleep(5)
            ctx.reply("too late")

        assert await error_of(ref.ask(Do(late), 1)) == "AskTimeout"
        await asyncio.sleep(5)
        assert await ref.ask(Echo("fine"), 1) == "fine"


@simulated
async def test_an_ask_without_an_answer_ends_at_once() -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        with pytest.raises(AskError, match="probe handled Do without an answer"):
            await ref.ask(Do(lambda _: None), 1000)
        assert asyncio.get_running_loop().time() == 0
    assert actors.dead_letters.counts == {"unhandled": 1}


@simulated
async def test_an_error_as_answer_reaches_the_asker_and_the_actor_lives_on() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        with pytest.raises(Broken, match="no"):
            await ref.ask(Do(lambda ctx: ctx.fail(Broken("no"))), 1)
    assert journal.starts == 1


@simulated
async def test_what_was_told_may_be_answered_to_nobody() -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        ref.tell(Echo("a"))
        ref.tell(Do(lambda ctx: ctx.fail(Broken())))
        assert await ref.ask(Echo("b"), 1) == "b"


@simulated
async def test_only_the_first_answer_counts() -> None:
    def twice(ctx: ActorContext[Any]) -> None:
        ctx.reply(1)
        ctx.reply(2)

    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        assert await ref.ask(Do(twice), 1) == 1


@simulated
async def test_what_an_actor_does_not_know_is_a_dead_letter_with_its_type() -> None:
    seen: list[tuple[str, str, str]] = []

    def hook(reason: str, actor: str, kind: str) -> None:
        seen.append((reason, actor, kind))

    async with ActorSystem(on_dead_letter=hook) as actors:
        ref = await actors.spawn(spec(Journal()))
        ref.tell(17)
        await settle()
    assert seen == [("unhandled", "probe", "int")]


@simulated
async def test_dead_letters_are_sampled_in_the_log_without_contents(caplog: pytest.LogCaptureFixture) -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        for pause_s in (1, 1, 20, 1):
            ref.tell("secret")
            await asyncio.sleep(pause_s)
    assert actors.dead_letters.counts == {"unhandled": 4}
    assert [record.getMessage() for record in caplog.records] == [
        "dead letter: str for probe: unhandled (0 more since the last line)",
        "dead letter: str for probe: unhandled (2 more since the last line)",
    ]


@dataclass(frozen=True, slots=True)
class Add:
    number: int


@dataclass(frozen=True, slots=True)
class Sum(Request[int]):
    pass


class Adder(Behavior[Add | Sum]):
    def __init__(self) -> None:
        self._sum = 0

    async def receive(self, ctx: ActorContext[Add | Sum], message: Add | Sum) -> None:
        match message:
            case Add(number):
                self._sum += number
            case Sum():
                ctx.reply(self._sum)


@simulated
async def test_the_answer_has_the_type_that_the_message_promises() -> None:
    """Also a test of the annotations: the type checkers read this file."""
    async with system() as actors:
        ref = await actors.spawn(ChildSpec(name="adder", make=Adder))
        assert_type(ref, Ref[Add | Sum])
        ref.tell(Add(2))
        ref.tell(Add(3))
        result = await ref.ask(Sum(), 1)
        assert_type(result, int)
        assert result == 5


# -- full mailboxes ---------------------------------------------------------------------------------------


@simulated
async def test_reject_refuses_asks_at_once() -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal(), capacity=1))
        gate = await blocked(ref)
        ref.tell(Note("a"))
        with pytest.raises(MailboxFull, match=r"probe: mailbox is full \(1 messages wait\)"):
            await ref.ask(Echo("b"), 1)
        assert not await ref.tell_wait(Note("c"), 1)
        assert asyncio.get_running_loop().time() == 0
        gate.set()
        await settle()
    assert actors.dead_letters.counts == {"mailbox_full": 2}


@simulated
async def test_drop_old_answers_the_ask_that_it_drops() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, capacity=2, overflow=Overflow.DROP_OLD))
        gate = await blocked(ref)
        first = asking(ref, "a")
        await settle()
        assert all(ref.tell(Note(text)) for text in "bcd")
        assert await error_of(first) == "MailboxFull"
        gate.set()
        await settle()
    assert journal.lines == ["c", "d"]
    assert actors.dead_letters.counts == {"dropped_old": 2}


@simulated
async def test_wait_lets_senders_in_in_order_as_room_comes() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, capacity=2, overflow=Overflow.WAIT))
        gate = await blocked(ref)
        ref.tell(Note("a"))
        ref.tell(Note("b"))
        told = asyncio.create_task(ref.tell_wait(Note("c"), 10))
        await settle()
        asked = asking(ref, "d")
        await settle()
        assert not ref.tell(Note("tell does not wait"))
        assert not told.done()
        gate.set()
        assert (await told, await asked) == (True, "d")
    assert journal.lines == ["a", "b", "c", "d"]


@simulated
async def test_wait_ends_with_the_deadline_of_each_sender() -> None:
    journal = Journal()
    loop = asyncio.get_running_loop()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, capacity=2, overflow=Overflow.WAIT))
        gate = await blocked(ref)
        ref.tell(Note("a"))
        ref.tell(Note("b"))
        asked = asking(ref, "asked", timeout_s=2)
        assert not await ref.tell_wait(Note("told"), 1)
        assert loop.time() == 1
        assert await error_of(asked) == "AskTimeout"
        assert loop.time() == 2
        gate.set()
        await settle()
    assert journal.lines == ["a", "b"]
    assert actors.dead_letters.counts == {"mailbox_full": 1}


@simulated
async def test_wait_bounds_the_senders_too() -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal(), capacity=1, overflow=Overflow.WAIT))
        gate = await blocked(ref)
        ref.tell(Note("a"))
        sender = asyncio.create_task(ref.tell_wait(Note("b"), 10))
        await settle()
        assert await error_of(ref.ask(Echo("c"), 1)) == "MailboxFull"
        assert not await ref.tell_wait(Note("d"), 1)
        gate.set()
        assert await sender


@simulated
async def test_stopping_turns_waiting_senders_away() -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal(), capacity=1, overflow=Overflow.WAIT))
        gate = await blocked(ref)
        ref.tell(Note("a"))
        told = asyncio.create_task(ref.tell_wait(Note("b"), 10))
        await settle()
        asked = asking(ref, "c")
        other = asyncio.create_task(actors.stop(ref))
        await settle()
        assert (await told, await error_of(asked)) == (False, "MailboxFull")
        gate.set()
        await other
    assert actors.dead_letters.counts == {"stopped": 2, "mailbox_full": 1}


# -- deferred answers and detached work -------------------------------------------------------------------


def keep(replies: list[Reply[Any]], ctx: ActorContext[Any]) -> None:
    replies.append(ctx.defer())


@simulated
async def test_a_deferred_answer_comes_later_while_others_are_handled() -> None:
    replies: list[Reply[Any]] = []
    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        ask = asyncio.create_task(ref.ask(Do(partial(keep, replies)), 10))
        assert await ref.ask(Echo("meanwhile"), 1) == "meanwhile"
        assert replies[0].waiting
        replies[0].send("later")
        assert await ask == "later"
        assert not replies[0].waiting


@pytest.mark.parametrize(("end", "error"), [("fail", "ActorRestarted"), ("stop", "ActorStopped")])
@simulated
async def test_deferred_answers_end_with_the_life_that_owes_them(end: str, error: str) -> None:
    replies: list[Reply[Any]] = []
    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        ask = asyncio.create_task(ref.ask(Do(partial(keep, replies)), 1000))
        await settle()
        if end == "fail":
            ref.tell(Do(boom))
        else:
            await actors.stop(ref)
        assert await error_of(ask) == error
        assert asyncio.get_running_loop().time() < 1
        replies[0].send("too late, and harmless")


@simulated
async def test_deferring_needs_an_asker() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        ref.tell(Do(lambda ctx: ctx.defer()))
        assert await ref.ask(Echo("after"), 10) == "after"
    assert journal.starts == 2  # AskError was a failure of that life


async def work(result: object = None, error: Exception | None = None) -> object:
    await asyncio.sleep(1)
    if error is not None:
        raise error
    return result


@simulated
async def test_detached_work_answers_with_its_result_or_error() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        good = Do(lambda ctx: ctx.detach(work("done"), ctx.defer()))
        bad = Do(lambda ctx: ctx.detach(work(error=Broken()), ctx.defer()))
        results = await asyncio.gather(error_of(ref.ask(good, 9)), error_of(ref.ask(bad, 9)))
        assert list(results) == ["done", "Broken"]
        assert asyncio.get_running_loop().time() == 1
    assert journal.starts == 1


@simulated
async def test_detached_work_that_nobody_waits_for_fails_its_actor() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        ref.tell(Do(lambda ctx: ctx.detach(work(error=Broken()))))
        inside = asyncio.create_task(ref.ask(block(asyncio.Event()), 10))  # its turn is cut short
        await settle()
        queued = asking(ref, "queued")
        assert await error_of(inside) == "ActorRestarted"
        assert asyncio.get_running_loop().time() == 1
        assert await queued == "queued"
    assert journal.starts == 2


@simulated
async def test_detached_work_that_is_cancelled_by_something_else_is_a_failure_too() -> None:
    journal = Journal()

    async def await_a_cancelled_thing() -> None:
        thing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        thing.cancel()
        await thing

    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        asked = Do(lambda ctx: ctx.detach(await_a_cancelled_thing(), ctx.defer()))
        with pytest.raises(AskError, match="probe: detached work was cancelled"):
            await ref.ask(asked, 10)
        assert journal.starts == 1
        ref.tell(Do(lambda ctx: ctx.detach(await_a_cancelled_thing())))
        await asyncio.sleep(1)
        assert journal.starts == 2


@simulated
async def test_an_error_for_an_asker_who_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        message = Do(lambda ctx: ctx.detach(work(error=Broken("details")), ctx.defer()))
        assert await error_of(ref.ask(message, 0.5)) == "AskTimeout"
        await asyncio.sleep(1)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == "probe failed a Do that nobody waits for"
    assert "details" in str(record.exc_info and record.exc_info[1])


@pytest.mark.parametrize(("end", "error"), [("fail", "ActorRestarted"), ("stop", "ActorStopped")])
@simulated
async def test_detached_work_is_cancelled_with_its_life(end: str, error: str) -> None:
    cancelled: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append("cancelled")
            raise

    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        ask = asyncio.create_task(ref.ask(Do(lambda ctx: ctx.detach(long(), ctx.defer())), 5000))
        await settle()
        if end == "fail":
            ref.tell(Do(boom))
        else:
            await actors.stop(ref)
        assert await error_of(ask) == error
        await settle()
        assert cancelled == ["cancelled"]


@simulated
async def test_a_life_that_is_over_starts_nothing() -> None:
    journal = Journal()
    contexts: list[ActorContext[Any]] = []
    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        ref.tell(Do(contexts.append))
        ref.tell(Do(boom))
        assert await ref.ask(Echo("new life"), 10) == "new life"
        contexts[0].detach(work("never begins"))
        contexts[0].after(1, Note("never comes"), key="k")
        contexts[0].stop()
        with pytest.raises(ActorStopped):
            await contexts[0].spawn(spec(journal, "child"))
        await asyncio.sleep(10)
        assert await ref.ask(Echo("still there"), 10) == "still there"
    assert journal.lines == ["new life", "still there"]


# -- timers -----------------------------------------------------------------------------------------------


@simulated
async def test_timers_are_keyed() -> None:
    journal = Journal()

    def arm(ctx: ActorContext[Any]) -> None:
        ctx.after(1, Note("replaced"), key="a")
        ctx.after(2, Note("two"), key="a")
        ctx.after(1, Note("one"), key="b")
        ctx.after(3, Note("cancelled"), key="c")
        ctx.cancel_timer("c")
        ctx.cancel_timer("unknown")

    async with system() as actors:
        (await actors.spawn(spec(journal))).tell(Do(arm))
        await asyncio.sleep(10)
    assert journal.lines == ["one", "two"]


@simulated
async def test_a_timer_cancelled_when_its_message_waits_already_does_not_arrive() -> None:
    journal = Journal()

    async def arm_and_oversleep(ctx: ActorContext[Any]) -> None:
        ctx.after(1, Note("cancelled"), key="a")
        ctx.after(1, Note("old"), key="b")
        await asyncio.sleep(2)
        ctx.cancel_timer("a")
        ctx.after(1, Note("new"), key="b")

    async with system() as actors:
        (await actors.spawn(spec(journal))).tell(Do(arm_and_oversleep))
        await asyncio.sleep(10)
    assert journal.lines == ["new"]


@simulated
async def test_a_full_mailbox_does_not_stop_a_ticking_actor() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, capacity=1))
        ref.tell(Do(lambda ctx: ctx.after(1, Note("tick"), key="tick")))
        await settle()
        gate = await blocked(ref)
        assert ref.tell(Note("fills it"))
        await asyncio.sleep(2)
        gate.set()
        await settle()
    assert journal.lines == ["tick", "fills it"]


@simulated
async def test_timers_end_with_their_life_even_if_they_have_fired() -> None:
    journal = Journal()

    async def arm_and_fail(ctx: ActorContext[Any]) -> None:
        ctx.after(1, Note("fired"), key="a")
        ctx.after(5, Note("not yet"), key="b")
        await asyncio.sleep(2)
        raise Broken

    async with system() as actors:
        ref = await actors.spawn(spec(journal))
        ref.tell(Do(arm_and_fail))
        await asyncio.sleep(20)
        assert await ref.ask(Echo("end"), 1) == "end"
    assert journal.lines == ["end"]


@simulated
async def test_no_timer_is_left_behind_by_a_life() -> None:
    """Neither its own nor the deadlines of asks."""
    handles: list[Timer] = []

    class Counting(SystemClock):
        def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
            handles.append(super().call_later(delay_s, callback))
            return handles[-1]

    async with ActorSystem(Counting()) as actors:
        ref = await actors.spawn(spec(Journal()))
        ref.tell(Do(lambda ctx: ctx.after(1e6, Note("never"), key="k")))
        assert await ref.ask(Echo("answered"), 1e6) == "answered"
    assert len(handles) == 2
    assert all(isinstance(handle, asyncio.TimerHandle) and handle.cancelled() for handle in handles)


# -- watching ---------------------------------------------------------------------------------------------


@simulated
async def test_watchers_hear_of_the_end_but_not_of_a_restart() -> None:
    journal = Journal()
    async with system() as actors:
        watched = await actors.spawn(spec(Journal(), "watched"))
        watcher = await actors.spawn(spec(journal, "watcher"))
        watcher.tell(Do(lambda ctx: ctx.watch(watched)))
        watched.tell(Do(boom))
        assert await watched.ask(Echo("back"), 10) == "back"
        assert journal.take() == []
        await actors.stop(watched)
        await settle()
        assert journal.take() == ["watched stopped"]
        watcher.tell(Do(lambda ctx: ctx.watch(watched)))  # dead already
        await settle()
        assert journal.take() == ["watched stopped"]


@simulated
async def test_a_failure_that_is_final_is_named() -> None:
    journal = Journal()
    async with system() as actors:
        watched = await actors.spawn(spec(Journal(), "watched", restart=Restart.TEMPORARY))
        watcher = await actors.spawn(spec(journal, "watcher"))
        watcher.tell(Do(lambda ctx: ctx.watch(watched)))
        await settle()
        assert await error_of(watched.ask(Do(boom), 1)) == "ActorStopped"
        await settle()
        assert watched.stopped
    assert journal.lines == ["watched failed"]


@pytest.mark.parametrize("how", ["unwatch", "restart"])
@simulated
async def test_watching_ends(how: str) -> None:
    """By hand, or with the life that watched."""
    journal = Journal()
    async with system() as actors:
        watched = await actors.spawn(spec(Journal(), "watched"))
        watcher = await actors.spawn(spec(journal, "watcher"))
        watcher.tell(Do(lambda ctx: ctx.watch(watched)))
        watcher.tell(Do((lambda ctx: ctx.unwatch(watched)) if how == "unwatch" else boom))
        assert await watcher.ask(Echo("ready"), 10) == "ready"
        await actors.stop(watched)
        await settle()
    assert journal.lines == ["ready"]


# -- starting and stopping --------------------------------------------------------------------------------


@simulated
async def test_a_failing_start_is_raised_to_who_spawns_and_the_name_is_free_again() -> None:
    journal = Journal(fail_starts=1)
    async with system() as actors:
        with pytest.raises(Broken, match="at start"):
            await actors.spawn(spec(journal))
        assert await (await actors.spawn(spec(journal))).ask(Echo("second try"), 1) == "second try"
        with pytest.raises(ValueError, match="'probe': taken by a sibling"):
            await actors.spawn(spec(journal))


@simulated
async def test_a_factory_that_raises_is_a_failing_start() -> None:
    def make() -> Probe:
        raise Broken("cannot make")

    async with system() as actors:
        with pytest.raises(Broken, match="cannot make"):
            await actors.spawn(ChildSpec(name="probe", make=make))
        assert actors.depths() == {}


@simulated
async def test_a_start_that_hangs_fails() -> None:
    class Hanging(Behavior[Any]):
        async def started(self, ctx: ActorContext[Any]) -> None:
            await asyncio.Event().wait()

    async with system() as actors:
        with pytest.raises(TimeoutError, match="probe: started took longer than 3 s"):
            await actors.spawn(ChildSpec(name="probe", make=Hanging, start_s=3))


@simulated
async def test_a_stop_lets_the_message_end_and_answers_the_rest() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, hooks=True))

        async def slow(ctx: ActorContext[Any]) -> None:
            await asyncio.sleep(1)
            ctx.reply("done")

        inside = asyncio.create_task(ref.ask(Do(slow), 10))
        await settle()
        queued = asking(ref, "queued")
        ref.tell(Note("queued too"))
        await settle()
        stop = asyncio.create_task(actors.stop(ref))
        assert await error_of(queued) == "ActorStopped"
        assert asyncio.get_running_loop().time() == 0
        assert not ref.tell(Note("too late"))
        assert await error_of(ref.ask(Echo("too late"), 1)) == "ActorStopped"
        assert await inside == "done"
        await stop
    assert journal.lines == ["started", "stopped"]
    assert actors.dead_letters.counts == {"stopped": 4}


@simulated
async def test_a_message_that_does_not_end_is_cancelled() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, hooks=True, shutdown_s=2))
        ask = asyncio.create_task(ref.ask(block(asyncio.Event()), 1000))
        await settle()
        await actors.stop(ref)
        assert asyncio.get_running_loop().time() == 2
        assert await error_of(ask) == "ActorStopped"
    assert journal.lines == ["started", "killed"]


@simulated
async def test_a_message_that_swallows_its_cancellation_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()
    journal = Journal()

    async def deaf(_: ActorContext[Any]) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with system() as actors:
        ref = await actors.spawn(spec(Journal(), "deaf", shutdown_s=2))
        watcher = await actors.spawn(spec(journal, "watcher"))
        watcher.tell(Do(lambda ctx: ctx.watch(ref)))
        ask = asyncio.create_task(ref.ask(Do(deaf), 1000))
        await settle()
        await actors.stop(ref)
        assert asyncio.get_running_loop().time() == 7  # three times 2 s, and 1 s of grace
        await settle()
        assert journal.lines == ["deaf killed"]
        assert await error_of(ask) == "ActorStopped"
        release.set()
        await settle()
    assert "deaf does not end when cancelled; it is left behind" in caplog.text


@pytest.mark.parametrize("hook", ["hangs", "raises"])
@simulated
async def test_a_bad_stopped_hook_does_not_prevent_the_end(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(Probe):
        async def stopped(self, ctx: ActorContext[Any], reason: object) -> None:
            if hook == "raises":
                raise Broken
            await asyncio.Event().wait()

    async with system() as actors:
        ref = await actors.spawn(ChildSpec(name="bad", make=lambda: Bad(Journal()), shutdown_s=2))
        await actors.stop(ref)
        assert ref.stopped
        assert asyncio.get_running_loop().time() == (2 if hook == "hangs" else 0)
    assert "bad: stopped failed" in caplog.text


@pytest.mark.parametrize("how", ["its context", "the system"])
@simulated
async def test_an_actor_may_stop_itself_in_a_turn(how: str) -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, hooks=True, restart=Restart.TRANSIENT))

        async def stop(ctx: ActorContext[Any]) -> None:
            if how == "its context":
                ctx.stop()
            else:
                await actors.stop(ctx.self)
            ctx.reply("last words")

        assert await ref.ask(Do(stop), 1) == "last words"
        await settle()
        assert ref.stopped
        assert actors.depths() == {}
    assert journal.lines == ["started", "stopped"]


@simulated
async def test_an_exception_outside_of_the_usual_tree_is_a_failure_too() -> None:
    class Odd(BaseException):
        pass

    def odd(_: ActorContext[Any]) -> None:
        raise Odd

    async with system() as actors:
        ref = await actors.spawn(spec(Journal()))
        with pytest.raises(ActorRestarted) as caught:
            await ref.ask(Do(odd), 1)
        assert str(caught.value.__cause__) == "probe: ended by Odd()"
        assert await ref.ask(Echo("back"), 10) == "back"


@pytest.mark.parametrize("restart", [Restart.PERMANENT, Restart.TRANSIENT])
@simulated
async def test_something_cancelled_inside_a_turn_is_a_failure_not_a_stop(restart: Restart) -> None:
    journal = Journal()

    async def await_a_cancelled_thing(_: ActorContext[Any]) -> None:
        thing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        thing.cancel()
        await thing

    async with system() as actors:
        ref = await actors.spawn(spec(journal, restart=restart))
        assert await error_of(ref.ask(Do(await_a_cancelled_thing), 1)) == "ActorRestarted"
        assert await ref.ask(Echo("back"), 10) == "back"
    assert journal.starts == 2


@simulated
async def test_a_cancelled_actor_task_stops_for_good_and_stays_cancelled() -> None:
    """As when the loop shuts down: no restart, everybody is answered, the cancellation is not swallowed."""
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, hooks=True))
        ask = asyncio.create_task(ref.ask(block(asyncio.Event()), 1000))
        await settle()
        queued = asking(ref, "queued")
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "probe"]
        await settle()
        task.cancel()
        assert await error_of(ask) == "ActorStopped"
        assert await error_of(queued) == "ActorStopped"
        await asyncio.wait({task})
        assert task.cancelled()
        assert ref.stopped
    assert (journal.starts, journal.lines) == (1, ["started", "stopped"])


@simulated
async def test_an_actor_that_idles_costs_nothing_and_stops_at_once() -> None:
    async with system() as actors:
        refs = [await actors.spawn(spec(Journal(), f"a{number}")) for number in range(100)]
        assert set(actors.depths().values()) == {0}
        before_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() == before_s
    assert all(ref.stopped for ref in refs)
    assert len(asyncio.all_tasks()) == 1


@simulated
async def test_no_future_is_left_with_an_error_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    """What the loop reports about forgotten futures and tasks would be in the log."""
    async with system() as actors:
        ref = await actors.spawn(spec(Journal(), capacity=4))
        gate = await blocked(ref)
        asks: list[Coroutine[Any, Any, str]] = [ref.ask(Echo(str(number)), 1) for number in range(8)]
        ends = await asyncio.gather(*map(error_of, asks))
        assert sorted(set(ends)) == ["AskTimeout", "MailboxFull"]
        gate.set()
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_specs_name_field_and_value() -> None:
    make: Callable[[], Probe] = partial(Probe, Journal())
    with pytest.raises(ValueError, match="child name 'a/b': must be non-empty and without '/'"):
        ChildSpec(name="a/b", make=make)
    with pytest.raises(ValueError, match="child a: capacity 0: must be 1 or more"):
        ChildSpec(name="a", make=make, capacity=0)
    with pytest.raises(ValueError, match="child a: shutdown_s nan: must be above 0"):
        ChildSpec(name="a", make=make, shutdown_s=float("nan"))


def test_ask_errors_share_a_base() -> None:
    assert all(issubclass(kind, AskError) for kind in (AskTimeout, ActorStopped, ActorRestarted, MailboxFull))
