"""Who is restarted when, in which order, how often; and the messages meanwhile. In virtual time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.backoff import Backoff
from runtime.core.restarts import RestartPolicy
from runtime.errors import ActorRestarted, ActorStopped, AskError
from runtime.kernel.actor import ActorContext, Behavior, Ref
from runtime.kernel.supervision import ChildSpec, Restart, RestartsExceeded, Strategy, Supervision
from runtime.kernel.system import ActorSystem
from runtime.kernel.virtual import run, simulated
from tests.support.probe import Broken, Do, Echo, Journal, Note, Probe, block, boom, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

PATIENT = RestartPolicy(max_restarts=1000, within_s=1000)


class Half(Random):
    """Jitter that is always in the middle."""

    def random(self) -> float:
        return 0.5


@asynccontextmanager
async def system(
    strategy: Strategy = Strategy.ONE_FOR_ONE, restarts: RestartPolicy = PATIENT
) -> AsyncGenerator[ActorSystem]:
    async with ActorSystem(supervision=Supervision(strategy, restarts), random=Half()) as actors:
        yield actors


def spec(journal: Journal, name: str, **options: Any) -> ChildSpec[Any]:
    return ChildSpec(name=name, make=lambda: Probe(journal, name, hooks=True), **options)


class Parent(Probe):
    """Starts its children before its first message."""

    def __init__(self, journal: Journal, name: str, *children: ChildSpec[Any]) -> None:
        super().__init__(journal, name, hooks=True)
        self._children = children

    async def started(self, ctx: ActorContext[Any]) -> None:
        await super().started(ctx)
        self.refs = [await ctx.spawn(child) for child in self._children]


def parent(
    journal: Journal, name: str, *children: ChildSpec[Any], supervision: Supervision | None = None
) -> ChildSpec[Any]:
    return ChildSpec(
        name=name,
        make=lambda: Parent(journal, name, *children),
        supervision=supervision or Supervision(restarts=PATIENT),
    )


async def error_of(awaitable: Awaitable[object]) -> str:
    try:
        return str(await awaitable)
    except Exception as error:  # noqa: BLE001 - this is what it is for
        return type(error).__name__


# -- strategies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "lines"),
    [
        (Strategy.ONE_FOR_ONE, ["b failed", "b started"]),
        (
            Strategy.ONE_FOR_ALL,
            ["b failed", "c restarted", "a restarted", "a started", "b started", "c started"],
        ),
        (Strategy.REST_FOR_ONE, ["b failed", "c restarted", "b started", "c started"]),
    ],
)
@simulated
async def test_who_is_restarted_and_in_which_order(strategy: Strategy, lines: list[str]) -> None:
    journal = Journal()
    async with system(strategy) as actors:
        a, b, c = [await actors.spawn(spec(journal, name)) for name in "abc"]
        journal.take()
        b.tell(Do(boom))
        await asyncio.sleep(60)
        assert journal.take() == lines
        assert [await ref.ask(Echo("alive"), 1) for ref in (a, b, c)] == ["alive"] * 3
        journal.take()
    assert journal.lines == ["c stopped", "b stopped", "a stopped"]


@pytest.mark.parametrize("strategy", Strategy)
@simulated
async def test_two_that_fail_together_are_both_restarted(strategy: Strategy) -> None:
    journal = Journal()
    async with system(strategy) as actors:
        refs = [await actors.spawn(spec(journal, name)) for name in "abcd"]
        for ref in (refs[2], refs[1]):
            ref.tell(Do(boom))
        ends = await asyncio.gather(*(ref.ask(Echo("alive"), 60) for ref in refs))
        assert ends == ["alive"] * 4


@pytest.mark.parametrize("strategy", Strategy)
@simulated
async def test_a_restart_that_fails_is_tried_again_with_the_others(strategy: Strategy) -> None:
    journal = Journal()
    async with system(strategy) as actors:
        refs = [await actors.spawn(spec(journal, name)) for name in "abc"]
        journal.fail_starts = 3
        refs[1].tell(Do(boom))
        ends = await asyncio.gather(*(ref.ask(Echo("alive"), 600) for ref in refs))
        assert ends == ["alive"] * 3
        assert journal.fail_starts == 0


@simulated
async def test_who_comes_after_one_that_cannot_start_waits_for_it() -> None:
    journal = Journal()
    own = Journal(journal.lines)
    async with system(Strategy.ONE_FOR_ALL) as actors:
        await actors.spawn(spec(journal, "a"))
        await actors.spawn(spec(own, "b"))
        c = await actors.spawn(spec(journal, "c"))
        own.fail_starts = 1
        journal.lines.clear()
        c.tell(Do(boom))
        assert await c.ask(Echo("back"), 60) == "back"
    assert journal.lines[:9] == [
        "c failed",
        "b restarted",
        "a restarted",
        "a started",
        "b started",  # and fails
        "a restarted",
        "a started",
        "b started",
        "c started",
    ]


@simulated
async def test_who_fails_during_the_wait_is_restarted_in_the_same_go() -> None:
    journal = Journal()
    policy = RestartPolicy(max_restarts=10, backoff=Backoff(first_s=2, factor=1, max_s=2))
    async with system(Strategy.REST_FOR_ONE, policy) as actors:
        _, b, c = [await actors.spawn(spec(journal, name)) for name in "abc"]
        journal.take()
        c.tell(Do(boom))
        await asyncio.sleep(0.5)
        b.tell(Do(boom))
        await asyncio.sleep(60)
        assert journal.take() == ["c failed", "b failed", "b started", "c started"]


# -- messages over a restart ------------------------------------------------------------------------------


@simulated
async def test_a_restart_keeps_the_ref_and_the_mailbox_but_not_the_message_in_hand() -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, "a"))
        asks = [asyncio.create_task(ref.ask(Do(boom), 10)), asyncio.create_task(ref.ask(Echo("first"), 10))]
        await settle(1)
        ref.tell(Note("second"))
        with pytest.raises(ActorRestarted) as caught:
            await asks[0]
        assert isinstance(caught.value.__cause__, Broken)
        assert ref.tell(Note("sent during the back-off"))
        assert await asks[1] == "first"
        assert await ref.ask(Echo("last"), 1) == "last"
        assert actors.dead_letters.counts == {}
        assert journal.take() == [
            "a started",
            "a failed",
            "a started",
            "a first",
            "a second",
            "a sent during the back-off",
            "a last",
        ]


@simulated
async def test_a_sibling_restarted_along_ends_its_message_and_keeps_its_mailbox() -> None:
    async with system(Strategy.ONE_FOR_ALL) as actors:
        a = await actors.spawn(spec(Journal(), "a", shutdown_s=2))
        b = await actors.spawn(spec(Journal(), "b"))
        inside = asyncio.create_task(a.ask(block(asyncio.Event()), 1000))
        await settle()
        queued = asyncio.create_task(a.ask(Echo("queued"), 1000))
        b.tell(Do(boom))
        assert await error_of(inside) == "ActorRestarted"
        assert await queued == "queued"


@simulated
async def test_stopping_during_the_back_off_answers_who_waits() -> None:
    policy = RestartPolicy(max_restarts=10, backoff=Backoff(first_s=100, factor=1, max_s=100))
    async with system(restarts=policy) as actors:
        ref = await actors.spawn(spec(Journal(), "a"))
        ref.tell(Do(boom))
        await settle()
        ask = asyncio.create_task(ref.ask(Echo("waits"), 1000))
        await settle()
        assert not ref.stopped
        await actors.stop(ref)
        assert await error_of(ask) == "ActorStopped"
        assert asyncio.get_running_loop().time() == 0
        journal = Journal()
        await actors.spawn(spec(journal, "a"))
        await asyncio.sleep(1000)
        assert journal.lines == ["a started"]  # the old one's restart does not hit the new one


@simulated
async def test_the_system_ends_at_once_during_a_back_off() -> None:
    policy = RestartPolicy(max_restarts=10, backoff=Backoff(first_s=100, factor=1, max_s=100))
    async with system(restarts=policy) as actors:
        ref = await actors.spawn(spec(Journal(), "a"))
        assert await error_of(ref.ask(Do(boom), 1)) == "ActorRestarted"
    assert asyncio.get_running_loop().time() == 0
    assert ref.stopped


@simulated
async def test_a_stop_overrules_the_restart_of_an_actor_that_is_still_winding_up() -> None:
    journal = Journal()

    class SlowToEnd(Probe):
        async def stopped(self, ctx: ActorContext[Any], reason: object) -> None:
            await asyncio.sleep(1)

    async with system() as actors:
        ref = await actors.spawn(ChildSpec[Any](name="a", make=lambda: SlowToEnd(Journal())))
        watcher = await actors.spawn(spec(journal, "w"))
        watcher.tell(Do(lambda ctx: ctx.watch(ref)))
        ref.tell(Do(boom))
        await settle()
        journal.take()
        await actors.stop(ref)
        await asyncio.sleep(60)
        assert list(actors.depths()) == ["w"]
        assert journal.take() == ["w a failed"]


# -- how often --------------------------------------------------------------------------------------------


@simulated
async def test_restarts_wait_longer_and_longer() -> None:
    loop = asyncio.get_running_loop()
    starts: list[float] = []

    class Failing(Behavior[Any]):
        async def started(self, ctx: ActorContext[Any]) -> None:
            starts.append(loop.time())
            ctx.self.tell("fail")

        async def receive(self, ctx: ActorContext[Any], message: Any) -> None:
            raise Broken

    policy = RestartPolicy(max_restarts=4, within_s=100, backoff=Backoff(first_s=2, factor=2, max_s=8))
    async with system(restarts=policy) as actors:
        await actors.spawn(ChildSpec(name="a", make=Failing))
        assert isinstance(await actors.failed, RestartsExceeded)
    assert starts == [0, 1, 3, 7, 11]  # half of 2, 4, 8, 8: the jitter is 0.5


@simulated
async def test_rare_failures_are_restarted_for_ever() -> None:
    journal = Journal()
    async with system(restarts=RestartPolicy(max_restarts=1, within_s=30)) as actors:
        ref = await actors.spawn(spec(journal, "a"))
        for _ in range(10):
            ref.tell(Do(boom))
            await asyncio.sleep(31)
        assert not actors.failed.done()
    assert journal.starts == 11


@simulated
async def test_the_top_gives_up_stops_everything_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    async with system(restarts=RestartPolicy(max_restarts=1, within_s=30)) as actors:
        good = await actors.spawn(spec(journal, "good"))
        bad = await actors.spawn(spec(journal, "bad"))
        inside = asyncio.create_task(good.ask(block(asyncio.Event()), 1000))
        await settle()
        queued = [asyncio.create_task(ref.ask(Echo("waits"), 1000)) for ref in (good, bad)]
        journal.take()
        for _ in range(2):
            bad.tell(Do(boom))
        error = await actors.failed
        assert isinstance(error, RestartsExceeded)
        assert str(error) == "bad: failure 2 among its siblings within 30 s, 1 are allowed"
        assert isinstance(error.__cause__, Broken)
        assert [await error_of(ask) for ask in (inside, *queued)] == ["ActorStopped"] * 3
        await settle()
        assert good.stopped
        assert bad.stopped
        assert actors.depths() == {}
        with pytest.raises(ActorStopped):
            await actors.spawn(spec(journal, "late"))
    assert "the actor system gives up" in caplog.text
    assert journal.lines[-1] == "good killed"


@simulated
async def test_a_supervisor_that_gives_up_fails_itself_and_starts_anew() -> None:
    journal = Journal()
    strict = Supervision(restarts=RestartPolicy(max_restarts=1, within_s=30))
    async with system() as actors:
        top = await actors.spawn(
            parent(journal, "top", *(spec(journal, n) for n in "ab"), supervision=strict)
        )

        async def break_b(ctx: ActorContext[Any]) -> None:
            assert ctx.children is not None
            for child in ctx.children:
                if child.spec.name == "b":
                    child.ref.tell(Do(boom))

        top.tell(Do(break_b))
        await asyncio.sleep(1)
        journal.take()
        inside = asyncio.create_task(top.ask(block(asyncio.Event()), 1000))
        refs = children_of(actors)
        await settle()
        refs["top/b"].tell(Do(boom))
        assert await error_of(inside) == "ActorRestarted"
        assert await top.ask(Echo("new"), 10) == "new"
        assert refs["top/a"].stopped
        assert journal.take() == [
            "b failed",
            "a stopped",
            "top failed",
            "top started",
            "a started",
            "b started",
            "top new",
        ]
        assert not actors.failed.done()


def children_of(actors: ActorSystem) -> dict[str, Ref[Any]]:
    found: dict[str, Ref[Any]] = {}
    pending = list(actors._top)
    while pending:
        cell = pending.pop()
        found[cell.name] = cell.ref
        pending.extend(cell.children or ())
    return found


# -- kinds of children ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "how", "starts"),
    [
        (Restart.PERMANENT, "fails", 2),
        (Restart.PERMANENT, "stops", 2),
        (Restart.TRANSIENT, "fails", 2),
        (Restart.TRANSIENT, "stops", 1),
        (Restart.TEMPORARY, "fails", 1),
        (Restart.TEMPORARY, "stops", 1),
    ],
)
@simulated
async def test_which_ends_are_followed_by_a_new_life(restart: Restart, how: str, starts: int) -> None:
    journal = Journal()
    async with system() as actors:
        ref = await actors.spawn(spec(journal, "a", restart=restart))
        ref.tell(Do(boom if how == "fails" else lambda ctx: ctx.stop()))
        await asyncio.sleep(100)
        assert journal.starts == starts
        assert ref.stopped is (starts == 1)


@simulated
async def test_a_temporary_child_is_not_restarted_along() -> None:
    journal = Journal()
    async with system(Strategy.ONE_FOR_ALL) as actors:
        a = await actors.spawn(spec(journal, "a", restart=Restart.TEMPORARY))
        b = await actors.spawn(spec(journal, "b"))
        b.tell(Do(boom))
        assert await b.ask(Echo("back"), 10) == "back"
        assert a.stopped
        assert list(actors.depths()) == ["b"]


@simulated
async def test_a_child_is_stopped_before_its_parent_and_may_be_stopped_alone() -> None:
    journal = Journal()
    async with system() as actors:
        top = await actors.spawn(parent(journal, "top", *(spec(journal, n) for n in "abc")))
        assert list(actors.depths()) == ["top", "top/a", "top/b", "top/c"]
        child = children_of(actors)["top/b"]
        journal.take()
        top.tell(Do(lambda ctx: ctx.stop_child(child)))
        await settle()
        assert journal.take() == ["b stopped"]
    assert journal.lines == ["c stopped", "a stopped", "top stopped"]


@simulated
async def test_a_child_that_cannot_start_fails_its_parents_start() -> None:
    journal = Journal()

    def broken() -> Probe:
        raise Broken("no such thing")

    async with system() as actors:
        bad = ChildSpec[Any](name="b", make=broken)
        with pytest.raises(Broken, match="no such thing"):
            await actors.spawn(parent(journal, "top", spec(journal, "a"), bad))
        assert journal.lines == ["top started", "a started", "a stopped"]
        assert actors.depths() == {}


@simulated
async def test_a_stop_during_a_slow_start_ends_the_wait_of_who_spawns() -> None:
    class Slow(Behavior[Any]):
        async def started(self, ctx: ActorContext[Any]) -> None:
            await asyncio.sleep(50)

    async with system() as actors:
        spawn = asyncio.create_task(actors.spawn(ChildSpec(name="slow", make=Slow, shutdown_s=3)))
        await settle()
        await actors.shutdown()
        assert await error_of(spawn) == "ActorStopped"
        assert asyncio.get_running_loop().time() == 3


@simulated
async def test_a_failure_while_it_is_stopped_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail_later(_: ActorContext[Any]) -> None:
        await asyncio.sleep(1)
        raise Broken("late")

    async with system() as actors:
        ref = await actors.spawn(spec(Journal(), "a"))
        ask = asyncio.create_task(ref.ask(Do(fail_later), 10))
        await settle()
    assert await error_of(ask) == "ActorStopped"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "a failed while it was stopped"


# -- everything at once -----------------------------------------------------------------------------------


def kaos(random: Random) -> Callable[[ActorContext[Any]], Awaitable[None]]:
    """A message that takes its time, fails, stops, defers, detaches or answers."""
    choice, pause_s = random.randrange(8), random.choice([0, 0, 0.1, 20])

    async def what(ctx: ActorContext[Any]) -> None:
        await asyncio.sleep(pause_s)
        match choice:
            case 0:
                raise Broken
            case 1 if ctx.asked is not None:
                ctx.defer()
            case 2:
                ctx.detach(asyncio.sleep(pause_s, "detached"), ctx.defer() if ctx.asked else None)
            case 3:
                ctx.stop()
            case _:
                ctx.reply("ok")

    return what


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(Strategy), st.sampled_from(Restart))
def test_whatever_happens_every_ask_ends_and_nothing_is_left(
    seed: int, strategy: Strategy, restart: Restart
) -> None:
    logging.disable()
    try:
        run(live_through, seed, strategy, restart)
    finally:
        logging.disable(logging.NOTSET)


async def live_through(seed: int, strategy: Strategy, restart: Restart) -> None:
    random, loop = Random(seed), asyncio.get_running_loop()
    asks: list[asyncio.Task[str]] = []
    supervision = Supervision(strategy, RestartPolicy(max_restarts=6, within_s=5))
    async with ActorSystem(supervision=supervision, random=random) as actors:
        inner = [spec(Journal(), name, restart=restart, capacity=4, shutdown_s=1) for name in "abc"]
        top = await actors.spawn(parent(Journal(), "top", *inner, supervision=supervision))
        refs: dict[str, Ref[Any]] = {}
        for _ in range(60):
            refs |= children_of(actors)
            ref = random.choice([*refs.values(), top])
            asks.append(loop.create_task(timed(ref, Do(kaos(random)), random.choice([0.05, 1, 30]))))
            await asyncio.sleep(random.choice([0, 0, 0.01, 1]))
    ended_s = loop.time()
    await asyncio.gather(*asks)
    assert loop.time() == ended_s  # the end of the system has answered all of them
    assert all(ref.stopped for ref in refs.values())
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def timed(ref: Ref[Any], message: Do, timeout_s: float) -> str:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        return str(await ref.ask(message, timeout_s))
    except AskError as error:
        return type(error).__name__
    finally:
        assert loop.time() <= began_s + timeout_s + 1e-6
