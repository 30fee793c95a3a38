"""Every two operations on one task, one of them held between each two of its statements while the other runs.

Whatever they are, the record must end as if one had come after the other, in either order; no attempt is ever claimed
twice; of one attempt one end is committed at most; nothing is lost. The serial orders are run first, on tasks of their
own, and what they lead to is what is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.core.task import (
    AttemptKind,
    BandKey,
    Claim,
    Finish,
    KeyReused,
    Lane,
    NewTask,
    Reason,
    Requeue,
    Settlement,
    Status,
    Stored,
    Take,
    TaskFilter,
    Verdict,
)
from runtime.errors import WrongState
from tests.support.factories import new_task
from tests.support.stepped_session import SteppedSession, Steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.task import Band

pytestmark = pytest.mark.timeout(240)

LEASE_S: Final = 3600.0
ROUNDS: Final = 40


@dataclass
class Stage:
    """Two stores that run one operation each, and one that sets up and looks."""

    left: PostgresStore
    right: PostgresStore
    plain: PostgresStore
    left_steps: Steps
    right_steps: Steps
    admin: asyncpg.Connection[Any]
    owner: int = 0  # whom tasks run under
    other: int = 0
    gone: int = 0  # has left: what it runs is swept


@dataclass
class Subject:
    """A task in a band of its own, and what happened to it."""

    task: NewTask
    band: Band
    attempt: int = 1  # that runs or will run next
    claims: list[Claim] = field(default_factory=list)
    ends: list[tuple[int, object]] = field(default_factory=list)  # attempt and end, of what was committed
    stored: list[Stored] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)  # how the operations were answered, roughly


Operation = Callable[[PostgresStore, Stage, Subject], Coroutine[Any, Any, None]]


# -- operations --------------------------------------------------------------------------------------


async def accept_again(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    """The same batch once more, as after a lost answer."""
    [[answer]] = await store.accept([[subject.task]])
    assert isinstance(answer, Stored)
    subject.stored.append(answer)


async def accept_reused_key(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    group = [new_task(subject.band), new_task(subject.band, key=subject.task.idempotency_key, request="b")]
    [answers] = await store.accept([group])
    assert isinstance(answers[1], KeyReused)


async def claim(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    subject.claims += await store.claim([(subject.task.id, subject.attempt)], stage.owner)


async def claim_elsewhere(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    subject.claims += await store.claim([(subject.task.id, subject.attempt)], stage.other)


async def pull(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    subject.claims += await store.pull([Take(subject.band.id, 5)], stage.other)


async def _settle(
    store: PostgresStore, subject: Subject, incarnation: int, move: Finish | Requeue
) -> Verdict:
    [verdict] = await store.settle([Settlement(subject.task.id, subject.attempt, incarnation, move)])
    if verdict is Verdict.COMMITTED:
        subject.ends.append((subject.attempt, move.status if isinstance(move, Finish) else move.kind))
    return verdict


async def finish(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    await _settle(store, subject, stage.owner, Finish(status=Status.SUCCEEDED, result=b"1"))


async def finish_of_the_gone(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    """A zombie's commit."""
    await _settle(store, subject, stage.gone, Finish(status=Status.SUCCEEDED, result=b"1"))


