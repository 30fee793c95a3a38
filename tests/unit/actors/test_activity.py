"""What a node remembers of its work: bounded, and cheap for slow readers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from actors.activity import FAILURES_KEPT, RATE_WINDOW_S, Activity, EventLog, Gap, TaskEvent
from actors.load import Load, read_load
from runtime.core.task import State
from tests.support.factories import new_id

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def publish(log: EventLog, count: int) -> None:
    for _ in range(count):
        log.publish(new_id(), "echo", State.SUCCEEDED, 1)


async def read(events: AsyncIterator[TaskEvent | Gap], count: int) -> list[int | Gap]:
    found = [await anext(events) for _ in range(count)]
    return [each if isinstance(each, Gap) else each.sequence for each in found]


async def test_a_reader_gets_what_comes_and_what_it_asks_for() -> None:
    log = EventLog(lambda: NOW)
    publish(log, 3)
    with log.subscribe() as live, log.subscribe(after=1) as again:
        publish(log, 2)
        assert await read(live, 2) == [4, 5]
        assert await read(again, 4) == [2, 3, 4, 5]
    assert not log.wants_starts


async def test_batches_hold_what_there_is_and_gaps_come_alone() -> None:
    log = EventLog(lambda: NOW, keep=600)
    with log.subscribe_batches(starts=False) as batches:
        assert not log.wants_starts
        publish(log, 550)
        assert [len(await anext(batches)) for _ in range(2)] == [500, 50]
        publish(log, 601)
        assert await anext(batches) == [Gap(1)]
        assert len(await anext(batches)) == 500
        assert log.newest == 1151


async def test_a_slow_reader_finds_a_gap_and_goes_on() -> None:
    log = EventLog(lambda: NOW, keep=3)
    with log.subscribe() as events:
        publish(log, 1)
        assert await read(events, 1) == [1]
        publish(log, 10)
        assert await read(events, 4) == [Gap(7), 9, 10, 11]
        publish(log, 1)
        assert await read(events, 1) == [12]


async def test_a_number_from_an_earlier_start_of_the_node_means_from_now_on() -> None:
    log = EventLog(lambda: NOW)
    publish(log, 2)
    with log.subscribe(after=4711) as events:
        publish(log, 1)
        assert await read(events, 1) == [3]


def test_rates_are_of_whole_seconds_and_bounded() -> None:
    now_s = 1000.0
    activity = Activity(lambda: now_s, lambda: NOW)
    for second in range(3 * RATE_WINDOW_S):
        now_s = 1000.0 + second
        activity.rates.add("succeeded", 2)
        activity.rates.add("succeeded", 3)
    now_s += 1
    assert activity.rates.series("succeeded") == [5] * RATE_WINDOW_S
    assert activity.rates.per_s("succeeded") == 5
    assert activity.rates.per_s("unknown") == 0
    now_s += 5
    assert activity.rates.per_s("succeeded") == 2.5


def test_the_newest_failures_are_kept_and_shortened() -> None:
    activity = Activity(lambda: 0.0, lambda: NOW)
    for number in range(FAILURES_KEPT + 5):
        activity.failed(new_id(), "echo", number, final=True, error_type="E", message="x" * 10_000)
    assert [each.attempt for each in activity.failures] == list(range(5, FAILURES_KEPT + 5))
    assert max(len(each.message) for each in activity.failures) <= 300


def test_percentiles() -> None:
    activity = Activity(lambda: 0.0, lambda: NOW)
    assert activity.latency_percentiles() is None
    for hundredths in range(100):
        activity.latency(hundredths / 100)
    assert activity.latency_percentiles() == {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def test_handlers_are_counted_apart_and_their_run_times_are_the_last() -> None:
    now_s = 1000.0
    activity = Activity(lambda: now_s, lambda: NOW)
    work = activity.handlers
    assert (work.per_s("echo"), work.run_times("echo")) == ((0.0, 0.0), None)
    for second in range(300):
        now_s = 1000.0 + second
        work.succeeded("echo", 4)
        work.took("echo", [second / 100] * 20)
        activity.failed(new_id(), "echo", 1, final=second % 2 == 0, error_type="E", message="")
    now_s += 1
    assert work.per_s("echo") == (4.0, 1.0)
    assert work.run_times("echo") == (2.95, 2.99)
    now_s += 20
    assert work.per_s("echo") == (0.0, 0.0)


def test_what_another_version_tells_of_its_load_is_no_error() -> None:
    for told in (
        {},
        {"running": "x", "limit": None, "rates": [1], "handlers": 3},
        {"handlers": {"a": [1]}, "new": 1},
    ):
        assert read_load(told) == Load()
    told = {"running": 3, "limit": 9, "rates": {"accepted": 2, "x": "y"}, "handlers": {"a": [1, 0.5]}}
    assert read_load(told) == Load(3, 9, {"accepted": 2.0}, {"a": (1.0, 0.5)})
