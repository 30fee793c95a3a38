"""Unique tasks posted by many nodes at once, while others claim and end them."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.core.task import (
    BandKey,
    Duplicate,
    Finish,
    Lane,
    NewTask,
    NotUnique,
    Settlement,
    Status,
    Stored,
    StoredInstead,
    Take,
)
from runtime.core.unique import Sole, Unique
from tests.integration.postgres.test_pg_many import CountingSession
from tests.support.factories import new_task
from tests.support.stepped_session import SteppedSession, Steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.task import Acceptance, Band

LEASE_S = 3600.0
POSTS = 100


class Scene:
    """Three nodes, and what is on record."""

    def __init__(
        self, nodes: list[PostgresStore], admin: asyncpg.Connection[Any], band: Band, me: int
    ) -> None:
        self.nodes = nodes
        self.admin = admin
        self.band = band
        self.me = me

    def task(self, rule: Unique, number: int = 1) -> NewTask:
        return new_task(self.band, unique=Sole(UUID(int=number), rule))

    async def post(self, rule: Unique) -> list[Acceptance]:
        tasks = [self.task(rule) for _ in range(POSTS)]
        answers = await asyncio.gather(*(self.nodes[n % 3].accept([[task]]) for n, task in enumerate(tasks)))
        return [answer for [[answer]] in answers]

    async def count(self, what: str) -> int:
        count: int = await self.admin.fetchval(f"SELECT count(*) FROM noria.{what}")
        return count


@pytest.fixture
async def scene(pg_dsn: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        session = CountingSession.fresh()
        opened = (PostgresStore.open(pg_dsn, answer_s=30, session=session) for _ in range(3))
        nodes = [await stack.enter_async_context(one) for one in opened]
        admin = await asyncpg.connect(pg_dsn)
        stack.push_async_callback(admin.close)
        [band] = await nodes[0].intern([BandKey("echo", Lane.MEDIUM)])
        yield Scene(nodes, admin, band, await nodes[0].join("me", LEASE_S, {}))
        assert session.deadlocks == []


@pytest.mark.parametrize(
    "rule",
    [Unique(mode="reject"), Unique(mode="existing", until="started"), Unique(mode="throttle", for_s=60)],
    ids=lambda rule: rule.mode,
)
async def test_of_a_hundred_posts_one_is_stored(scene: Scene, rule: Unique) -> None:
    answers = await scene.post(rule)
    [stored] = [answer for answer in answers if isinstance(answer, Stored)]
    expected = NotUnique(stored.id) if rule.mode == "reject" else Duplicate(stored.id)
    assert [answer for answer in answers if answer is not stored] == [expected] * (POSTS - 1)
    assert (await scene.count("task"), await scene.count("unique_task")) == (1, 1)


@pytest.mark.parametrize(
    "rule", [Unique(mode="replace"), Unique(mode="debounce", for_s=60)], ids=lambda r: r.mode
)
async def test_of_a_hundred_posts_the_last_one_waits(scene: Scene, rule: Unique) -> None:
    answers = await scene.post(rule)
    instead = [answer for answer in answers if isinstance(answer, StoredInstead)]
    assert len(instead) == POSTS - 1
    [first] = [answer for answer in answers if type(answer) is Stored]
    assert len({one.replaced for one in instead}) == POSTS - 1, "each took the place of another one"
    [waits] = await scene.admin.fetch("SELECT id FROM noria.waiting")
    assert {one.replaced for one in instead} == {first.id, *(one.id for one in instead)} - {waits["id"]}
    assert await scene.count("outcome WHERE status = 2 AND attempt = 0") == POSTS - 1


async def test_batches_of_the_same_ids_in_opposite_orders(scene: Scene) -> None:
    rules = [Unique(mode="existing"), Unique(mode="replace"), Unique(mode="reject")]
    for n in range(10):
        numbers = list(range(1 + 20 * n, 21 + 20 * n))
        orders = [numbers, numbers[::-1], random.Random(n).sample(numbers, 20)]
        await asyncio.gather(
            *(
                node.accept([[scene.task(rule, number)] for number in order])
                for node, order, rule in zip(scene.nodes, orders, rules, strict=True)
            )
        )
    assert await scene.count("waiting") == 200
    assert await scene.count("unique_task") == 200


@pytest.mark.parametrize("mode", ["existing", "replace"])
async def test_accepting_while_others_claim_and_end(scene: Scene, mode: Any) -> None:
    """No task is both replaced and run, and with `existing` each is made after the one before it ended."""
    posting = True

    async def work(node: PostgresStore) -> int:
        ended, idle = 0, False
        while posting or not idle:
            idle = True
            for claim in await node.pull([Take(scene.band.id, 10)], scene.me):
                end = Settlement(claim.id, claim.attempt, scene.me, Finish(status=Status.SUCCEEDED))
                await node.settle([end])
                ended, idle = ended + 1, False
        return ended

    async def post(node: PostgresStore) -> list[Acceptance]:
        return [(await node.accept([[scene.task(Unique(mode=mode))]]))[0][0] for _ in range(80)]

    workers = [asyncio.create_task(work(node)) for node in scene.nodes[:2]]
    answers = [one for some in await asyncio.gather(*map(post, scene.nodes)) for one in some]
    posting = False
    ended = sum(await asyncio.gather(*workers))
    stored = [one for one in answers if isinstance(one, Stored)]
    replaced = [one for one in answers if isinstance(one, StoredInstead)]
    assert ended == len(stored) - len(replaced)
    assert await scene.count("outcome WHERE status = 0") == ended
    assert await scene.count("outcome WHERE status = 2 AND attempt = 0") == len(replaced)
    if mode == "existing":
        assert await scene.count("outcome") == len(stored)
        overlaps = await scene.admin.fetchval(
            "SELECT count(*) FROM (SELECT t.created_at, lag(o.finished_at) OVER (ORDER BY t.seq) AS before"
            " FROM noria.task t JOIN noria.outcome o USING (id)) x WHERE created_at < before"
        )
        assert overlaps == 0


async def test_a_claim_between_any_two_steps(scene: Scene, pg_dsn: str) -> None:
    """It gets the old task, which then is not replaced; or nothing, or the new one: never one that is cancelled."""
    rule, steps = Unique(mode="replace"), Steps()
    async with PostgresStore.open(pg_dsn, answer_s=30, session=SteppedSession.of(steps)) as stepped:
        await stepped.accept([[scene.task(rule)]])
        for stop_at in range(len(steps.done) + 5):
            old = scene.task(rule)
            await scene.nodes[0].accept([[old]])
            steps.done.clear()
            steps.stopped.clear()
            steps.go_on.clear()
            steps.stop_at = stop_at
            accepting = asyncio.create_task(stepped.accept([[new := scene.task(rule)]]))
            stopped = asyncio.create_task(steps.stopped.wait())
            await asyncio.wait({accepting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            claims = await scene.nodes[1].pull([Take(scene.band.id, 10)], scene.me)
            steps.go_on.set()
            [[answer]] = await accepting
            steps.stop_at = None
            stopped.cancel()
            claims += await scene.nodes[1].pull([Take(scene.band.id, 10)], scene.me)
            claimed = [claim.id for claim in claims]
            if isinstance(answer, StoredInstead):
                assert (answer.replaced, claimed) == (old.id, [new.id])
            else:
                assert claimed == [old.id, new.id]
            ends = [Settlement(c.id, 1, scene.me, Finish(status=Status.SUCCEEDED)) for c in claims]
            await scene.nodes[1].settle(ends)
            if accepting.done() and len(steps.done) <= stop_at:
                break
    assert await scene.count("outcome WHERE status = 2") > 2
    assert await scene.count("outcome WHERE status = 0") > await scene.count("outcome WHERE status = 2")
