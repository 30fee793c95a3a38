"""Context: what a handler may ask for and say, from the loop or from its thread."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import pytest

from actors import Cancelled, Context, InvalidInput, ResourceNotFound, Retry, Task
from actors.authoring.exceptions import Fail, Snoozed, signal_in
from actors.authoring.limits import CHILDREN_MAX
from runtime.core.task import Progress
from runtime.errors import NoriaError

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def make(**others: Any) -> Context:
    return Context(task_id=uuid4(), attempt=3, handler="scrape", **others)


def test_what_it_knows() -> None:
    ctx = make(failures=1, idempotency_key="k", actor_key="a", metadata={"by": "me"}, trace_context=TRACE)
    assert (ctx.attempt, ctx.failures, ctx.fence) == (3, 1, 3)
    assert (ctx.idempotency_key, ctx.actor_key, ctx.metadata) == ("k", "a", {"by": "me"})
    assert ctx.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert make(fence=17).fence == 17
    assert make().metadata == {}
    assert make().trace_id == make(trace_context="nonsense").trace_id == ""


def test_children_are_collected_until_the_attempt_ends() -> None:
    ctx = make()
    first, second = Task(handler="a"), Task(handler="b")
    ctx.submit(first, second)
    ctx.submit()
    assert list(ctx.children) == [first, second]
    assert ctx.close() == (first, second)
    with pytest.raises(NoriaError, match="attempt 3 of scrape has ended; what it submits now would be lost"):
        ctx.submit(first)
    assert list(ctx.children) == [first, second]


def test_children_are_bounded() -> None:
    ctx = make()
    ctx.submit(*[Task(handler="a")] * CHILDREN_MAX)
    with pytest.raises(InvalidInput, match="more than 10000 tasks"):
        ctx.submit(Task(handler="a"))
    assert len(ctx.children) == CHILDREN_MAX


def test_only_tasks_are_children() -> None:
    with pytest.raises(TypeError, match=r"submit takes tasks, such as task\(fn, …\), not 'scrape'"):
        make().submit("scrape")  # type: ignore[arg-type]  # the point


def test_progress_is_told_as_it_comes() -> None:
    told: list[Progress] = []
    ctx = make(on_progress=lambda task_id, attempt, progress: told.append(progress))
    ctx.progress(1)
    ctx.progress(2.5, 10, "x" * 600)
    assert told == [Progress(done=1), Progress(done=2.5, total=10, message="x" * 500)]
    for wrong in (float("nan"), "half", None):
        with pytest.raises(ValueError, match="progress done="):
            ctx.progress(wrong)  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="progress total=inf"):
        ctx.progress(1, float("inf"))
    ctx.close()
    ctx.progress(3)
    assert len(told) == 2


def test_a_thread_hears_of_its_cancellation() -> None:
    ctx = make()
    seen: list[str] = []
    started, asked = threading.Event(), threading.Event()

    def body() -> None:
        try:
            ctx.raise_if_cancelled()
            seen.append(f"cancelled={ctx.cancelled}")
            started.set()
            assert asked.wait(10)
            seen.append(f"cancelled={ctx.cancelled}")
            ctx.raise_if_cancelled()
        except Exception:  # noqa: BLE001 - what careless handlers do; it must not swallow the cancellation
            seen.append("swallowed")
        except BaseException as stop:  # noqa: BLE001 - to look at it
            seen.append(f"{type(stop).__name__}: {stop}")

    thread = threading.Thread(target=body)
    thread.start()
    assert started.wait(10)
    ctx.request_cancel("timeout")
    ctx.request_cancel("cancel")  # the first reason stays
    asked.set()
    thread.join(10)
    assert seen == ["cancelled=False", "cancelled=True", "Cancelled: timeout"]
    assert not issubclass(Cancelled, Exception)


def test_snooze_ends_the_attempt() -> None:
    with pytest.raises(Snoozed) as snoozed:
        make().snooze(60)
    assert snoozed.value.after_s == 60.0
    assert not isinstance(snoozed.value, Exception)
    for wrong in (-1, float("nan"), float("inf"), "60", None, True):
        with pytest.raises(ValueError, match="after_s="):
            make().snooze(wrong)  # type: ignore[arg-type]  # the point


def test_retry_says_when() -> None:
    assert Retry("busy", after_s=60).after_s == 60.0
    assert Retry("busy").after_s is None
    assert str(Retry("busy")) == "busy"
    with pytest.raises(ValueError, match="after_s=-1"):
        Retry("busy", after_s=-1)


def test_the_authors_verdict_is_found_in_groups() -> None:
    fail, retry, snooze = Fail("gone"), Retry("busy"), Snoozed(1)
    assert signal_in(fail) is fail
    assert signal_in(ValueError()) is None
    assert signal_in(ExceptionGroup("", [ValueError(), ExceptionGroup("", [retry])])) is retry
    assert signal_in(BaseExceptionGroup("", [snooze, retry])) is retry
    assert signal_in(BaseExceptionGroup("", [snooze, retry, ExceptionGroup("", [fail])])) is fail


def test_for_test_brings_its_own_resources() -> None:
    class Session: ...

    class FakeSession(Session): ...

    fake = FakeSession()
    ctx = Context.for_test(fake, handler="scrape", attempt=2, idempotency_key="k")
    assert ctx.use(Session) is fake
    assert (ctx.handler, ctx.attempt, ctx.idempotency_key) == ("scrape", 2, "k")
    with pytest.raises(ResourceNotFound, match="no resource is a int; there are FakeSession"):
        ctx.use(int)
    with pytest.raises(ResourceNotFound, match="there are none"):
        Context.for_test().use(Session)
