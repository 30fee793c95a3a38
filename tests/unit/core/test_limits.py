"""GCRA against two dumb references: a token bucket, and a count of every window."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.limits import (
    KEYS_MAX,
    Limit,
    LimitedTake,
    Per,
    Rate,
    Seen,
    after_starts,
    afters,
    limiter_id,
    room,
    soonest_s,
    wait_s,
)

rates = st.builds(Rate, st.integers(1, 500), st.sampled_from([0.5, 1.0, 7.0, 60.0]), st.integers(1, 50))
steps = st.lists(st.tuples(st.floats(0, 3), st.integers(0, 60)), min_size=1, max_size=60)


@given(rates, steps)
def test_it_is_a_bucket_of_tokens(rate: Rate, asked: list[tuple[float, int]]) -> None:
    tokens, now_s, tat_s = float(rate.burst), 1e9, 0.0
    for later_s, wanted in asked:
        now_s += later_s
        tokens = min(float(rate.burst), tokens + later_s / rate.interval_s)
        free = room(rate, tat_s, now_s)
        assert tokens - 1 - 1e-3 <= free <= tokens + 1e-3
        starts = min(wanted, free)
        tokens -= starts
        tat_s = after_starts(rate, tat_s, now_s, starts)


@given(rates, steps, st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=60))
def test_no_window_has_more_than_burst_and_rate_whatever_the_clocks_say(
    rate: Rate, asked: list[tuple[float, int]], skews: list[float]
) -> None:
    """Whoever asks reads a clock of its own, and starts are dated by it."""
    true_s, tat_s = 1e9, 0.0
    starts: list[float] = []
    for (later_s, wanted), skew_s in zip(asked, skews * len(asked), strict=False):
        true_s += later_s
        now_s = true_s + skew_s
        count = min(wanted, room(rate, tat_s, now_s))
        tat_s = after_starts(rate, tat_s, now_s, count)
        starts += [now_s] * count
    starts.sort()
    for first, begin_s in enumerate(starts):
        for last, end_s in enumerate(starts[first:], start=first):
            allowed = rate.burst + (end_s - begin_s) / rate.interval_s
            assert last - first + 1 <= allowed + 1e-3


@given(rates, st.floats(0, 100))
def test_after_the_wait_there_is_room_and_not_before(rate: Rate, ahead_s: float) -> None:
    now_s = 1000.0
    tat_s = now_s + ahead_s
    wait = wait_s(rate, tat_s, now_s)
    assert room(rate, tat_s, now_s + wait + 1e-6) >= 1
    if wait > 1e-3 * rate.interval_s + 1e-6:
        assert room(rate, tat_s, now_s + wait - 1e-3 * rate.interval_s - 1e-6) == 0


@given(rates)
def test_whoever_waits_as_told_uses_all_of_the_rate(rate: Rate) -> None:
    now_s, tat_s, starts = 0.0, 0.0, []
    while len(starts) < 3 * rate.burst + 10:
        now_s += wait_s(rate, tat_s, now_s)
        count = max(1, room(rate, tat_s, now_s))  # rounding of binary fractions
        tat_s = after_starts(rate, tat_s, now_s, count)
        starts += [now_s] * count
    assert starts[: rate.burst] == [0.0] * rate.burst
    gaps = [later - sooner for sooner, later in pairwise(starts[rate.burst - 1 :])]
    assert max(gaps) == pytest.approx(rate.interval_s, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "burst", "shown"),
    [("100/s", 21, "100/s"), ("5/min", 1, "5/min"), ("10/30s", 1, "10/30s"), ("1000/h", 1, "1000/h"), ("9/60s", 1, "9/min")],
)  # fmt: skip
def test_a_rate_as_people_write_it(text: str, burst: int, shown: str) -> None:
    rate = Rate.parse(text)
    assert (rate.burst, str(rate)) == (burst, shown)
    assert Rate.parse(text, 7).burst == 7


def test_a_limit_in_words() -> None:
    assert str(Limit(Rate.parse("100/s", 20), 5)) == "100/s with bursts of 20 and 5 running at once"
    assert str(Limit(max_running=5, per=Per.TENANT)) == "5 running at once for each tenant"


def test_what_counts_together() -> None:
    assert limiter_id("h", Per.HANDLER, "a") == limiter_id("h", Per.HANDLER, "b", "k")
    assert limiter_id("h", Per.TENANT, "a") != limiter_id("h", Per.TENANT, "b")
    assert limiter_id("h", Per.KEY, "a", "k") not in {
        limiter_id("h", Per.KEY, "b", "k"), limiter_id("h", Per.KEY, "a", "l"), limiter_id("g", Per.KEY, "a", "k"),
    }  # fmt: skip


def seen(number: int = 1, **fields: object) -> Seen:
    values = {"band": 1, "by_key": True, "rate_room": 0, "running_room": None, "wait_s": 2.0} | fields
    return Seen(limiter=limiter_id("h", Per.KEY, "t", str(number)), **values)  # type: ignore[arg-type]


def test_only_what_waits_for_time_alone_says_when_to_look_again() -> None:
    assert soonest_s([seen(wait_s=2.0), seen(wait_s=1.0)]) == 1.0
    assert soonest_s([seen(running_room=0), seen(rate_room=None, running_room=0), seen(is_due=False)]) is None
    assert [seen(rate_room=1).is_open, seen(rate_room=1, running_room=0).is_open] == [True, False]
    assert not seen(rate_room=1, is_due=False).is_open


def test_a_full_page_of_keys_is_gone_on_from() -> None:
    keys = [seen(number) for number in range(KEYS_MAX)]
    takes = [LimitedTake(1), LimitedTake(2)]
    last = max((one.limiter for one in keys), key=lambda each: each.int)
    assert afters(takes, keys) == {1: last, 2: LimitedTake(2).after}
    assert afters(takes, keys[1:]) == {1: LimitedTake(1).after, 2: LimitedTake(2).after}
