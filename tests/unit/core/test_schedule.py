"""Fire times: against a reference that looks at every minute, over changes of clocks, and what is done about missed ones."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.schedule import (
    MISSED_AFTER_S,
    CatchUp,
    Cron,
    Every,
    Overlap,
    Schedule,
    ScheduleSpec,
    fire_key,
    plan,
)

if TYPE_CHECKING:
    from runtime.core.schedule import Rule

BERLIN = ZoneInfo("Europe/Berlin")  # 2026: forward on 29 March at 2:00, back on 25 October at 3:00
ZONES = [
    BERLIN,
    ZoneInfo("America/New_York"),
    ZoneInfo("Asia/Beirut"),  # forward at midnight
    ZoneInfo("Australia/Lord_Howe"),  # by half an hour
    ZoneInfo("Asia/Kathmandu"),
    ZoneInfo("UTC"),
]
CHANGES = [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC),
           datetime(2026, 4, 5, tzinfo=UTC), datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)]  # fmt: skip
MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def local(rule: Rule, start: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    return [f"{one.astimezone(zone):%d %H:%M %z}" for one in islice(rule.after(at(start)), count)]


# -- changes of clocks -------------------------------------------------------------------------------


def test_a_time_that_does_not_exist_fires_at_the_change() -> None:
    found = local(Cron("30 2 * * *", BERLIN), "2026-03-28T00:00Z", 3)
    assert found == ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]


def test_times_that_do_not_exist_fire_once_together() -> None:
    found = local(Cron("*/20 1-3 * * *", BERLIN), "2026-03-29T00:30Z", 4)
    assert found == ["29 01:40 +0100", "29 03:00 +0200", "29 03:20 +0200", "29 03:40 +0200"]


def test_a_time_that_exists_twice_fires_once() -> None:
    found = local(Cron("30 2 * * *", BERLIN), "2026-10-24T00:00Z", 3)
    assert found == ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]
    assert local(Cron("*/15 30 2 * * *", BERLIN), "2026-10-25T00:30:40Z", 2) == [
        "25 02:30 +0200",
        "26 02:30 +0100",
    ]


def test_a_rule_for_every_hour_never_pauses() -> None:
    found = local(Cron("*/30 * * * *", BERLIN), "2026-10-25T00:00Z", 5)
    assert found == ["25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "25 03:00 +0100", "25 03:30 +0100"]
    for change in ("2026-03-29T00:00Z", "2026-10-25T00:00Z"):
        fires = list(islice(Cron("*/5 * * * *", BERLIN).after(at(change)), 40))
        assert {later - one for one, later in pairwise(fires)} == {5 * MINUTE}


def test_midnight_that_does_not_exist() -> None:
    found = local(Cron("0 0 * * *", ZoneInfo("Asia/Beirut")), "2026-03-28T00:00Z", 2, ZoneInfo("Asia/Beirut"))
    assert found == ["29 01:00 +0300", "30 00:00 +0300"]


def test_an_interval_is_elapsed_time() -> None:
    origin = at("2026-10-24T12:00Z")
    every = Every(86_400.0, origin)
    assert list(islice(every.after(origin), 2)) == [origin + timedelta(days=1), origin + timedelta(days=2)]
    assert next(every.after(origin - timedelta(seconds=1))) == origin
    assert next(every.before(origin)) == origin - timedelta(days=1)
    assert next(every.before(origin + timedelta(seconds=1))) == origin


# -- against a dumb reference ------------------------------------------------------------------------


@st.composite
def crons(draw: st.DrawFn) -> tuple[str, set[int], set[int]]:
    """(expression, minutes, hours): every day."""
    minutes = draw(st.sampled_from([{0}, {30}, {0, 30}, set(range(0, 60, 7)), set(range(60)), {1, 2, 59}]))
    hours = draw(
        st.sampled_from([set(range(24)), {0}, {2}, {1, 2, 3}, {0, 3}, set(range(0, 24, 2)), {23}])
        | st.sets(st.integers(0, 23), min_size=1, max_size=4)
    )
    text = f"{','.join(map(str, sorted(minutes)))} {','.join(map(str, sorted(hours)))} * * *"
    return text, minutes, hours


def dumb(
    minutes: set[int], hours: set[int], zone: ZoneInfo, start: datetime, end: datetime
) -> list[datetime]:
    """Every minute of UTC in turn: what the clocks show, and which times they have just left out."""
    fires = []
    instant = start - timedelta(days=1)
    shown: set[datetime] = set()
    before = (instant - MINUTE).astimezone(zone).replace(tzinfo=None)
    while instant < end:
        wall = instant.astimezone(zone).replace(tzinfo=None)
        if len(hours) == 24:
            fires += [instant] if wall.minute in minutes else []
        else:
            passed = [before + MINUTE * n for n in range(1, max(1, (wall - before) // MINUTE) + 1)]
            fresh = [one for one in passed if one <= wall] or [wall]
            if any(one.minute in minutes and one.hour in hours and one not in shown for one in fresh):
                fires.append(instant)
            shown.update(fresh)
        before = wall
        instant += MINUTE
    return [one for one in fires if start < one < end]


@settings(max_examples=40, deadline=None)
@given(
    cron=crons(),
    zone=st.sampled_from(ZONES),
    change=st.sampled_from(CHANGES),
    minutes_before=st.integers(0, 24 * 60),
)
def test_both_ways_agree_with_every_minute(
    cron: tuple[str, set[int], set[int]], zone: ZoneInfo, change: datetime, minutes_before: int
) -> None:
    text, minutes, hours = cron
    start = change - minutes_before * MINUTE
    end = start + timedelta(days=2)
    rule = Cron(text, zone)
    expected = dumb(minutes, hours, zone, start, end)
    forward = []
    for one in rule.after(start):
        if one >= end:
            break
        forward.append(one)
    assert forward == expected
    backward = []
    for one in rule.before(end):
        if one <= start:
            break
        backward.append(one)
    assert backward[::-1] == expected


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    change=st.sampled_from(CHANGES),
    offset_s=st.integers(-86_400, 86_400),
    micro=st.integers(0, 999_999),
    text=st.sampled_from(["*/7 * * * * *", "0 */10 * * * *", "15,45 59 0-4 * * *", "* * 2 * * *"]),
)
def test_both_ways_are_strict_and_meet(
    zone: ZoneInfo, change: datetime, offset_s: int, micro: int, text: str
) -> None:
    rule = Cron(text, zone)
    instant = change + timedelta(seconds=offset_s, microseconds=micro)
    after, before = next(rule.after(instant)), next(rule.before(instant))
    assert before < instant < after
    assert next(rule.after(before)) in {instant, after} or not micro
    assert next(rule.before(after)) <= instant
    if micro:
        assert (next(rule.after(before)), next(rule.before(after))) == (after, before)


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("61 * * * *", "bad minute"),
        ("* * * *", "wrong number of fields"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("", "wrong number of fields"),
        ("* " * 200, "at most 255"),
        ("a * * * *", "bad minute"),
    ],
)
def test_wrong_expressions_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Cron(text, BERLIN)


@settings(max_examples=150, deadline=None)
@given(text=st.text("0123456789*/-,LW#@ MON", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_rule_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        Cron(text, BERLIN)


def test_a_rule_that_never_fires_ends() -> None:
    assert list(Cron("0 0 */20 2 1L", BERLIN).after(at("2026-01-01T00:00Z"))) == []


# -- what is done about missed ones ------------------------------------------------------------------

NOW = at("2026-06-01T12:00:00Z")


def schedule(next_fire_at: datetime, unended: int = 0, **fields: Any) -> Schedule:
    fields.setdefault("cron", "0 * * * *")
    spec = ScheduleSpec(name="s", task=b"{}", **fields)
    return Schedule(
        spec=spec, revision=1, created_at=NOW, changed_at=NOW, next_fire_at=next_fire_at,
        unended=tuple(uuid4() for _ in range(unended)),
    )  # fmt: skip


def planned(late_s: float = 0.0, since_h: int = 0, **fields: Any) -> tuple[list[int], int, int]:
    """(hours of fires, missed, skipped) at 12:00 plus `late_s`, first due `since_h` hours before."""
    one = schedule(NOW - timedelta(hours=since_h), **fields)
    rule = Cron("0 * * * *", ZoneInfo("UTC"))
    found = plan(one, rule, NOW + timedelta(seconds=late_s))
    assert found.next_fire_at == NOW + timedelta(hours=1)
    return [fire.hour for fire in found.fires], found.missed, found.skipped


def test_on_time_it_fires_whatever_the_policy() -> None:
    for catch_up in CatchUp:
        assert planned(0.0, catch_up=catch_up) == ([12], 0, 0)
        assert planned(MISSED_AFTER_S, catch_up=catch_up) == ([12], 0, 0)


def test_missed_ones_by_policy() -> None:
    assert planned(60, 3, catch_up=CatchUp.SKIP) == ([], 4, 0)
    assert planned(60, 3, catch_up=CatchUp.LAST) == ([12], 3, 0)
    assert planned(60, 3, catch_up=CatchUp.ALL) == ([9, 10, 11, 12], 0, 0)
    assert planned(60, 3, catch_up=CatchUp.ALL, catch_up_max=2) == ([11, 12], 2, 0)
    assert planned(1, 3, catch_up=CatchUp.SKIP) == ([12], 3, 0)
    assert planned(1, 3, catch_up=CatchUp.LAST) == ([12], 3, 0)
    assert planned(1, 3, catch_up=CatchUp.ALL, catch_up_max=2) == ([10, 11, 12], 1, 0)


def test_overlap_by_policy() -> None:
    assert planned(overlap=Overlap.ALLOW, unended=1) == ([12], 0, 0)
    assert planned(overlap=Overlap.SKIP, unended=1) == ([], 0, 1)
    assert planned(overlap=Overlap.SKIP) == ([12], 0, 0)
    assert planned(overlap=Overlap.CANCEL_OLD, unended=1) == ([12], 0, 0)
    for overlap in (Overlap.SKIP, Overlap.CANCEL_OLD):
        assert planned(60, 3, catch_up=CatchUp.ALL, overlap=overlap) == ([12], 0, 3)


def test_a_fire_time_off_the_rule_counts_too() -> None:
    """Of a rule that was read by an older time zone database."""
    one = schedule(NOW - timedelta(minutes=5), catch_up=CatchUp.ALL)
    assert plan(one, Cron("0 * * * *", BERLIN), NOW).fires == (NOW - timedelta(minutes=5), NOW)


def test_a_long_absence_of_a_quick_rule_is_bounded() -> None:
    one = schedule(NOW - timedelta(days=365), cron="* * * * * *", catch_up=CatchUp.ALL, catch_up_max=1000)
    found = plan(one, Cron("* * * * * *", ZoneInfo("UTC")), NOW)
    assert found.fires[-1] == NOW
    assert len(found.fires) == 1_011
    assert found.next_fire_at == NOW + timedelta(seconds=1)


def test_keys_tell_instants_apart() -> None:
    assert fire_key("s", NOW) == "schedule:s:2026-06-01T12:00:00.000000Z"
    assert fire_key("s", NOW.astimezone(BERLIN)) == fire_key("s", NOW)
    assert len(fire_key("s" * 200, NOW)) < 255
