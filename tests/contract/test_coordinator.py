"""The contract of the port Coordinator, on memory, PostgreSQL and etcd: views are totally ordered, whoever proposes."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import asyncpg
import pytest

from runtime.adapters.etcd.coordinator import EtcdCoordinator
from runtime.adapters.etcd.endpoints import Endpoints
from runtime.adapters.etcd.url import parse
from runtime.adapters.memory import MemoryCoordinator, MemoryViews
from runtime.adapters.postgres import PostgresStore
from runtime.adapters.postgres.views import PostgresCoordinator
from runtime.core.view import NO_VIEW, VIEWS_KEPT, Member, Standing, View, view_to_json
from runtime.errors import Unavailable
from tests.support.etcd_server import EtcdCluster, etcd
from tests.support.pg_proxy import PgProxy, pg_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from runtime.ports import Coordinator

ALL: Final = 100_000
ANSWER_S: Final = 2.0  # within which everybody is answered, or told that it is away
NO_VIEWS: Final = f"""
DELETE FROM noria.view_log;
UPDATE noria.view SET number = 0, view = '{json.dumps(view_to_json(NO_VIEW))}'
"""
SLACK_S: Final = 0.5  # for a machine that does other things too


class Rig(ABC):
    """One cluster's views, empty at first."""

    @abstractmethod
    async def member(self, kept: int = VIEWS_KEPT) -> Coordinator:
        """As another node has it: with connections of its own."""

    @abstractmethod
    async def go_away(self) -> None:
        """From now on nobody answers."""

    @abstractmethod
    async def come_back(self) -> None: ...


class MemoryRig(Rig):
    def __init__(self) -> None:
        self._views = MemoryViews()
        self._members: list[MemoryCoordinator] = []

    async def member(self, kept: int = VIEWS_KEPT) -> Coordinator:
        if kept != VIEWS_KEPT:
            self._views = MemoryViews(kept=kept)
        self._members.append(MemoryCoordinator(self._views))
        return self._members[-1]

    async def go_away(self) -> None:
        for member in self._members:
            member.reachable = False

    async def come_back(self) -> None:
        for member in self._members:
            member.reachable = True


class PostgresRig(Rig):
    def __init__(self, proxy: PgProxy, stack: AsyncExitStack) -> None:
        self._proxy = proxy
        self._stack = stack

    async def member(self, kept: int = VIEWS_KEPT) -> Coordinator:
        store = await self._stack.enter_async_context(PostgresStore.open(self._proxy.dsn))
        if kept == VIEWS_KEPT:
            return store.coordinator
        return PostgresCoordinator(store._connections.read, kept=kept)

    async def go_away(self) -> None:
        self._proxy.fall_silent()

    async def come_back(self) -> None:
        self._proxy.talk_again()


class EtcdRig(Rig):
    def __init__(self, cluster: EtcdCluster, stack: AsyncExitStack) -> None:
        self._cluster = cluster
        self._url = parse(cluster.url_of(prefix=f"/{uuid4()}"))
        self._stack = stack

    async def member(self, kept: int = VIEWS_KEPT) -> Coordinator:
        endpoints = Endpoints(self._url, None)
        self._stack.push_async_callback(endpoints.close)
        return EtcdCoordinator(endpoints, self._url.prefix, kept=kept)

    async def go_away(self) -> None:
        self._cluster.members[0].freeze()

    async def come_back(self) -> None:
        self._cluster.members[0].thaw()


@pytest.fixture(scope="module")
def etcd_server(grpc_engine: None) -> Iterator[EtcdCluster]:
    with etcd() as cluster:
        yield cluster


