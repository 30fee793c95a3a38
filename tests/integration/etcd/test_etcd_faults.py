"""One etcd server that is killed, frozen and compacted, and connections that lose what was said."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

import runtime.adapters.etcd.coordinator
from runtime.adapters.etcd import open_coordinator
from runtime.core.view import View
from runtime.errors import Unavailable
from tests.support.etcd_server import EtcdCluster, etcd
from tests.support.processes import ROOT
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from runtime.ports import Coordinator

ALL: Final = 100_000
ANSWER_S: Final = 2.0
SLACK_S: Final = 0.5
MINE: Final = View(number=1, by=1, reason="mine")
THEIRS: Final = View(number=1, by=2, reason="theirs")


pytestmark = pytest.mark.usefixtures("grpc_engine")


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdCluster]:
    with etcd() as one:
        yield one


@pytest.fixture
def prefix() -> str:
    return f"/{uuid4()}"


@pytest.fixture
async def direct(server: EtcdCluster, prefix: str) -> AsyncIterator[Coordinator]:
    async with open_coordinator(server.url_of(prefix=prefix)) as coordinator:
        yield coordinator


@pytest.fixture
def watch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks unless a watch says so."""
    monkeypatch.setattr(runtime.adapters.etcd.coordinator, "_LOOK_S", 60.0)


@asynccontextmanager
async def through_proxy(
    server: EtcdCluster, prefix: str, *, also_direct: bool
) -> AsyncIterator[tuple[Coordinator, TcpProxy]]:
    """A coordinator whose first (or only) way to etcd is a proxy, and is connected."""
    async with tcp_proxy(server.members[0].port) as proxy:
        others = f",{server.endpoints}" if also_direct else ""
        async with open_coordinator(f"http://127.0.0.1:{proxy.port}{others}{prefix}") as coordinator:
            await coordinator.view()
            yield coordinator, proxy


async def back(coordinator: Coordinator) -> View:
    """Once it answers again."""
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                return await coordinator.view()
            await asyncio.sleep(0.02)


# -- what was said is lost ---------------------------------------------------------------------------


async def test_a_proposal_whose_answer_was_lost_is_settled_by_asking_again(
    server: EtcdCluster, prefix: str, direct: Coordinator
) -> None:
    async with through_proxy(server, prefix, also_direct=False) as (coordinator, proxy):
        proxy.lose_answers = True
        with pytest.raises(Unavailable):
            await coordinator.propose(MINE)
        proxy.lose_answers = False
        proxy.break_all()
        await back(coordinator)
        assert await coordinator.propose(MINE)
        assert await direct.history(ALL) == [MINE]


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_what_is_lost_on_one_way_is_settled_on_another(
    server: EtcdCluster, prefix: str, direct: Coordinator, lost: str
) -> None:
    async with through_proxy(server, prefix, also_direct=True) as (coordinator, proxy):
        setattr(proxy, f"lose_{lost}s", True)
        before_s = time.monotonic()
        assert await coordinator.propose(MINE)
        assert time.monotonic() - before_s < ANSWER_S + SLACK_S
        assert await direct.history(ALL) == [MINE]
        assert not await direct.propose(THEIRS)


async def test_a_proposal_that_was_committed_and_not_answered_is_accepted_once(
    server: EtcdCluster, prefix: str, direct: Coordinator
) -> None:
    """The answers to reading pass, that to the transaction does not."""
    async with through_proxy(server, prefix, also_direct=True) as (coordinator, proxy):

        async def lose_the_answer() -> None:
            assert await direct.newer(0, 10) == MINE  # it is committed
            proxy.break_all()

        proxy.delay_answers_s = 0.2
        proposing = asyncio.create_task(coordinator.propose(MINE))
        await lose_the_answer()
        assert await proposing
        assert await direct.history(ALL) == [MINE]


async def test_who_was_faster_while_mine_was_lost_has_won(
    server: EtcdCluster, prefix: str, direct: Coordinator
) -> None:
    async with through_proxy(server, prefix, also_direct=True) as (coordinator, proxy):
        proxy.lose_requests = True
        proposing = asyncio.create_task(coordinator.propose(MINE))
        assert await direct.propose(THEIRS)
        assert not await proposing
        assert await direct.history(ALL) == [THEIRS]


# -- watching ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("watch_alone")
async def test_a_watch_wakes_at_once(server: EtcdCluster, prefix: str, direct: Coordinator) -> None:
    async with open_coordinator(server.url_of(prefix=prefix)) as waits:
        for number in range(1, 6):
            waiting = asyncio.create_task(waits.newer(number - 1, 20))
            assert await waits.newer(number - 1, 0.1) is None
            before_s = time.monotonic()
            assert await direct.propose(View(number=number))
            assert await waiting == View(number=number)
            assert time.monotonic() - before_s < SLACK_S


