"""Words from the command line as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli import render
from node.cli.parse import AGO, AHEAD, moment, pairs, payload, seconds

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("0.5", 0.5), ("30s", 30), ("500ms", 0.5), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1w", 604800),
     ("1h30m", 5400), ("1.5h", 5400), (" 5M ", 300)],
)  # fmt: skip
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "5 m", "-5", "5y", "5m5", "1e3", "h1", "nan", "inf"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 30s"):
        seconds(text)


@given(st.floats(0, 10**7))
def test_a_shown_duration_is_about_the_right_one(value: float) -> None:
    shown = render.duration(value)
    assert abs(seconds(shown.replace(" ", "")) - value) <= max(0.05 * value, 0.06)


def test_instants() -> None:
    assert moment("2030-01-31T08:00:00Z", NOW) == datetime(2030, 1, 31, 8, tzinfo=UTC)
    assert moment("2030-01-31T08:00+02:00", NOW) == datetime(2030, 1, 31, 6, tzinfo=UTC)
    here = NOW.replace(tzinfo=timezone(timedelta(hours=3)))
    assert moment("2030-01-31T08:00", here).tzinfo is UTC
    with pytest.raises(ValueError, match="is not an instant such as"):
        moment("tomorrow", NOW)


def test_ago_and_ahead() -> None:
    now = datetime.now(UTC)
    assert abs(AGO.convert("2h", None, None) - (now - timedelta(hours=2))) < timedelta(seconds=5)
    assert abs(AHEAD.convert("2h", None, None) - (now + timedelta(hours=2))) < timedelta(seconds=5)
    assert AGO.convert("2030-01-01T00:00:00Z", None, None) == datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(click.BadParameter, match="nor a duration such as 2h"):
        AGO.convert("yesterday", None, None)


def test_pairs(tmp_path: Path) -> None:
    text, data = tmp_path / "letter.txt", tmp_path / "data.json"
    text.write_text("Dear\nAnn")
    data.write_text('{"a": [1]}')
    words = ["url=https://x/?a:=b=c", "n:=200", "big:=9007199254740993", "ok:=true", 'l:=[1,"x"]', "empty=",
             f"body=@{text}", f"d:=@{data}", "mail=a@b"]  # fmt: skip
    assert pairs(words) == {
        "url": "https://x/?a:=b=c", "n": 200, "big": 9007199254740993, "ok": True, "l": [1, "x"], "empty": "",
        "body": "Dear\nAnn", "d": {"a": [1]}, "mail": "a@b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "why"),
    [("plain", "must be key=text"), ("=x", "must be key=text"), ("a b=x", "must be key=text"),
     ("a:=word", "text goes with a single '='"), ("a:={", "is not JSON"), ("a:=NaN", "not a finite number"),
     ("a:=1e999", "not a finite number"), ("a:=9223372036854775808", "outside int64"),
     ("a=@/nowhere", "'/nowhere' cannot be read"), ("a:=@/nowhere", "'/nowhere' cannot be read")],
)  # fmt: skip
def test_what_is_no_pair(word: str, why: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        pairs([word])
    assert why in caught.value.message


def test_a_key_twice() -> None:
    with pytest.raises(click.BadParameter, match="'a' is given twice"):
        pairs(["a=1", "a:=2"])


def test_payload(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"a": 1, "b": 2}')
    assert payload(None, ["x=1"]) == {"x": "1"}
    assert payload('{"a": 1}', []) == {"a": 1}
    assert payload(f"@{file}", ["b:=3"]) == {"a": 1, "b": 3}
    for text, kind in (("[1]", "an array"), ("3", "a number"), ("null", "null"), ("true", "a boolean")):
        with pytest.raises(click.BadParameter, match=f"must be a JSON object, is {kind}"):
            payload(text, [])


@pytest.mark.parametrize(
    ("ahead_s", "shown"),
    [(0, "now"), (-0.4, "now"), (59, "in 59s"), (-59.9, "59s ago"), (90, "in 1m 30s"), (-3600, "1h ago"),
     (-93784, "1d 2h ago")],
)  # fmt: skip
def test_relative_times(ahead_s: float, shown: str) -> None:
    assert render.relative(NOW + timedelta(seconds=ahead_s), NOW) == shown


def test_times_are_absolute_and_relative() -> None:
    shown = render.when(datetime.now(UTC) - timedelta(minutes=5))
    assert shown is not None
    assert shown.endswith("Z (5m ago)")


@pytest.mark.parametrize(
    ("text", "shown"), [("ünï ok\n\ttab", "ünï ok\n\ttab"), ("\x1b[31mred\x07", "\\x1b[31mred\\x07"), ("a\u202eb", "a\\u202eb")]
)  # fmt: skip
def test_what_a_handler_wrote_does_not_steer_the_terminal(text: Any, shown: str) -> None:
    assert render.clean(text) == shown