async def retry(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    await _settle(store, subject, stage.owner, requeue(AttemptKind.FAILED))


async def finish_with_child(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    child = new_task(subject.band, key=f"child of {subject.task.id}")
    await _settle(store, subject, stage.owner, Finish(status=Status.SUCCEEDED, children=(child,)))


async def sweep(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    for orphan in await store.orphans(1_000):
        if orphan.id == subject.task.id:
            move = requeue(AttemptKind.CRASHED)
            [verdict] = await store.settle([Settlement(orphan.id, orphan.attempt, orphan.incarnation, move)])
            if verdict is Verdict.COMMITTED:
                subject.ends.append((orphan.attempt, move.kind))


async def cancel(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    view = await store.cancel(subject.task.id)
    subject.outcomes.append("final" if view.state.final else "asked")


async def cancel_matching(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    await store.cancel_matching(TaskFilter(ids=(subject.task.id,)), 10)


async def replay(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    try:
        await store.replay(subject.task.id)
    except WrongState:
        subject.outcomes.append("not replayed")


async def expire(store: PostgresStore, stage: Stage, subject: Subject) -> None:
    await store.expire(1_000)


def requeue(kind: AttemptKind) -> Requeue:
    crashed = kind is AttemptKind.CRASHED
    return Requeue(
        kind=kind,
        delay_s=0,
        reason=Reason.CRASHED if crashed else Reason.RETRY_BACKOFF,
        failures=int(not crashed),
        crashes=int(crashed),
    )


OPERATIONS: Final[tuple[Operation, ...]] = (
    accept_again, accept_reused_key, claim, claim_elsewhere, pull, finish, finish_of_the_gone, retry,
    finish_with_child, sweep, cancel, cancel_matching, replay, expire,
)  # fmt: skip


# -- how a task may be before ------------------------------------------------------------------------


async def waiting(stage: Stage, subject: Subject) -> None:
    await accept_again(stage.plain, stage, subject)


async def expired(stage: Stage, subject: Subject) -> None:
    """Waits, but must not start any more."""
    await accept_again(stage.plain, stage, subject)
    await stage.admin.execute(
        "UPDATE noria.waiting SET expires_at = now() - interval '1 second' WHERE id = $1", subject.task.id
    )


async def running(stage: Stage, subject: Subject) -> None:
    await accept_again(stage.plain, stage, subject)
    await claim(stage.plain, stage, subject)


async def orphaned(stage: Stage, subject: Subject) -> None:
    await accept_again(stage.plain, stage, subject)
    await stage.admin.execute("UPDATE noria.lease SET state = 1 WHERE incarnation = $1", stage.gone)
    subject.claims += await stage.plain.claim([(subject.task.id, 1)], stage.gone)
    await stage.admin.execute("UPDATE noria.lease SET state = 8 WHERE incarnation = $1", stage.gone)


async def failed(stage: Stage, subject: Subject) -> None:
    await running(stage, subject)
    await _settle(stage.plain, subject, stage.owner, Finish(status=Status.FAILED, failures=1))


async def cancelled(stage: Stage, subject: Subject) -> None:
    await accept_again(stage.plain, stage, subject)
    await stage.plain.cancel(subject.task.id)


BEFORE: Final = (waiting, expired, running, orphaned, failed, cancelled)


# -- the stage ---------------------------------------------------------------------------------------


@pytest.fixture
async def stage(pg_dsn: str) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        stores, steps = [], []
        for _ in range(2):
            counted = Steps()
            stepped = SteppedSession.of(counted)
            stores.append(
                await stack.enter_async_context(PostgresStore.open(pg_dsn, answer_s=20, session=stepped))
            )
            steps.append(counted)
        plain = await stack.enter_async_context(PostgresStore.open(pg_dsn, answer_s=20))
        admin = await asyncpg.connect(pg_dsn)
        stack.push_async_callback(admin.close)
        made = Stage(stores[0], stores[1], plain, steps[0], steps[1], admin)
        made.owner, made.other, made.gone = [
            await plain.join(name, LEASE_S, {}) for name in ("owner", "other", "gone")
        ]
        await plain.set_state(made.gone, "left")
        yield made


async def subject_of(stage: Stage, before: Callable[[Stage, Subject], Awaitable[None]], name: str) -> Subject:
    [band] = await stage.plain.intern([BandKey(name, Lane.MEDIUM)])
    subject = Subject(new_task(band, key=name), band)
    await before(stage, subject)
    return subject


async def outcome(stage: Stage, subject: Subject) -> object:
    """All that the record has of the task, without times and numbers that differ from task to task."""
    view = await stage.plain.get(subject.task.id)
    assert view is not None, "a task was lost"
    tables = await stage.admin.fetchrow(
        "SELECT (SELECT count(*) FROM noria.waiting WHERE id = $1) + (SELECT count(*) FROM noria.running WHERE id = $1) "
        "+ (SELECT count(*) FROM noria.outcome WHERE id = $1) AS places, "
        "(SELECT incarnation FROM noria.running WHERE id = $1) AS incarnation, "
        "(SELECT count(*) FROM noria.task WHERE idempotency_key = $2) AS children",
        subject.task.id, f"child of {subject.task.id}",
    )  # fmt: skip
    assert tables is not None
    assert tables["places"] == 1, "a task is in one table, always"
    attempts = [(attempt.attempt, attempt.kind) for attempt in await stage.plain.attempts(subject.task.id)]
    return (
        view.state, view.attempt, view.failures, view.crashes, view.reason, view.suspect,
        view.cancel_requested_at is not None, view.error, view.result, tables["incarnation"], tables["children"],
        tuple(attempts),
    )  # fmt: skip


def check(subject: Subject) -> None:
    """What must hold in any order."""
    attempts = [(one.id, one.attempt) for one in subject.claims]  # a pull may find its child too
    assert len(attempts) == len(set(attempts)), f"an attempt was claimed twice: {attempts}"
    ended = dict(subject.ends)
    assert all(ended[attempt] == end for attempt, end in subject.ends), f"two ends of one: {subject.ends}"
    assert len({(one.seq, one.created_at) for one in subject.stored}) == 1, "one task was stored twice"


async def serially(stage: Stage, subject: Subject, first: Operation, second: Operation) -> object:
    await first(stage.plain, stage, subject)
    await second(stage.plain, stage, subject)
    check(subject)
    return await outcome(stage, subject)


async def blocked_or_done(stage: Stage, task: asyncio.Task[None]) -> None:
    """Until the operation has ended, or its backend waits for a lock."""
    while not task.done():
        row = await stage.admin.fetchrow(
            "SELECT count(*) AS blocked FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = ANY ($1)",
            list(stage.right_steps.pids),
        )
        assert row is not None
        if row["blocked"]:
            return
        await asyncio.sleep(0)


async def held_at(
    stage: Stage, subject: Subject, first: Operation, second: Operation, step: int
) -> list[str] | None:
    """Hold `first` before its step, run `second` as far as it gets, let both end. None: it has no such step."""
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
    return [*left.done, "|", *right.done] if reached else None


@pytest.mark.parametrize("before", BEFORE, ids=lambda state: state.__name__)
async def test_two_operations_at_once_are_one_after_the_other(
    stage: Stage, before: Callable[[Stage, Subject], Awaitable[None]]
) -> None:
    ran = 0
    serial: dict[tuple[Operation, Operation], object] = {}
    for pair in product(OPERATIONS, OPERATIONS):
        subject = await subject_of(stage, before, f"{before.__name__}.{pair[0].__name__}.{pair[1].__name__}")
        serial[pair] = await serially(stage, subject, *pair)
    for first, second in product(OPERATIONS, OPERATIONS):
        await stage.admin.execute("DELETE FROM noria.waiting; DELETE FROM noria.running")  # of those before
        name = f"{before.__name__}.{first.__name__}.{second.__name__}"
        allowed = [serial[first, second], serial[second, first]]
        for step in range(20):
            subject = await subject_of(stage, before, f"{name}.{step}")
            trace = await held_at(stage, subject, first, second, step)
            check(subject)
            found = await outcome(stage, subject)
            assert found in allowed, f"{name}, held before step {step} of {trace}"
            ran += 1
            if trace is None:
                break
        else:
            pytest.fail(f"{name} never ends")
    assert ran > len(OPERATIONS) ** 2 * 2  # each was held at least once