@pytest.fixture(params=["memory", "postgres", "etcd"])
async def rig(request: pytest.FixtureRequest, place: str | EtcdCluster | None) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        if place is None:
            yield MemoryRig()
        elif isinstance(place, EtcdCluster):
            yield EtcdRig(place, stack)
            if not place.members[0].answers:
                place.members[0].thaw()
        else:
            admin = await asyncpg.connect(place)
            await admin.execute(NO_VIEWS)
            await admin.close()
            proxy = await stack.enter_async_context(pg_proxy(place))
            yield PostgresRig(proxy, stack)
            proxy.talk_again()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str | EtcdCluster | None:
    """Where the views are: a DSN, an etcd cluster, or nowhere."""
    which = request.node.callspec.params["rig"]
    names = {"postgres": "contract_dsn", "etcd": "etcd_server"}
    found: str | EtcdCluster | None = request.getfixturevalue(names[which]) if which in names else None
    return found


def view(number: int, by: int = 1, *members: Member, reason: str = "") -> View:
    return View(number=number, by=by, members=members, reason=reason)


async def followed(coordinator: Coordinator, last: int) -> list[View]:
    """Every view that a follower gets to see, up to number `last`."""
    seen: list[View] = []
    number = 0
    while number < last:
        found = await coordinator.newer(number, 20)
        assert found is not None, f"nothing after {number}"
        seen.append(found)
        number = found.number
    return seen


async def filled(coordinator: Coordinator, last: int) -> list[View]:
    """Views 1 to `last`, proposed."""
    views = [view(number) for number in range(1, last + 1)]
    for each in views:
        assert await coordinator.propose(each)
    return views


# -- one proposer ------------------------------------------------------------------------------------


async def test_before_the_first_there_is_none(rig: Rig) -> None:
    coordinator = await rig.member()
    assert await coordinator.view() == NO_VIEW
    assert await coordinator.history(ALL) == []
    assert await coordinator.newer(0, 0) is None


async def test_what_was_proposed_is_what_all_read(rig: Rig) -> None:
    one, other = await rig.member(), await rig.member()
    proposed = view(
        1,
        7,
        Member(node="n1", incarnation=3, weight=0.1, tags=("gpu", "züri"), digest="d1"),
        Member(node="n2", incarnation=2**40, standing=Standing.UNREACHABLE),
        Member(node="n3", incarnation=5, standing=Standing.DRAINING, weight=2),
        reason="n3 «drains»\n\"'\\",
    )
    assert await one.propose(proposed)
    for coordinator in (one, other):
        assert await coordinator.view() == proposed
        assert await coordinator.history(ALL) == [proposed]
        assert await coordinator.newer(0, 0) == proposed


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 100])
async def test_a_number_that_is_not_the_next_changes_nothing(rig: Rig, number: int) -> None:
    one, other = await rig.member(), await rig.member()
    views = await filled(one, 3)
    assert not await other.propose(view(number, by=99))
    assert await one.view() == views[-1]
    assert await one.history(ALL) == views[::-1]
    assert await other.propose(view(4, by=99))


async def test_the_same_proposal_again_is_accepted_and_changes_nothing(rig: Rig) -> None:
    """Whoever does not know whether it was heard asks again."""
    one, other = await rig.member(), await rig.member()
    mine = view(1, 1, Member(node="n1", incarnation=1, weight=0.3), reason="n1 joined")
    assert await one.propose(mine)
    assert await one.propose(mine)
    assert await other.propose(view(2, by=2))
    assert await one.propose(mine)  # it was the first, though not the present one any more
    assert await other.history(ALL) == [view(2, by=2), mine]


async def test_history_is_newest_first(rig: Rig) -> None:
    coordinator = await rig.member()
    views = await filled(coordinator, 12)
    assert await coordinator.history(ALL) == views[::-1]
    assert await coordinator.history(3) == views[:-4:-1]
    assert await coordinator.history(0) == []


async def test_the_log_is_bounded(rig: Rig) -> None:
    coordinator = await rig.member(kept=5)
    views = await filled(coordinator, 12)
    assert await coordinator.history(ALL) == views[:-6:-1]
    assert await coordinator.propose(view(13))


# -- many proposers ----------------------------------------------------------------------------------


