"""Children that are stored, parents that end, ends that are passed on, and what else moves a parent: one of two held
between each two of its statements while the other runs. Whatever the order, each end reaches each child once: no child
waits for ever, none is freed before both its parents have ended, and no parent is forgotten that a child still wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.core.task import (
    AttemptKind,
    BandKey,
    Finish,
    Lane,
    NewTask,
    OnParentFailure,
    Reason,
    Refused,
    Requeue,
    Settlement,
    State,
    Status,
    Stored,
)
from runtime.errors import TaskNotFound, WrongState
from tests.support.factories import new_task
from tests.support.stepped_session import SteppedSession, Steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.task import Band

pytestmark = pytest.mark.timeout(240)

LEASE_S: Final = 3600.0
STEPS_MAX: Final = 30


@dataclass
class Stage:
    left: PostgresStore
    right: PostgresStore
    plain: PostgresStore
    left_steps: Steps
    right_steps: Steps
    admin: asyncpg.Connection[Any]
    owner: int


@dataclass
class Subject:
    """Two parents, and children of both that were stored."""

    band: Band
    parents: list[NewTask]
    children: list[NewTask] = field(default_factory=list)
    refused: int = 0
    forgotten: int = 0


Operation = Callable[[PostgresStore, Stage, Subject], Coroutine[Any, Any, None]]


async def add_child(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    child = new_task(
        subject.band,
        parents=tuple(parent.id for parent in subject.parents),
        on_parent_failure=OnParentFailure.RUN_ANYWAY,
    )
    [[answer]] = await store.accept([[child]])
    if isinstance(answer, Stored):
        subject.children.append(child)
    else:
        assert isinstance(answer, Refused)
        subject.refused += 1


async def claim(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    views = await stage.plain.get_many([parent.id for parent in subject.parents])
    await store.claim([(view.id, view.attempt + 1) for view in views], stage.owner)


async def _settle(store: PostgresStore, stage: Stage, subject: Subject, move: Finish | Requeue) -> None:
    running = [
        view
        for view in await stage.plain.get_many([parent.id for parent in subject.parents])
        if view.state is State.RUNNING
    ]
    await store.settle([Settlement(view.id, view.attempt, stage.owner, move) for view in running])


async def finish(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    await _settle(store, stage, subject, Finish(status=Status.SUCCEEDED, result=b"1"))


async def retry(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    move = Requeue(kind=AttemptKind.FAILED, delay_s=0, reason=Reason.RETRY_BACKOFF, failures=1, crashes=0)
    await _settle(store, stage, subject, move)


async def cancel(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    with suppress(TaskNotFound):
        await store.cancel(subject.parents[0].id)


async def replay(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    with suppress(WrongState, TaskNotFound):
        await store.replay(subject.parents[0].id)


async def pass_on(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    while (await store.pass_on(100)).more:
        pass


async def forget(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    subject.forgotten += await store.forget(finished_before_s=0, keys_before_s=0, limit=100)


OPERATIONS: Final[tuple[Operation, ...]] = (add_child, claim, finish, retry, cancel, replay, pass_on, forget)
PAIRS: Final[tuple[tuple[Operation, Operation], ...]] = (
    *((add_child, other) for other in OPERATIONS),
    *((pass_on, other) for other in (add_child, finish, cancel, replay, pass_on)),
    (finish, add_child),
    (forget, add_child),
    (forget, pass_on),
)

# -- how the parents may be before -------------------------------------------------------------------


async def waiting(stage: Stage, subject: Subject) -> None:
    await stage.plain.accept([subject.parents])


async def running(stage: Stage, subject: Subject) -> None:
    await waiting(stage, subject)
    await claim(stage.plain, stage, subject)


async def running_with_a_child(stage: Stage, subject: Subject) -> None:
    await running(stage, subject)
    await add_child(stage.plain, stage, subject)


async def ended(stage: Stage, subject: Subject) -> None:
    """One of them failed."""
    await running(stage, subject)
    [one, _] = subject.parents
    move = Finish(status=Status.FAILED, failures=1)
    await stage.plain.settle([Settlement(one.id, 1, stage.owner, move)])
    await finish(stage.plain, stage, subject)


BEFORE: Final = (waiting, running, running_with_a_child, ended)


@pytest.fixture
async def stage(pg_dsn: str) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        stores, steps = [], []
        for _ in range(2):
            counted = Steps()
            opened = PostgresStore.open(pg_dsn, answer_s=20, session=SteppedSession.of(counted))
            stores.append(await stack.enter_async_context(opened))
            steps.append(counted)
        plain = await stack.enter_async_context(PostgresStore.open(pg_dsn, answer_s=20))
        admin = await asyncpg.connect(pg_dsn)
        stack.push_async_callback(admin.close)
        yield Stage(*stores, plain, *steps, admin, await plain.join("owner", LEASE_S, {}))


async def held_at(stage: Stage, subject: Subject, first: Operation, second: Operation, step: int) -> bool:
    """Hold `first` before its step, run `second` as far as it gets, let both end. False: it has no such step."""
    left, right = stage.left_steps, stage.right_steps
    for steps in (left, right):
        steps.done.clear()
        steps.stopped.clear()
        steps.go_on.clear()
    left.stop_at = step
    async with asyncio.TaskGroup() as both:
        one = both.create_task(first(stage.left, stage, subject))
        stopped = both.create_task(left.stopped.wait())
        await asyncio.wait({one, stopped}, return_when=asyncio.FIRST_COMPLETED)
        reached = left.stopped.is_set()
        other = both.create_task(second(stage.right, stage, subject))
        await blocked_or_done(stage, other)
        left.stop_at = None
        left.stopped.set()
        left.go_on.set()
    return reached


async def blocked_or_done(stage: Stage, task: asyncio.Task[None]) -> None:
    """Until the operation has ended, or its backend waits for a lock."""
    while not task.done():
        count = await stage.admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = ANY ($1)",
            list(stage.right_steps.pids),
        )
        if count:
            return
        await asyncio.sleep(0)


async def go_on_to_the_end(stage: Stage, subject: Subject) -> None:
    """Whatever parents have not ended do; before, no child may be free."""
    ids = [parent.id for parent in subject.parents]
    open_before = [view for view in await stage.plain.get_many(ids) if not view.state.final]
    children = await stage.plain.get_many([child.id for child in subject.children])
    if open_before and not any(view.attempt > 1 or view.state is State.READY for view in open_before):
        assert all(view.state is State.BLOCKED for view in children)
    await claim(stage.plain, stage, subject)
    await finish(stage.plain, stage, subject)
    await pass_on(stage.plain, stage, subject)


async def check(stage: Stage, subject: Subject, where: str) -> None:
    await go_on_to_the_end(stage, subject)
    for child in subject.children:
        view = await stage.plain.get(child.id)
        assert view is not None
        assert view.state is State.READY, (
            f"{where}: a child is {view.state}, {view.open_parents} parents open"
        )
        parents = await stage.plain.parents(view.parents, 1_000)
        assert all(parent.state is not None for parent in parents), f"{where}: a parent was forgotten"
    left = await stage.admin.fetchval("SELECT count(*) FROM noria.parent_end")
    assert left == 0, f"{where}: {left} ends are not passed on"
    assert not (subject.refused and not subject.forgotten), f"{where}: refused, and nothing was forgotten"


async def test_an_end_that_a_node_without_dependences_did_not_tell_is_told_later(stage: Stage) -> None:
    [band] = await stage.plain.intern([BandKey("race", Lane.MEDIUM)])
    subject = Subject(band, [new_task(band), new_task(band)])
    await running_with_a_child(stage, subject)
    await stage.admin.execute("UPDATE noria.running SET awaited = NULL")
    await finish(stage.plain, stage, subject)
    await stage.plain.tidy_dependences()  # not at once: it may be on its way
    await pass_on(stage.plain, stage, subject)
    [child] = subject.children
    view = await stage.plain.get(child.id)
    assert view is not None
    assert (view.state, view.open_parents) == (State.BLOCKED, 2)
    await stage.admin.execute("UPDATE noria.outcome SET finished_at = finished_at - interval '1 minute'")
    await stage.plain.tidy_dependences()
    await check(stage, subject, "later")


@pytest.mark.parametrize("before", BEFORE, ids=lambda state: state.__name__)
async def test_every_end_reaches_every_child_once(
    stage: Stage, before: Callable[[Stage, Subject], Coroutine[Any, Any, None]]
) -> None:
    [band] = await stage.plain.intern([BandKey("race", Lane.MEDIUM)])
    ran = 0
    for first, second in PAIRS:
        for step in range(STEPS_MAX):
            await stage.admin.execute(
                "DELETE FROM noria.waiting; DELETE FROM noria.running; DELETE FROM noria.outcome; "
                "DELETE FROM noria.task; DELETE FROM noria.dependence; DELETE FROM noria.parent_end"
            )
            subject = Subject(band, [new_task(band), new_task(band)])
            await before(stage, subject)
            reached = await held_at(stage, subject, first, second, step)
            await check(
                stage, subject, f"{before.__name__}: {first.__name__} held at {step}, {second.__name__}"
            )
            ran += 1
            if not reached:
                break
        else:
            pytest.fail(f"{first.__name__} never ends")
    assert ran > len(PAIRS) * 2
