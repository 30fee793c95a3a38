"""Many at once: opposite orders neither deadlock nor lose, one key is one task over all connections of all nodes."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.adapters.postgres.connections import Session
from runtime.adapters.postgres.queries import Query
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
from tests.support.factories import digest, new_task
from tests.support.stepped_session import SteppedSession, Steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.task import Acceptance, Band

LEASE_S = 3600.0
ROUNDS = 25
CRASHED = Requeue(kind=AttemptKind.CRASHED, delay_s=0, reason=Reason.CRASHED, failures=0, crashes=1)


class CountingSession(Session):
    """Deadlocks are repeated by the store, so only a session sees them."""

    deadlocks: ClassVar[list[str]]

    @classmethod
    def fresh(cls) -> type[CountingSession]:
        return type("Fresh", (cls,), {"deadlocks": []})

    async def fetch(self, query: Query, *values: Any) -> list[asyncpg.Record]:
        try:
            return await super().fetch(query, *values)
        except asyncpg.DeadlockDetectedError as error:
            self.deadlocks.append(f"{query.name}: {error}")
            raise


class Scene:
    def __init__(
        self, nodes: list[PostgresStore], admin: asyncpg.Connection[Any], band: Band, members: list[int]
    ) -> None:
        self.nodes = nodes
        self.admin = admin
        self.band = band
        self.members = members

    async def count(self, table: str) -> int:
        count: int = await self.admin.fetchval(f"SELECT count(*) FROM noria.{table}")
        return count


@pytest.fixture
async def scene(pg_dsn: str) -> AsyncIterator[Scene]:
    """Three nodes and what they know of each other."""
    async with AsyncExitStack() as stack:
        session = CountingSession.fresh()
        opened = (PostgresStore.open(pg_dsn, answer_s=30, session=session) for _ in range(3))
        nodes = [await stack.enter_async_context(one) for one in opened]
        admin = await asyncpg.connect(pg_dsn)
        stack.push_async_callback(admin.close)
        [band] = await nodes[0].intern([BandKey("echo", Lane.MEDIUM)])
        members = [await node.join(f"n{n}", LEASE_S, {}) for n, node in enumerate(nodes)]
        yield Scene(nodes, admin, band, members)
        assert session.deadlocks == []


async def test_a_hundred_posts_of_one_key_to_three_nodes_are_one_task(scene: Scene) -> None:
    tasks = [new_task(scene.band, key="k", request="a" if n % 10 else "b") for n in range(100)]
    answers = await asyncio.gather(*(scene.nodes[n % 3].accept([[task]]) for n, task in enumerate(tasks)))
    flat = [answer for [[answer]] in answers]
    [stored] = [answer for answer in flat if isinstance(answer, Stored)]
    won = tasks[flat.index(stored)].digest
    for task, answer in zip(tasks, flat, strict=True):
        if answer is not stored:
            assert answer == (
                Duplicate(stored.id) if task.digest == won else KeyReused(stored.id, won or b"")
            )
    assert await scene.count("task") == 1


async def test_batches_of_the_same_keys_in_opposite_orders(scene: Scene) -> None:
    for n in range(ROUNDS):
        keys = [f"{n}.{k}" for k in range(40)]
        orders = [keys, keys[::-1], random.Random(n).sample(keys, 40)]
        answers = await asyncio.gather(
            *(
                node.accept([[new_task(scene.band, key=key) for key in order]])
                for node, order in zip(scene.nodes, orders, strict=True)
            )
        )
        ids = [
            {key: _id(answer) for key, answer in zip(order, group, strict=True)}
            for order, [group] in zip(orders, answers, strict=True)
        ]
        assert ids[0] == ids[1] == ids[2]
        assert (
            len({one for group in answers for [*some] in group for one in some if isinstance(one, Stored)})
            == 40
        )
    assert await scene.count("task") == ROUNDS * 40


async def test_groups_that_fall_in_one_node_leave_the_keys_to_the_others(scene: Scene) -> None:
    """One node's batch holds a group that falls, so it is taken back and repeated while others wait for its keys."""
    await scene.nodes[0].accept([[new_task(scene.band, key="held")]])
    for n in range(ROUNDS):
        keys = [f"{n}.{k}" for k in range(10)]
        falls = [
            *(new_task(scene.band, key=key) for key in keys),
            new_task(scene.band, key="held", request="b"),
        ]
        stands = [[new_task(scene.band, key=key, request="c") for key in reversed(keys)] for _ in range(2)]
        answers = await asyncio.gather(
            scene.nodes[0].accept([falls]),
            scene.nodes[1].accept([stands[0]]),
            scene.nodes[2].accept([stands[1]]),
        )
        assert isinstance(answers[0][0][-1], KeyReused)
        kinds = {type(answers[1][0][0]), type(answers[2][0][0])}
        assert kinds == {Stored, Duplicate}


