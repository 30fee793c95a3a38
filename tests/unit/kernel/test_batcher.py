"""Group commit: what goes in one batch, and that every item is answered exactly once. In virtual time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Overloaded, Unavailable
from runtime.kernel.batcher import Batcher
from runtime.kernel.virtual import run, simulated
from tests.support.probe import settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence


class Store:
    """Takes a second per flush, remembers the batches, fails on demand."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.running_max = 0
        self.error: BaseException | None = None

    async def flush(self, items: list[int]) -> Sequence[int | Exception]:
        self.batches.append(items)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await asyncio.sleep(1)
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return [item * 10 for item in items]


async def error_of(awaitable: Awaitable[object]) -> str:
    try:
        return str(await awaitable)
    except Exception as error:  # noqa: BLE001 - this is what it is for
        return type(error).__name__


@simulated
async def test_a_lone_item_does_not_wait_and_what_comes_meanwhile_is_one_batch() -> None:
    store = Store()
    async with Batcher(store.flush, name="b") as batcher:
        first = batcher.submit(0)
        await settle()
        assert store.batches == [[0]]
        rest = [batcher.submit(number) for number in range(1, 5)]
        assert await asyncio.gather(first, *rest) == [0, 10, 20, 30, 40]
        assert store.batches == [[0], [1, 2, 3, 4]]
        assert asyncio.get_running_loop().time() == 2


@simulated
async def test_items_of_one_turn_are_one_batch_even_with_two_flushers() -> None:
    store = Store()
    async with Batcher(store.flush, name="b", flushers=2) as batcher:
        for _ in range(3):
            await asyncio.gather(*(batcher.submit(number) for number in range(3)))
        assert len(batcher._workers) == 1  # the second was never needed
    assert store.batches == [[0, 1, 2]] * 3


@simulated
async def test_flushers_work_side_by_side_and_no_more_than_allowed() -> None:
    store = Store()
    async with Batcher(store.flush, name="b", flushers=2, max_items=2) as batcher:
        results = await asyncio.gather(*(batcher.submit(number) for number in range(7)))
        assert results == [number * 10 for number in range(7)]
    assert store.batches == [[0, 1], [2, 3], [4, 5], [6]]
    assert store.running_max == 2
    assert asyncio.get_running_loop().time() == 2


@simulated
async def test_batches_are_bounded_by_weight_and_size_but_take_one_at_least() -> None:
    store = Store()
    async with Batcher(store.flush, name="b", max_items=4, max_bytes=100, size=lambda item: item) as batcher:
        futures = [
            batcher.submit(item, weight)
            for item, weight in [(1, 3), (2, 2), (3, 9), (60, 1), (50, 1), (200, 1)]
        ]
        await asyncio.gather(*futures)
        assert batcher.waiting == 0
    assert store.batches == [[1], [2], [3], [60], [50], [200]]


@simulated
async def test_too_much_is_refused_with_a_time_to_come_back() -> None:
    store = Store()
    async with Batcher(store.flush, name="accept", capacity=3, retry_after_s=7) as batcher:
        futures = [batcher.submit(0, weight=50)]  # more than the capacity, but alone
        await settle()  # in flight: it no longer waits
        futures += [batcher.submit(number) for number in (1, 2, 3)]
        with pytest.raises(Overloaded, match="accept: 3 wait, 3 may") as caught:
            batcher.submit(4)
        assert caught.value.retry_after_s == 7
        assert await asyncio.gather(*futures) == [0, 10, 20, 30]
        assert await batcher.submit(5) == 50


@simulated
async def test_a_flush_that_raises_answers_its_batch_and_no_other() -> None:
    store = Store()
    async with Batcher(store.flush, name="b") as batcher:
        store.error = Unavailable("away")
        first = [batcher.submit(number) for number in (0, 1)]
        assert [await error_of(future) for future in first] == ["Unavailable", "Unavailable"]
        store.error = None
        assert await batcher.submit(2) == 20


@simulated
async def test_a_cancellation_inside_the_flush_is_answered_and_the_flusher_lives_on() -> None:
    store = Store()
    async with Batcher(store.flush, name="b") as batcher:
        store.error = asyncio.CancelledError()
        with pytest.raises(
            Unavailable, match="b: the flush was interrupted; whether it took place is unknown"
        ):
            await batcher.submit(0)
        store.error = None
        assert await batcher.submit(1) == 10


@simulated
async def test_a_flush_that_miscounts_is_our_bug_and_says_so() -> None:
    async def flush(items: list[int]) -> list[int]:
        return items[1:]

    async with Batcher(flush, name="b") as batcher:
        futures = [batcher.submit(number) for number in range(3)]
        with pytest.raises(RuntimeError, match="b: flush gave 2 results for 3 items"):
            await futures[0]
        assert [await error_of(future) for future in futures[1:]] == ["RuntimeError"] * 2


@simulated
async def test_one_item_may_fail_alone() -> None:
    async def flush(items: list[int]) -> list[int | Exception]:
        return [ValueError("odd") if item % 2 else item for item in items]

    async with Batcher(flush, name="b") as batcher:
        ends = [batcher.submit(number) for number in range(3)]
        assert [await error_of(end) for end in ends] == ["0", "ValueError", "2"]


@simulated
async def test_a_waiter_that_leaves_disturbs_nobody() -> None:
    store = Store()
    async with Batcher(store.flush, name="b") as batcher:
        futures = [batcher.submit(number) for number in range(3)]
        await settle()
        futures[1].cancel()
        assert (await futures[0], await futures[2]) == (0, 20)
    assert store.batches == [[0, 1, 2]]


