"""The mailbox against a dumb reference that keeps everything in lists."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.kernel.mailbox import CONTROL_CAPACITY, Mailbox, Overflow
from runtime.kernel.virtual import run, simulated

OPERATIONS = st.lists(st.sampled_from(["put", "control", "take", "queue_up", "leave", "drain"]), max_size=60)


class Reference:
    """Two lists and the senders who wait."""

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.capacity, self.overflow = capacity, overflow
        self.control: list[int] = []
        self.user: list[int] = []
        self.senders: list[int] = []
        self.dropped: list[int] = []

    def put(self, item: int) -> bool:
        if len(self.user) == self.capacity:
            if self.overflow is not Overflow.DROP_OLD:
                return False
            self.dropped.append(self.user.pop(0))
        self.user.append(item)
        return True

    def take(self) -> int | None:
        if self.control:
            return self.control.pop(0)
        if not self.user:
            return None
        item = self.user.pop(0)
        if self.senders:
            self.user.append(self.senders.pop(0))
        return item

    def drain(self) -> list[int]:
        items = self.control + self.user + self.senders
        self.control, self.user, self.senders = [], [], []
        return items


@given(OPERATIONS, st.integers(1, 4), st.sampled_from(Overflow))
def test_behaves_as_the_reference(operations: list[str], capacity: int, overflow: Overflow) -> None:
    async def main() -> None:
        dropped: list[int] = []
        mailbox: Mailbox[int] = Mailbox(capacity, overflow, dropped.append)
        reference = Reference(capacity, overflow)
        admissions: dict[int, asyncio.Future[bool]] = {}
        for item, operation in enumerate(operations):
            match operation:
                case "put":
                    assert mailbox.put(item) == reference.put(item)
                case "control":
                    assert mailbox.put_control(item)
                    reference.control.append(item)
                case "take":
                    assert mailbox.take() == reference.take()
                case "queue_up" if mailbox.must_wait:
                    admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
                    taken = len(reference.senders) < capacity
                    assert mailbox.queue_up(item, admitted) is taken
                    if taken:
                        reference.senders.append(item)
                        admissions[item] = admitted
                case "leave" if reference.senders:
                    admissions[reference.senders.pop(0)].cancel()
                case "drain":
                    assert mailbox.drain() == reference.drain()
                case _:
                    pass
            assert len(mailbox) == len(reference.control) + len(reference.user)
            assert dropped == reference.dropped
            waiting = [item for item, admitted in admissions.items() if not admitted.done()]
            assert waiting == reference.senders

    run(main)


@simulated
async def test_a_reader_sleeps_until_something_is_put() -> None:
    mailbox: Mailbox[str] = Mailbox(1)
    loop = asyncio.get_running_loop()
    for put in (mailbox.put, mailbox.put_control):
        loop.call_later(5, put, "item")
        began_s = loop.time()
        await mailbox.ready()
        assert (mailbox.take(), loop.time() - began_s) == ("item", 5)


@pytest.mark.parametrize("lane", ["put", "put_control"])
@simulated
async def test_a_reader_does_not_sleep_while_something_waits(lane: str) -> None:
    mailbox: Mailbox[str] = Mailbox(1)
    getattr(mailbox, lane)("item")
    await mailbox.ready()  # would be a deadlock
    assert len(mailbox) == 1


@simulated
async def test_a_woken_reader_may_find_nothing() -> None:
    mailbox: Mailbox[str] = Mailbox(1)
    asyncio.get_running_loop().call_later(1, mailbox.wake)
    await mailbox.ready()
    assert mailbox.take() is None


@simulated
async def test_a_reader_that_gives_up_leaves_the_mailbox_usable() -> None:
    mailbox: Mailbox[str] = Mailbox(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await mailbox.ready()
    assert mailbox.put("item")
    await mailbox.ready()
    assert mailbox.take() == "item"


@simulated
async def test_senders_who_left_make_room_for_others_to_wait() -> None:
    mailbox: Mailbox[int] = Mailbox(1, Overflow.WAIT)
    loop = asyncio.get_running_loop()
    assert mailbox.put(0)
    gone: asyncio.Future[bool] = loop.create_future()
    assert mailbox.queue_up(1, gone)
    assert not mailbox.queue_up(2, loop.create_future())
    gone.cancel()
    assert mailbox.queue_up(3, loop.create_future())
    assert [mailbox.take(), mailbox.take(), mailbox.take()] == [0, 3, None]


def test_the_control_lane_is_bounded_too() -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    assert all(mailbox.put_control(item) for item in range(CONTROL_CAPACITY))
    assert not mailbox.put_control(-1)
    assert len(mailbox) == CONTROL_CAPACITY


def test_a_capacity_is_needed() -> None:
    with pytest.raises(ValueError, match="capacity 0: must be 1 or more"):
        Mailbox(0)
