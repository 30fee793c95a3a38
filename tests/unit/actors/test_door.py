"""The door: who waits for room before tasks are accepted, for how long, and who does not."""

from __future__ import annotations

import asyncio

import pytest

from actors.authoring.registry import Kind
from actors.executor import door
from actors.executor.capacity import Capacity

LIMIT = 4
BAND = 7


@pytest.fixture(autouse=True)
def _two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the numbers below go by."""
    monkeypatch.setattr(door, "PATIENCE_S", 2.0)


class Node:
    """A capacity whose bodies end at a known rate."""

    def __init__(self) -> None:
        self.capacity = Capacity(dict.fromkeys(Kind, LIMIT))
        self.now_s = 100.0
        self.capacity.measure(self.now_s)

    def end(self, count: int, within_s: float = 0.1) -> None:
        for _ in range(count):
            self.capacity.end(Kind.ASYNC)
        self.measure(within_s)

    def measure(self, after_s: float) -> None:
        self.now_s += after_s
        self.capacity.measure(self.now_s)

    async def come(self, count: int) -> asyncio.Task[None]:
        """Somebody with so many tasks, who reserves when let in."""

        async def enter() -> None:
            await self.capacity.door.wait(Kind.ASYNC, count)
            self.capacity.take(Kind.ASYNC, count)

        comer = asyncio.create_task(enter())
        await asyncio.sleep(0)
        return comer


@pytest.fixture
def quick() -> Node:
    """Full, and 20 bodies end in a second."""
    node = Node()
    node.capacity.take(Kind.ASYNC, LIMIT)
    node.end(2)
    node.capacity.take(Kind.ASYNC, node.capacity.room_for_births(Kind.ASYNC))
    assert node.capacity.room_for_births(Kind.ASYNC) == 0
    return node


async def test_nobody_waits_where_there_is_room() -> None:
    node = Node()
    assert (await node.come(LIMIT)).done()


async def test_nobody_waits_for_long_bodies() -> None:
    node = Node()
    node.capacity.take(Kind.ASYNC, LIMIT)
    node.measure(0.1)
    assert (await node.come(1)).done()


async def test_nobody_waits_for_more_than_comes_soon(quick: Node) -> None:
    first = await quick.come(30)
    assert not first.done()  # 40 end within the patience
    assert (await quick.come(30)).done()
    first.cancel()


async def test_who_waits_is_let_in_in_order_when_room_has_come(quick: Node) -> None:
    first, second = await quick.come(2), await quick.come(1)
    quick.capacity.give_back(Kind.ASYNC)
    await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()  # there is room for it, but not its turn
    quick.capacity.end(Kind.ASYNC)
    await asyncio.sleep(0)
    assert first.done()
    assert not second.done()
    quick.capacity.end(Kind.ASYNC)
    await second


async def test_the_same_room_is_given_once(quick: Node) -> None:
    comers = [await quick.come(1) for _ in range(3)]
    quick.capacity.give_back(Kind.ASYNC, 2)
    await asyncio.sleep(0)
    assert [comer.done() for comer in comers] == [True, True, False]
    assert quick.capacity.room_for_births(Kind.ASYNC) == 0
    quick.end(1)
    await comers[2]


async def test_more_than_ever_fits_waits_for_half_of_all(quick: Node) -> None:
    comer = await quick.come(20)
    quick.capacity.give_back(Kind.ASYNC, 2)
    await asyncio.sleep(0)
    assert not comer.done()
    quick.capacity.give_back(Kind.ASYNC)
    await comer


async def test_a_young_backlog_is_waited_for_and_an_old_one_is_not(quick: Node) -> None:
    quick.capacity.put_in_backlog(BAND, Kind.ASYNC)
    comer = await quick.come(1)
    quick.capacity.give_back(Kind.ASYNC, 2)
    await asyncio.sleep(0)
    assert not comer.done()  # it would overtake what waits
    quick.capacity.clear_backlog(BAND, quick.capacity.backlog_mark(BAND))
    await comer
    quick.capacity.put_in_backlog(BAND, Kind.ASYNC)
    quick.end(10, within_s=door.PATIENCE_S + 0.1)
    assert (await quick.come(1)).done()


async def test_patience_ends(quick: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE_S", 0.2)
    quick.capacity.put_in_backlog(BAND, Kind.ASYNC)
    await quick.come(1)
    last = await quick.come(1)
    await last
    quick.capacity.clear_backlog(BAND, quick.capacity.backlog_mark(BAND))
    quick.end(4)
    assert (await quick.come(1)).done()  # nobody is left before it


async def test_who_gives_up_leaves_its_room_to_the_next(quick: Node) -> None:
    first, second = await quick.come(1), await quick.come(1)
    quick.capacity.give_back(Kind.ASYNC)  # the first is let in …
    first.cancel()  # … and gives up before it knows
    with pytest.raises(asyncio.CancelledError):
        await first
    await second


async def test_nobody_waits_at_a_closed_node(quick: Node) -> None:
    quick.capacity.close("drain")
    assert (await quick.come(1)).done()


async def test_a_large_batch_does_not_follow_another_into_the_same_room(quick: Node) -> None:
    first, second = await quick.come(5), await quick.come(5)
    quick.capacity.give_back(Kind.ASYNC, 5)
    quick.capacity.give_back(Kind.ASYNC, 0)  # at the same moment, before the first has reserved
    await asyncio.sleep(0)
    assert first.done()
    assert not second.done()
    second.cancel()