@pytest.mark.usefixtures("watch_alone")
@pytest.mark.parametrize("fault", ["connection", "compaction", "restart"])
async def test_a_watch_that_broke_is_resumed_and_misses_nothing(
    server: EtcdCluster, prefix: str, direct: Coordinator, fault: str
) -> None:
    """What happens while it is broken is forgotten by etcd, too, where its history is compacted."""
    async with through_proxy(server, prefix, also_direct=False) as (waits, proxy):
        assert await direct.propose(MINE)
        waiting = asyncio.create_task(waits.newer(1, 40))
        assert await waits.newer(1, 0.2) is None
        proxy.lose_answers = True
        if fault == "restart":
            server.members[0].kill()
            server.members[0].start()
            await asyncio.to_thread(server.wait_ready)
            await back(direct)
        for number in (2, 3):
            assert await direct.propose(View(number=number))
        if fault == "compaction":
            await asyncio.to_thread(server.compact)
        proxy.lose_answers = False
        proxy.break_all()
        async with asyncio.timeout(15):
            assert await _newer(waits, waiting) == View(number=3)
        assert await direct.history(ALL) == [View(number=3), View(number=2), MINE]


async def _newer(coordinator: Coordinator, waiting: asyncio.Task[View | None]) -> View | None:
    """What it came to, or comes to when it is asked again: a read of its own may have met the fault."""
    try:
        return await waiting
    except Unavailable:
        await back(coordinator)
        return await coordinator.newer(1, 20)


# -- away --------------------------------------------------------------------------------------------


async def test_nothing_that_is_asked_of_a_frozen_etcd_holds_up_the_loop(
    server: EtcdCluster, direct: Coordinator
) -> None:
    assert await direct.propose(MINE)
    gaps = []

    async def tick() -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before_s)

    ticking = asyncio.create_task(tick())
    await asyncio.to_thread(server.members[0].freeze)
    try:
        asked = [direct.view(), direct.propose(View(number=2)), direct.newer(1, 30), direct.history(5)]
        before_s = time.monotonic()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert time.monotonic() - before_s < ANSWER_S + SLACK_S
    finally:
        server.members[0].thaw()
        ticking.cancel()
    assert [type(answer) for answer in answers] == [Unavailable] * 4
    assert max(gaps) < 1.0
    assert (await back(direct)).number in {1, 2}


async def test_etcd_may_be_away_at_the_start_and_come_later(prefix: str) -> None:
    with etcd() as late:
        await asyncio.to_thread(late.members[0].kill)
        async with open_coordinator(late.url_of(prefix=prefix)) as coordinator:
            before_s = time.monotonic()
            with pytest.raises(Unavailable):
                await coordinator.view()
            assert time.monotonic() - before_s < SLACK_S  # nobody listens: that is known at once
            late.members[0].start()
            await asyncio.to_thread(late.wait_ready)
            before_s = time.monotonic()
            assert (await back(coordinator)).number == 0
            assert time.monotonic() - before_s < ANSWER_S + SLACK_S
            assert await coordinator.propose(MINE)


async def test_what_no_node_wrote_is_as_good_as_no_etcd(
    server: EtcdCluster, prefix: str, direct: Coordinator
) -> None:
    await asyncio.to_thread(server.ctl, "put", f"{prefix}/view", "{}")
    with pytest.raises(Unavailable, match=f"{prefix}/view holds no view"):
        await direct.view()
    await asyncio.to_thread(server.ctl, "del", f"{prefix}/view")
    assert await direct.propose(MINE)


# -- a process of its own ----------------------------------------------------------------------------

PROCESS: Final = """
import asyncio, sys, uvloop
from runtime.adapters.etcd import open_coordinator
from runtime.core.view import View
from runtime.errors import Unavailable

async def main():
    async with open_coordinator(sys.argv[1]) as one, open_coordinator(sys.argv[1]) as other:
        waiting = asyncio.create_task(other.newer(0, 10))
        await asyncio.sleep(0)
        assert await one.propose(View(number=1))
        assert await waiting == View(number=1)
        left = asyncio.create_task(other.newer(1, 60))
        assert await one.newer(1, 0.2) is None
        left.cancel()
    async with open_coordinator("http://127.0.0.1:1") as nobody:
        try:
            await nobody.view()
        except Unavailable:
            print("done")

with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[2] == "uvloop" else None) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_process_ends_without_a_word(server: EtcdCluster, prefix: str, loop: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROCESS, server.url_of(prefix=prefix), loop]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, cwd=ROOT)
    said = [line for line in done.stderr.splitlines() if "etcd is away" not in line]
    assert (done.returncode, done.stdout, said) == (0, "done\n", [])
