"""Three etcd servers, of which some are killed or frozen: views go on while a majority answers, and none is lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from runtime.adapters.etcd import open_coordinator
from runtime.core.view import View
from runtime.errors import Unavailable
from tests.support.etcd_server import EtcdCluster, Member, etcd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from runtime.ports import Coordinator

T = TypeVar("T")

ALL: Final = 100_000
ANSWER_S: Final = 2.0
SLACK_S: Final = 0.5
ELECTION_S: Final = 15.0  # it takes 1 or 2 s where nobody else needs the machine


pytestmark = pytest.mark.usefixtures("grpc_engine")


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    with etcd(3) as three:
        yield three


def turned(cluster: EtcdCluster, first: Member) -> str:
    """The URL of all, beginning with this one: the one that is asked first."""
    at = cluster.members.index(first)
    return cluster.url_of(*cluster.members[at:], *cluster.members[:at])


async def propose_until(coordinator: Coordinator, by: int, last: int) -> list[int]:
    """Propose the next number again and again, each until there is an answer; the numbers that were won."""
    won: list[int] = []
    while (number := (await answered(coordinator.view)).number + 1) <= last:
        mine = View(number=number, by=by)
        if await answered(lambda mine=mine: coordinator.propose(mine)):
            won.append(number)
    return won


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(0.02)


async def follow_until(coordinator: Coordinator, last: int) -> list[View]:
    seen = [View(number=0)]
    while seen[-1].number < last:
        try:
            found = await coordinator.newer(seen[-1].number, 5)
        except Unavailable:
            await asyncio.sleep(0.02)
        else:
            seen += [found] if found else []
    return seen[1:]


async def reached(coordinator: Coordinator, number: int) -> None:
    await follow_until(coordinator, number)


async def test_while_the_leader_is_killed_no_view_is_lost_and_none_comes_twice(cluster: EtcdCluster) -> None:
    last = 400
    leader = await asyncio.to_thread(lambda: cluster.leader)
    other = next(member for member in cluster.members if member is not leader)
    async with (
        open_coordinator(turned(cluster, leader)) as one,
        open_coordinator(turned(cluster, other)) as two,
        open_coordinator(turned(cluster, leader)) as follower,
        open_coordinator(turned(cluster, other)) as observer,
    ):
        async with asyncio.TaskGroup() as group:
            proposing = [
                group.create_task(propose_until(each, by, last)) for by, each in enumerate((one, two), 1)
            ]
            following = [group.create_task(follow_until(each, last)) for each in (follower, observer)]
            await reached(observer, 100)
            await asyncio.to_thread(leader.kill)
        log = (await observer.history(ALL))[::-1]
        won = {number: by for by, each in enumerate(proposing, 1) for number in each.result()}
        assert [view.number for view in log] == list(range(1, len(log) + 1))
        assert len(log) >= last
        assert {view.number: view.by for view in log} == won  # nobody was told otherwise
        assert len(won) == sum(len(each.result()) for each in proposing)
        for each in following:
            numbers = [view.number for view in each.result()]
            assert numbers == sorted(set(numbers))
            assert all(log[view.number - 1] == view for view in each.result())
        leader.start()
        await asyncio.to_thread(cluster.wait_ready)
        async with open_coordinator(cluster.url_of(leader)) as back:
            await follow_until(back, len(log))  # gRPC tries again within a second
            assert (await back.history(ALL))[::-1] == log


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_whoever_asks_one_that_is_gone_is_answered_by_another(
    cluster: EtcdCluster, leads: bool, fault: str
) -> None:
    victim = await asyncio.to_thread(
        lambda: next(member for member in cluster.members if (member is cluster.leader) is leads)
    )
    async with (
        open_coordinator(turned(cluster, victim)) as asks,
        open_coordinator(
            cluster.url_of(*(member for member in cluster.members if member is not victim))
        ) as other,
    ):
        assert await asks.propose(View(number=1))
        waiting = asyncio.create_task(follow_until(asks, 3))
        await asyncio.to_thread(victim.kill if fault == "kill" else victim.freeze)
        before_s = time.monotonic()
        for number in (2, 3):
            await propose_until(other, 1, number)
        assert (await waiting)[-1] == View(number=3, by=1)
        assert time.monotonic() - before_s < ELECTION_S
        before_s = time.monotonic()
        assert await asks.view() == View(number=3, by=1)
        assert time.monotonic() - before_s < SLACK_S  # it asks another one first by now


async def test_without_a_majority_the_view_is_frozen_and_comes_back(cluster: EtcdCluster) -> None:
    async with open_coordinator(cluster.url) as coordinator:
        views = [View(number=number) for number in range(1, 4)]
        for view in views:
            assert await coordinator.propose(view)
        for member in cluster.members[1:]:
            await asyncio.to_thread(member.kill)
        for ask in (coordinator.view(), coordinator.propose(View(number=4)), coordinator.newer(3, 30)):
            before_s = time.monotonic()
            with pytest.raises(Unavailable):
                await ask
            assert time.monotonic() - before_s < ANSWER_S + SLACK_S
        for member in cluster.members[1:]:
            member.start()
        await asyncio.to_thread(cluster.wait_ready)
        await propose_until(coordinator, 0, 4)  # that of before may have been kept by the one that was left
        assert await coordinator.history(ALL) == [View(number=4), *views[::-1]]