def _id(answer: Acceptance) -> object:
    assert isinstance(answer, Stored | Duplicate)
    return answer.id


async def test_nobody_pulls_what_another_pulled(scene: Scene) -> None:
    total = 1_500
    for start in range(0, total, 500):
        await scene.nodes[0].accept([[new_task(scene.band)] for _ in range(start, start + 500)])
    claimed: list[object] = []

    async def drain(node: PostgresStore, member: int) -> None:
        while claims := await node.pull([Take(scene.band.id, 37)], member):
            claimed.extend(claim.id for claim in claims)

    await asyncio.gather(
        *(drain(node, member) for node, member in zip(scene.nodes, scene.members, strict=True) for _ in "ab")
    )
    assert len(claimed) == len(set(claimed)) == total


async def test_offers_to_all_are_claimed_by_one(scene: Scene) -> None:
    for _ in range(ROUNDS):
        tasks = [new_task(scene.band) for _ in range(50)]
        await scene.nodes[0].accept([tasks])
        offers = [(task.id, 1) for task in tasks]
        claims = await asyncio.gather(
            scene.nodes[0].claim(offers, scene.members[0]),
            scene.nodes[1].claim(offers[::-1], scene.members[1]),
            scene.nodes[2].pull([Take(scene.band.id, 50)], scene.members[2]),
        )
        ids = [claim.id for some in claims for claim in some]
        assert len(ids) == len(set(ids))
        await scene.nodes[0].cancel_matching(TaskFilter(), 200)
        for member, some in zip(scene.members, claims, strict=True):
            ends = [Settlement(claim.id, 1, member, Finish(status=Status.CANCELLED)) for claim in some]
            await scene.nodes[0].settle(ends)
    assert await scene.count("outcome") == ROUNDS * 50


async def test_a_zombie_and_the_sweep_settle_the_same_rows_in_opposite_orders(scene: Scene) -> None:
    zombie, sweeper, user = scene.nodes
    for _ in range(ROUNDS):
        dead = await zombie.join("dead", LEASE_S, {})
        tasks = [new_task(scene.band, born_on=dead) for _ in range(60)]
        await zombie.accept([tasks])
        await zombie.set_state(dead, "left")
        late = [Settlement(task.id, 1, dead, Finish(status=Status.SUCCEEDED)) for task in tasks]
        swept = [Settlement(task.id, 1, dead, CRASHED) for task in reversed(tasks)]
        verdicts, repaired, _ = await asyncio.gather(
            zombie.settle(late),
            sweeper.settle(swept),
            user.cancel_matching(TaskFilter(states=(State.RUNNING,)), 60),
        )
        for verdict, repair in zip(verdicts, reversed(repaired), strict=True):
            assert {verdict, repair} == {Verdict.COMMITTED, Verdict.FENCED}
    places = [await scene.count(table) for table in ("waiting", "running", "outcome")]
    assert places[1] == 0
    assert sum(places) == ROUNDS * 60