@simulated
async def test_answers_come_together_where_no_future_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    store, told = Store(), list[list[tuple[int, int | Exception]]]()

    def on_done(batch: list[tuple[int, int | Exception]]) -> None:
        told.append(batch)
        raise ValueError("a bad callback")

    async with Batcher(store.flush, name="b", on_done=on_done) as batcher:
        batcher.put(1)
        future = batcher.submit(2)
        batcher.put(3)
        assert await future == 20
        batcher.put(4)
    assert told == [[(1, 10), (3, 30)], [(4, 40)]]
    assert "b: on_done failed" in caplog.text


@simulated
async def test_closing_drains_also_what_the_answers_put_again() -> None:
    store, told = Store(), list[tuple[int, int | Exception]]()
    batcher: Batcher[int, int]

    def on_done(batch: list[tuple[int, int | Exception]]) -> None:
        told.extend(batch)
        for item, _ in batch:
            if item < 100:
                batcher.put(item + 100)

    batcher = Batcher(store.flush, name="b", max_items=2, on_done=on_done)
    for number in range(3):
        batcher.put(number)
    await batcher.close()
    assert store.batches == [[0, 1], [2, 100], [101, 102]]
    assert len(told) == 6
    with pytest.raises(Unavailable, match="b is closed"):
        batcher.put(9)
    await batcher.close()


@simulated
async def test_closing_without_draining_answers_what_flies_and_what_waits() -> None:
    store, told = Store(), list[tuple[int, int | Exception]]()
    batcher = Batcher(store.flush, name="b", max_items=1, on_done=told.extend)
    ends = [batcher.submit(0), batcher.submit(1)]
    batcher.put(2)
    await settle()
    await batcher.close(drain=False)
    assert [str(end.exception()) for end in ends] == [
        "b: the flush was interrupted; whether it took place is unknown",
        "b is closed; this was not begun",
    ]
    assert [(item, type(answer)) for item, answer in told] == [(2, Unavailable)]
    assert (store.batches, store.running, batcher.waiting) == ([[0]], 0, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@simulated
async def test_an_idle_batcher_closes_at_once() -> None:
    store = Store()
    async with Batcher(store.flush, name="never used"):
        pass
    async with Batcher(store.flush, name="idle", flushers=2) as batcher:
        await batcher.submit(1)
    assert asyncio.get_running_loop().time() == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_bounds_name_field_and_value() -> None:
    with pytest.raises(ValueError, match="batcher b: flushers 0: must be 1 or more"):
        Batcher(Store().flush, name="b", flushers=0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "put", "leave", "pause", "turn"]),
        st.integers(1, 5),  # weight
        st.sampled_from(["fine", "fine", "odd", "raise", "miscount", "cancelled"]),  # how the next flush ends
    ),
    max_size=80,
)


Item = tuple[int, int]  # (number, weight)


class MoodyStore:
    """Each flush ends in the next mood; a good answer is the item's number."""

    def __init__(self, moods: list[str]) -> None:
        self._moods = moods
        self.batches: list[list[Item]] = []
        self.running = 0
        self.running_max = 0

    async def flush(self, items: list[Item]) -> Sequence[int | Exception]:
        mood = self._moods[len(self.batches) % len(self._moods)]
        self.batches.append(items)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await asyncio.sleep(0.3)
        finally:
            self.running -= 1
        if mood == "raise":
            raise ValueError(mood)
        if mood == "cancelled":
            raise asyncio.CancelledError
        answers = [ValueError("odd") if mood == "odd" and number % 2 else number for number, _ in items]
        return answers[1:] if mood == "miscount" else answers


@given(STEPS, st.integers(1, 3), st.integers(1, 6), st.booleans())
def test_every_item_is_answered_exactly_once_in_order(
    steps: list[tuple[str, int, str]], flushers: int, max_items: int, drain: bool
) -> None:
    logging.disable()
    try:
        run(live_through, steps, flushers, max_items, drain=drain)
    finally:
        logging.disable(logging.NOTSET)


async def live_through(
    steps: list[tuple[str, int, str]], flushers: int, max_items: int, *, drain: bool
) -> None:
    store = MoodyStore([mood for _, _, mood in steps])
    told: list[tuple[Item, int | Exception]] = []
    futures: dict[int, asyncio.Future[int]] = {}
    put: list[Item] = []
    batcher = Batcher(
        store.flush, name="b", flushers=flushers, max_items=max_items, capacity=12, on_done=told.extend
    )
    accepted: list[Item] = []
    for number, (step, weight, _) in enumerate(steps):
        item = (number, weight)
        try:
            match step:
                case "submit":
                    futures[number] = batcher.submit(item, weight)
                    accepted.append(item)
                case "put":
                    batcher.put(item, weight)
                    put.append(item)
                    accepted.append(item)
                case "leave" if futures:
                    list(futures.values())[-1].cancel()
                case _:
                    await asyncio.sleep(0.2 if step == "pause" else 0)
        except Overloaded:
            assert batcher.waiting + weight > 12
        assert batcher.waiting <= 12
    await batcher.close(drain=drain)
    assert store.running_max <= flushers
    assert all(len(batch) == 1 or sum(weight for _, weight in batch) <= max_items for batch in store.batches)
    taken = [item for batch in store.batches for item in batch]
    assert taken == accepted[: len(taken)]  # in order, none twice
    assert len(taken) == len(accepted) or not drain
    assert sorted(item for item, _ in told) == put  # each exactly once
    assert all(isinstance(answer, Exception) or answer == item[0] for item, answer in told)
    for number, future in futures.items():
        assert future.cancelled() or future.exception() is not None or future.result() == number