async def test_of_many_who_propose_the_same_number_one_wins(rig: Rig) -> None:
    members = [await rig.member() for _ in range(4)]
    proposals = [view(1, by=by) for by in range(1, 13)]
    won = await asyncio.gather(*(members[each.by % 4].propose(each) for each in proposals))
    assert sum(won) == 1
    assert await members[0].history(ALL) == [proposals[won.index(True)]]


async def test_many_proposers_make_one_order_without_gaps(rig: Rig) -> None:
    members = [await rig.member() for _ in range(4)]
    follower = await rig.member()
    last = 30
    won: dict[int, list[int]] = {}

    async def keep_proposing(by: int, coordinator: Coordinator) -> None:
        while (present := await coordinator.view()).number < last:
            if await coordinator.propose(view(present.number + 1, by=by)):
                won.setdefault(present.number + 1, []).append(by)

    seen, *_ = await asyncio.gather(
        followed(follower, last), *(keep_proposing(by, member) for by, member in enumerate(members, 1))
    )
    log = (await follower.history(ALL))[::-1]
    assert [each.number for each in log] == list(range(1, len(log) + 1))
    assert len(log) >= last  # who read 29 may have been the second to propose, and made a 31
    assert {number: [log[number - 1].by] for number in won} == won
    assert len(won) == len(log)
    assert [each.number for each in seen] == sorted({each.number for each in seen})
    assert all(log[each.number - 1] == each for each in seen)


# -- newer -------------------------------------------------------------------------------------------


async def test_newer_is_the_present_one_at_once(rig: Rig) -> None:
    coordinator = await rig.member()
    views = await filled(coordinator, 3)
    before_s = time.monotonic()
    assert await coordinator.newer(0, 30) == views[-1]
    assert await coordinator.newer(2, 30) == views[-1]
    assert time.monotonic() - before_s < ANSWER_S


async def test_newer_ends_when_the_time_is_over(rig: Rig) -> None:
    coordinator = await rig.member()
    await filled(coordinator, 2)
    for number in (2, 7):
        before_s = time.monotonic()
        assert await coordinator.newer(number, 0.3) is None
        assert 0.25 < time.monotonic() - before_s < 0.3 + SLACK_S
    assert await coordinator.newer(2, -1) is None


async def test_newer_wakes_soon_after_somebody_else_proposed(rig: Rig) -> None:
    waits, proposes = await rig.member(), await rig.member()
    await filled(proposes, 1)
    waiting = [asyncio.create_task(waits.newer(1, 20)) for _ in range(3)]
    assert await waits.newer(1, 0.2) is None  # they wait by now
    before_s = time.monotonic()
    assert await proposes.propose(view(2))
    assert await asyncio.gather(*waiting) == [view(2)] * 3
    assert time.monotonic() - before_s < 0.5 + SLACK_S


# -- away --------------------------------------------------------------------------------------------

CALLS: Final[dict[str, Callable[[Coordinator], Awaitable[object]]]] = {
    "view": lambda coordinator: coordinator.view(),
    "propose": lambda coordinator: coordinator.propose(view(3)),
    "newer": lambda coordinator: coordinator.newer(2, 30),
    "history": lambda coordinator: coordinator.history(ALL),
}


async def back(coordinator: Coordinator) -> View:
    """Once it answers again."""
    async with asyncio.timeout(10):
        while True:
            with suppress(Unavailable):
                return await coordinator.view()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("call", CALLS)
async def test_whoever_asks_while_it_is_away_is_told_so_soon(rig: Rig, call: str) -> None:
    coordinator = await rig.member()
    await filled(coordinator, 2)
    await rig.go_away()
    before_s = time.monotonic()
    with pytest.raises(Unavailable):
        await CALLS[call](coordinator)
    assert time.monotonic() - before_s < ANSWER_S + SLACK_S
    await rig.come_back()
    assert await back(coordinator)
    assert await coordinator.propose(view(3))  # also where it had happened
    assert await coordinator.history(ALL) == [view(3), view(2), view(1)]