async def test_children_of_many_parents_share_keys_in_opposite_orders(scene: Scene) -> None:
    keys = [f"shared{n}" for n in range(10)]
    for n in range(ROUNDS):
        parents = [new_task(scene.band, born_on=member) for member in scene.members for _ in range(5)]
        await scene.nodes[0].accept([[parent] for parent in parents])

        def ends(place: int, parents: list[Any] = parents, n: int = n) -> list[Settlement]:
            found = []
            for parent in parents[place * 5 : place * 5 + 5]:
                order = random.Random(parent.id.int).sample(keys, 10)
                children = tuple(
                    new_task(scene.band, idempotency_key=f"{n}.{key}", digest=digest("a"), delay_s=3600)
                    for key in order
                )
                finish = Finish(status=Status.SUCCEEDED, children=children)
                found.append(Settlement(parent.id, 1, scene.members[place], finish))
            return found

        verdicts = await asyncio.gather(*(node.settle(ends(place)) for place, node in enumerate(scene.nodes)))
        assert {verdict for some in verdicts for verdict in some} == {Verdict.COMMITTED}
    assert await scene.count("waiting") == ROUNDS * len(keys)


async def test_replays_cancels_and_purges_of_the_same_tasks(scene: Scene) -> None:
    member = scene.members[0]
    for _ in range(ROUNDS):
        tasks = [new_task(scene.band, born_on=member) for _ in range(40)]
        await scene.nodes[0].accept([tasks])
        failed = [Settlement(task.id, 1, member, Finish(status=Status.FAILED)) for task in tasks]
        assert not any(await scene.nodes[0].settle(failed))
        await asyncio.gather(
            scene.nodes[0].replay_matching(TaskFilter(), 100),
            scene.nodes[1].purge_matching(TaskFilter(), 100),
            scene.nodes[2].cancel_matching(TaskFilter(), 100),
            scene.nodes[1].forget(finished_before_s=0, keys_before_s=0, limit=15),
        )
        left = await scene.nodes[0].get_many([task.id for task in tasks])
        assert {view.state for view in left} <= {State.READY, State.CANCELLED, State.FAILED}
    tables = [await scene.count(table) for table in ("task", "waiting", "running", "outcome")]
    assert tables[0] == sum(tables[1:])


async def test_names_that_all_make_at_once_are_one_and_nobody_misses_one(scene: Scene) -> None:
    seen: list[int] = []

    async def follow() -> None:
        """As a node does that asks for what is newer than the newest it knows."""
        while len(seen) < ROUNDS * 3 + 1:
            seen.extend(band.id for band in await scene.nodes[2].bands(after=seen[-1] if seen else 0))

    following = asyncio.create_task(follow())
    for n in range(ROUNDS):
        keys = [BandKey(f"h{n}.{k}", Lane.HIGH, requires=("gpu", 'a,b"c\\')) for k in range(3)]
        made = await asyncio.gather(
            *(node.intern(random.Random(place).sample(keys, 3)) for place, node in enumerate(scene.nodes))
        )
        assert len({band for bands in made for band in bands}) == 3
        assert made[0][0].requires == ("gpu", 'a,b"c\\')
    async with asyncio.timeout(20):
        await following
    assert sorted(seen) == [band.id for band in await scene.nodes[0].bands()]


async def test_a_name_that_is_not_yet_committed_holds_up_the_next(pg_dsn: str) -> None:
    """Or who has seen the later id and asks for what follows it would never see the earlier one."""
    steps = Steps()
    async with (
        PostgresStore.open(pg_dsn, answer_s=20, session=SteppedSession.of(steps)) as held,
        PostgresStore.open(pg_dsn, answer_s=20) as other,
    ):
        steps.done.clear()
        steps.stop_at = 3  # find_bands, its commit, insert_bands, then the commit that is held
        earlier = asyncio.create_task(held.intern([BandKey("earlier", Lane.LOW)]))
        await steps.stopped.wait()
        assert steps.done[-1] == "insert_bands"
        later = asyncio.create_task(other.intern([BandKey("later", Lane.LOW)]))
        admin = await asyncpg.connect(pg_dsn)
        while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not later.done()
        assert await other.bands() == []
        steps.go_on.set()
        [[first], [second]] = [await earlier, await later]
        assert await other.bands() == [first, second]
        await admin.close()
