"""The connection breaks just before a commit, or just after it, so that nobody knows what happened.

Whatever the store does then, it is done once. Claims alone are not repeated: their caller finds them in `held`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.core.task import (
    AttemptKind,
    BandKey,
    Duplicate,
    Finish,
    KeyReused,
    Lane,
    Reason,
    Requeue,
    Settlement,
    State,
    Status,
    Stored,
    Take,
    TaskFilter,
    Verdict,
)
from runtime.errors import Unavailable
from tests.support.factories import new_task
from tests.support.pg_proxy import Cut, CutSession, PgProxy, pg_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.task import Band, Claim, NewTask

LEASE_S = 3600.0


class Scene:
    def __init__(
        self, store: PostgresStore, proxy: PgProxy, plan: dict[str, Cut], band: Band, me: int
    ) -> None:
        self.store = store
        self.proxy = proxy
        self.plan = plan
        self.band = band
        self.me = me

    async def cut(self, statement: str, when: Cut) -> None:
        """From now on, at the next such statement."""
        self.plan[statement] = when

    def was_cut(self) -> bool:
        return self.proxy.cuts == 1 and not self.plan

    async def tasks(self) -> int:
        return len((await self.store.list(TaskFilter(), 500)).tasks)

    async def running(self, **fields: Any) -> Claim:
        task = new_task(self.band, **fields)
        await self.store.accept([[task]])
        [claim] = await self.store.claim([(task.id, 1)], self.me)
        return claim

    async def settle(self, claim: Claim, move: Finish | Requeue) -> Verdict:
        [verdict] = await self.store.settle([Settlement(claim.id, claim.attempt, self.me, move)])
        return verdict


@pytest.fixture
async def scene(pg_dsn: str) -> AsyncIterator[Scene]:
    async with pg_proxy(pg_dsn) as proxy:
        session = CutSession.at(proxy)
        async with PostgresStore.open(proxy.dsn, answer_s=20, session=session) as store:
            [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
            made = Scene(store, proxy, session.plan, band, await store.join("me", LEASE_S, {}))
            await warm_up(made)
            yield made


async def warm_up(scene: Scene) -> None:
    """Both connections of a line have prepared its statements, so that the next thing they say is to run one: whatever
    is done here is done twice in a row, and connections take turns."""
    store, band, me = scene.store, scene.band, scene.me
    for n in "ab":
        await store.accept([[new_task(band, key=f"w{n}"), new_task(band)]])
    for _ in "ab":
        await store.accept([[new_task(band)]])
    pulled = [claim for _ in "ab" for claim in await store.pull([Take(band.id, 3)], me)]
    tasks = [new_task(band) for _ in "ab"]
    await store.accept([[task] for task in tasks])
    claims = [claim for task in tasks for claim in await store.claim([(task.id, 1)], me)]
    for claim in pulled[:2]:
        child = new_task(band, key=f"child of {claim.id}")
        await scene.settle(claim, Finish(status=Status.SUCCEEDED, children=(child,)))
    for claim in pulled[2:]:
        await scene.settle(claim, Finish(status=Status.SUCCEEDED))
    for _ in "ab":
        await scene.settle(claims[0], Finish(status=Status.FAILED))
    for _ in range(4):  # there are four connections to read
        await store.cancel(claims[1].id)
        await store.cancel_matching(TaskFilter(), 500)
        await store.purge_matching(TaskFilter(states=(State.CANCELLED,)), 500)


RETRY = Requeue(kind=AttemptKind.FAILED, delay_s=0, reason=Reason.RETRY_BACKOFF, failures=1, crashes=0)
when_cut = pytest.mark.parametrize("when", ["before", "after"])


@when_cut
async def test_a_task_whose_commit_is_in_doubt_is_stored_once(scene: Scene, when: Cut) -> None:
    before = await scene.tasks()
    task = new_task(scene.band, key="k")
    await scene.cut("accept", when)
    [[answer]] = await scene.store.accept([[task]])
    assert scene.was_cut()
    assert isinstance(answer, Stored)
    assert answer.id == task.id
    assert await scene.tasks() == before + 1
    assert await scene.store.accept([[new_task(scene.band, key="k")]]) == [[Duplicate(task.id)]]


@when_cut
async def test_groups_whose_commit_is_in_doubt_are_stored_once_and_whole(scene: Scene, when: Cut) -> None:
    holder = new_task(scene.band, key="held")
    await scene.store.accept([[holder]])
    before = await scene.tasks()
    groups = [[new_task(scene.band, key=f"{g}.{n}") for n in range(3)] for g in range(3)]
    falls = [new_task(scene.band), new_task(scene.band, key="held", request="b")]
    await scene.cut("commit", when)
    answers = await scene.store.accept([*groups, falls])
    assert scene.was_cut()
    assert [[type(one) for one in group] for group in answers[:3]] == [[Stored] * 3] * 3
    assert isinstance(answers[3][1], KeyReused)
    seqs = [one.seq for group in answers[:3] for one in group if isinstance(one, Stored)]
    assert seqs == sorted(set(seqs))
    assert await scene.tasks() == before + 9


@when_cut
@pytest.mark.parametrize(
    ("move", "state"),
    [(Finish(status=Status.SUCCEEDED, result=b"1"), State.SUCCEEDED), (RETRY, State.READY)],
    ids=["finish", "requeue"],
)
async def test_an_end_whose_commit_is_in_doubt_is_committed_once(
    scene: Scene, when: Cut, move: Finish | Requeue, state: State
) -> None:
    claim = await scene.running()
    await scene.cut("settle", when)
    assert await scene.settle(claim, move) is Verdict.COMMITTED
    assert scene.was_cut()
    view = await scene.store.get(claim.id)
    assert view is not None
    assert (view.state, view.attempt, view.failures) == (state, 1, int(state is State.READY))
    assert len(await scene.store.attempts(claim.id)) == int(state is State.READY)


@when_cut
async def test_children_come_with_an_end_whose_commit_is_in_doubt(scene: Scene, when: Cut) -> None:
    claim = await scene.running()
    before = await scene.tasks()
    children = tuple(new_task(scene.band, key=key) for key in ("a", None, "b"))
    await scene.cut("commit", when)
    assert await scene.settle(claim, Finish(status=Status.SUCCEEDED, children=children)) is Verdict.COMMITTED
    assert scene.was_cut()
    assert await scene.tasks() == before + 3
    assert {view.state for view in await scene.store.get_many([child.id for child in children])} == {
        State.READY
    }


@when_cut
@pytest.mark.parametrize("how", ["claim", "pull"])
async def test_a_claim_in_doubt_is_left_to_its_caller(scene: Scene, when: Cut, how: str) -> None:
    task = new_task(scene.band)
    await scene.store.accept([[task]])

    async def take() -> list[Claim]:
        if how == "claim":
            return await scene.store.claim([(task.id, 1)], scene.me)
        return await scene.store.pull([Take(scene.band.id, 1)], scene.me)

    held = {orphan.id for orphan in await scene.store.held(scene.me)}
    await scene.cut(how, when)
    with pytest.raises(Unavailable):
        await take()
    assert scene.was_cut()
    lost = [orphan for orphan in await scene.store.held(scene.me) if orphan.id not in held]
    assert [(one.id, one.attempt, one.incarnation) for one in lost] == (
        [(task.id, 1, scene.me)] if when == "after" else []
    )
    assert len(await take()) == (0 if when == "after" else 1)


Change = Callable[[PostgresStore, "NewTask"], Awaitable[object]]


@when_cut
async def test_a_cancel_in_doubt_cancels(scene: Scene, when: Cut) -> None:
    task = new_task(scene.band)
    await scene.store.accept([[task]])
    await scene.cut("cancel_waiting", when)
    assert (await scene.store.cancel(task.id)).state is State.CANCELLED
    assert scene.was_cut()


@when_cut
async def test_names_in_doubt_are_made_once(scene: Scene, when: Cut) -> None:
    await scene.cut("commit", when)
    keys = [BandKey(f"h{n}", Lane.LOW) for n in range(3)]
    first = await scene.store.intern(keys)
    assert scene.was_cut()
    assert await scene.store.intern(keys) == first
    assert len({band.id for band in await scene.store.bands()}) == 4


async def test_reads_go_on_over_another_connection(scene: Scene) -> None:
    claim = await scene.running()
    for statement in ("views", "scan_tasks"):
        await scene.cut(statement, "after")
        view = await scene.store.get(claim.id)
        assert view is not None
        assert view.state is State.RUNNING
    assert scene.proxy.cuts == 1
