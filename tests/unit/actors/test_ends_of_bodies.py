"""Every way in which a body can end, and what becomes of its task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import Backoff, Context, Fail, Retry, handler, task
from actors.executor.bodies import RESULT_BYTES_MAX
from actors.executor.executor import Executor
from runtime.core.task import AttemptKind, BandKey, Lane, Reason, State, Status
from runtime.errors import Unavailable
from tests.support.actor_rig import Gates, Rig
from tests.support.factories import new_task

BACKOFF = Backoff(first_s=1, factor=2, max_s=100)


@handler("raises", max_attempts=3, backoff=BACKOFF, give_up_on=(LookupError,))
async def raises(ctx: Context, what: str) -> None:
    match what:
        case "value":
            raise ValueError("wrong")
        case "lookup":
            raise KeyError("gone")
        case "fail":
            raise Fail("final")
        case "exit":
            raise SystemExit(3)
        case "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                group.create_task(asyncio.sleep(1000))
        case "cancelled":
            raise asyncio.CancelledError


async def _fail() -> None:
    raise Fail("in a group")


@handler("picky", max_attempts=3, backoff=BACKOFF, retry_on=(ConnectionError,))
async def picky(ctx: Context, network: bool) -> None:
    raise ConnectionResetError("reset") if network else ValueError("wrong")


@handler("returns", max_attempts=3)
async def returns(ctx: Context, what: str) -> Any:
    return {"set": {1}, "object": object(), "nan": float("nan"), "large": "x" * RESULT_BYTES_MAX}[what]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [("lookup", "KeyError", "'gone'"), ("fail", "Fail", "final"), ("group", "Fail", "in a group")],
)
async def test_final_at_once(what: str, error: str, message: str) -> None:
    async with Rig(raises) as rig:
        ended = await rig.submit(task(raises, what=what))
        assert (ended.state, ended.attempt, ended.failures) == (State.FAILED, 1, 1)
        assert ended.error is not None
        assert (ended.error.type, ended.error.message) == (error, message)


@pytest.mark.parametrize(
    ("what", "error"),
    [("value", "ValueError"), ("exit", "SystemExit"), ("cancelled", "CancelledError")],
)
async def test_tried_again_with_back_off_until_the_budget_is_used_up(what: str, error: str) -> None:
    async with Rig(raises) as rig:
        ended = await rig.submit(task(raises, what=what))
        for wait_s in (1, 2):
            assert ended.state is State.SCHEDULED
            assert ended.error is not None
            assert ended.error.type == error
            await rig.advance(wait_s)
        assert (ended.state, ended.attempt, ended.failures) == (State.FAILED, 3, 3)
        assert [each.kind for each in ended.attempts] == [AttemptKind.FAILED] * 2


async def test_the_traceback_shows_the_authors_lines_only() -> None:
    async with Rig(raises) as rig:
        ended = await rig.submit(task(raises, what="value"))
        assert ended.error is not None
        assert 'raise ValueError("wrong")' in ended.error.traceback
        assert "actors/executor" not in ended.error.traceback


async def test_retry_on_names_what_is_worth_trying_again() -> None:
    async with Rig(picky) as rig:
        again = await rig.submit(task(picky, network=True))
        final = await rig.submit(task(picky, network=False))
        assert (again.state, final.state) == (State.SCHEDULED, State.FAILED)


async def test_a_handlers_own_wish_replaces_the_back_off_and_a_task_may_have_its_own_budget() -> None:
    @handler(max_attempts=10)
    async def busy(ctx: Context) -> None:
        raise Retry("busy", after_s=7)

    async with Rig(busy) as rig:
        ended = await rig.submit(task(busy).options(max_attempts=2))
        await rig.advance(6.9)
        assert ended.attempt == 1
        await rig.advance(0.1)
        assert (ended.state, ended.failures) == (State.FAILED, 2)


async def test_snoozing_burns_nothing() -> None:
    @handler(max_attempts=1)
    async def patient(ctx: Context) -> int:
        if ctx.attempt < 5:
            ctx.snooze(10)
        return ctx.attempt

    async with Rig(patient) as rig:
        ended = await rig.submit(task(patient))
        await rig.advance(40)
        assert (ended.result, ended.failures) == (5, 0)
        assert [each.kind for each in ended.attempts] == [AttemptKind.SNOOZED] * 4


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("object", "ResultNotSerializable"),
        ("nan", "ResultNotSerializable"),
        ("large", "ResultTooLarge"),
    ],
)
async def test_a_result_that_cannot_be_kept_fails_once_and_for_all(what: str, error: str) -> None:
    async with Rig(returns, result_bytes=RESULT_BYTES_MAX) as rig:
        ended = await rig.submit(task(returns, what=what))
        assert (ended.state, ended.failures) == (State.FAILED, 1)
        assert ended.error is not None
        assert ended.error.type == error


async def test_bytes_stay_bytes() -> None:
    @handler
    async def raw(ctx: Context) -> bytes:
        return b"\0\xff"

    async with Rig(raw) as rig:
        assert (await rig.submit(task(raw))).result == b"\0\xff"


# -- children ---------------------------------------------------------------------------------------


@handler("parent", max_attempts=2, backoff=BACKOFF)
async def parent(ctx: Context, ok_from: int = 1, child: str = "child") -> str:
    ctx.submit(task(child_handler, n=1), task(child_handler, n=2).options(delay_s=30, priority="low"))
    if ctx.attempt < ok_from:
        raise ValueError("not yet")
    return "done"


@handler("child")
async def child_handler(ctx: Context, n: int) -> int:
    return n


@handler("stranger_parent", max_attempts=2)
async def stranger_parent(ctx: Context) -> None:
    ctx.submit(task(stranger))


@handler("stranger")
async def stranger(ctx: Context) -> None: ...


async def test_children_are_committed_with_the_outcome() -> None:
    async with Rig(parent, child_handler) as rig:
        done = await rig.submit(task(parent))
        first, later = await rig.tasks("child")
        assert (done.state, first.result, later.state) == (State.SUCCEEDED, 1, State.SCHEDULED)
        await rig.advance(30)
        assert (later.result, later.view.lane.name) == (2, "LOW")


async def test_children_of_an_attempt_that_failed_are_dropped() -> None:
    async with Rig(parent, child_handler) as rig:
        done = await rig.submit(task(parent, ok_from=2))
        assert await rig.tasks("child") == []
        await rig.advance(1)
        assert (done.state, len(await rig.tasks("child"))) == (State.SUCCEEDED, 2)


async def test_a_child_that_would_be_refused_fails_its_parent() -> None:
    async with Rig(stranger_parent) as rig:
        ended = await rig.submit(task(stranger_parent))
        assert (ended.state, ended.attempt) == (State.FAILED, 1)
        assert ended.error is not None
        assert "no handler is named 'stranger'" in ended.error.message


async def test_what_a_body_submits_after_its_end_is_refused_not_lost() -> None:
    late: list[Context] = []

    @handler
    async def leaks(ctx: Context) -> None:
        late.append(ctx)

    async with Rig(leaks, child_handler) as rig:
        await rig.submit(task(leaks))
        with pytest.raises(Exception, match="has ended; what it submits now would be lost"):
            late[0].submit(task(child_handler, n=1))


# -- stopped ----------------------------------------------------------------------------------------


@handler("gated", timeout_s=10, max_attempts=2, backoff=BACKOFF)
async def gated(ctx: Context, on_cancel: str = "end") -> str:
    while True:
        try:
            await ctx.use(Gates).pass_through(ctx.attempt)
            return f"passed in attempt {ctx.attempt}"  # noqa: TRY300 - the loop is what is left when it is stopped
        except asyncio.CancelledError:
            match on_cancel:
                case "end":
                    raise
                case "raise":
                    raise ValueError("on the way out") from None
                case "return":
                    return "ended in time after all"
                case "notice":
                    ctx.raise_if_cancelled()


@pytest.mark.parametrize("on_cancel", ["end", "raise", "notice"])
async def test_a_timeout_is_a_failure_and_tried_again(on_cancel: str) -> None:
    async with Rig(gated) as rig:
        late = await rig.submit(task(gated, on_cancel=on_cancel))
        await rig.advance(9.9)
        assert late.state is State.RUNNING
        await rig.advance(0.1)
        assert (late.state, late.failures) == (State.SCHEDULED, 1)
        assert late.attempts[0].kind is AttemptKind.TIMED_OUT
        assert late.error is not None
        assert (late.error.type, late.error.message) == ("TimedOut", "did not end within timeout_s=10")
        await rig.advance(11)
        assert (late.state, late.failures) == (State.FAILED, 2)


async def test_a_body_that_ends_well_although_it_is_stopped_has_ended_well() -> None:
    async with Rig(gated) as rig:
        ended = await rig.submit(task(gated, on_cancel="return"))
        await rig.advance(10)
        assert ended.result == "ended in time after all"


async def test_the_next_body_of_a_worker_knows_nothing_of_how_the_last_was_stopped() -> None:
    async with Rig(gated, raises, concurrency=1) as rig:
        await rig.submit(task(gated, on_cancel="return"))
        after = await rig.submit(task(raises, what="cancelled"))
        await rig.advance(10)
        assert (after.state, after.failures) == (State.SCHEDULED, 1)
        last = await rig.submit(task(raises, what="group"))
        assert (last.state, last.error and last.error.type) == (State.FAILED, "Fail")


async def test_a_body_that_swallows_its_cancellation_is_abandoned_and_its_slot_is_free() -> None:
    async with Rig(gated, child_handler, concurrency=1) as rig:
        deaf = await rig.submit(task(gated, on_cancel="stay"))
        waiting = await rig.submit(task(child_handler, n=1))
        await rig.advance(15.8)
        assert (deaf.state, waiting.state) == (State.RUNNING, State.READY)
        await rig.advance(0.3)
        assert (deaf.state, deaf.attempts[0].kind) == (State.SCHEDULED, AttemptKind.TIMED_OUT)
        assert waiting.result == 1
        assert rig.counted("abandoned_bodies_total", "gated") == 1
        rig.gates.open()  # whatever it returns later is ignored
        await rig.advance(1)
        assert deaf.result == "passed in attempt 2"
        assert rig.world.capacity.taken == 0


async def test_a_node_that_ends_gives_up_a_body_that_swallows_its_cancellation() -> None:
    async with Rig(gated, concurrency=2) as rig:
        deaf = await rig.submit(task(gated, on_cancel="stay"))
    rig.gates.open()  # else nothing ends it
    assert rig.counted("abandoned_bodies_total", "gated") == 1
    view = await rig.store.get(deaf.id)
    assert view is not None
    assert (view.state, view.attempt, view.failures) == (State.READY, 1, 0)  # handed back all the same


async def test_cancel_of_what_waits_runs_and_is_queued() -> None:
    async with Rig(gated, concurrency=1) as rig:
        running = await rig.submit(task(gated))
        waiting = await rig.submit(task(gated))
        scheduled = await rig.submit(task(gated).options(delay_s=3))
        for each in (scheduled, waiting, running):
            await rig.cancel(each)
            assert each.state is State.CANCELLED
            assert each.error is None
        assert [each.attempt for each in (running, waiting, scheduled)] == [1, 0, 0]
        assert rig.world.capacity.taken == 0


@pytest.mark.parametrize("on_cancel", ["raise", "notice"])
async def test_cancel_wins_over_what_the_body_raises_on_its_way_out(on_cancel: str) -> None:
    async with Rig(gated) as rig:
        running = await rig.submit(task(gated, on_cancel=on_cancel))
        await rig.cancel(running)
        assert (running.state, running.failures) == (State.CANCELLED, 0)


async def test_cancel_of_a_task_that_has_ended_changes_nothing() -> None:
    async with Rig(child_handler) as rig:
        done = await rig.submit(task(child_handler, n=1))
        await rig.cancel(done)
        assert done.result == 1


async def test_what_expires_while_it_waits_is_cancelled_and_never_runs() -> None:
    async with Rig(gated, concurrency=1) as rig:
        await rig.submit(task(gated).options(timeout_s=500))
        expiring = await rig.submit(task(gated).options(expires_at=rig.at(5)))
        await rig.advance(6)
        assert (expiring.view.state.name, expiring.attempt) == (Status.CANCELLED.name, 0)
        assert expiring.error is not None
        assert expiring.error.type == "Expired"
        assert rig.gates.started == [1]


async def test_what_has_expired_when_it_is_claimed_does_not_run_either() -> None:
    async with Rig(gated, concurrency=1) as rig:
        rig.fault("expire", Unavailable("the janitor is not to help"))
        await rig.submit(task(gated))
        expiring = await rig.submit(task(gated).options(expires_at=rig.at(5)))
        await rig.advance(9)
        rig.gates.open()
        await rig.advance(0)
        assert expiring.error is not None
        assert (expiring.state, expiring.error.type) == (State.CANCELLED, "Expired")


async def test_progress_is_written_once_a_second_and_the_newest_wins() -> None:
    @handler
    async def reports(ctx: Context) -> None:
        ctx.progress(1, 3)
        ctx.progress(2, 3, "nearly")
        await ctx.use(Gates).pass_through(0)

    async with Rig(reports) as rig:
        running = await rig.submit(task(reports))
        await rig.advance(1)
        assert running.progress is not None
        assert (running.progress.done, running.progress.message) == (2, "nearly")


FOREIGN = b'{"argument": "of another version"}'


async def test_what_does_not_bind_here_is_left_to_other_versions_after_one_try() -> None:
    async with Rig(picky) as rig:
        [band] = await rig.world.bands.intern([BandKey("picky", Lane.MEDIUM)])
        foreign = new_task(band, payload=FOREIGN)
        await rig.store.accept([[foreign]])
        await rig.advance(60)
        view = await rig.store.get(foreign.id)
        assert view is not None
        assert (view.state, view.reason, view.failures) == (State.READY, Reason.RELEASED, 0)
        assert (view.attempt, view.unbound, view.requires) == (1, True, ())
        [released] = await rig.store.attempts(foreign.id)
        assert released.error is not None
        assert "argument" in released.error.message


async def test_a_keyed_task_that_does_not_bind_here_stays_in_its_queue_later_and_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reminders: list[object] = []
    monkeypatch.setattr(Executor, "_on_due_later", lambda _self, items: reminders.append(items))
    async with Rig(picky) as rig:
        [band] = await rig.world.bands.intern([BandKey("picky", Lane.MEDIUM, keyed=True)])
        foreign = new_task(band, payload=FOREIGN, actor_key="k", actor_type="picky")
        await rig.store.accept([[foreign]])
        for attempt in range(1, 5):
            await rig.settle()
            view = await rig.store.get(foreign.id)
            assert view is not None
            assert (view.state, view.reason, view.failures) == (State.SCHEDULED, Reason.RELEASED, 0)
            assert (view.attempt, view.due) == (attempt, rig.at(attempt + 1))  # the longest jitter
            await rig.advance(attempt + 1)
        assert not reminders, "who reminds itself is first each time"
