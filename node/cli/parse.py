"""Words from the command line as values: durations, instants, key=value arguments. Raises click.BadParameter."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_PAIR = re.compile(r"([^=:\s]+)(:?=)(.*)", re.DOTALL)


def seconds(text: str) -> float:
    """30, 30s, 500ms, 5m, 2h, 1d, 1h30m -> seconds. Raises ValueError saying what is allowed."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    raise ValueError(f"{text!r} is not a duration such as 30s, 500ms, 5m, 2h, 1d or 1h30m")


def moment(text: str, now: datetime) -> datetime:
    """An RFC 3339 instant (local time where no zone is given). Raises ValueError saying what is allowed."""
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"{text!r} is not an instant such as 2030-01-31T08:00 or 2030-01-31T08:00:00Z"
        ) from None
    return (value if value.tzinfo else value.replace(tzinfo=now.astimezone().tzinfo)).astimezone(UTC)


class Duration(click.ParamType[Any]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return seconds(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Moment(click.ParamType[Any]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return moment(value, datetime.now(UTC))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Ago(click.ParamType[Any]):
    """An instant, said as one or as how long ago (2h)."""

    name = "duration|time"
    sign = -1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        now = datetime.now(UTC)
        with suppress(ValueError):
            return now + timedelta(seconds=self.sign * seconds(value))
        try:
            return moment(value, now)
        except ValueError as exc:
            self.fail(f"{exc}, nor a duration such as 2h", param, ctx)


class Ahead(Ago):
    """An instant, said as one or as how long from now (2h)."""

    sign = 1


DURATION, MOMENT, AGO, AHEAD = Duration(), Moment(), Ago(), Ahead()


def pairs(words: Iterable[str]) -> dict[str, Any]:
    """key=text, key:=json, key=@file (its text), key:=@file (its JSON); every key once."""
    values: dict[str, Any] = {}
    for word in words:
        match = _PAIR.fullmatch(word)
        if match is None:
            raise click.BadParameter(f"{word!r}: must be key=text, key:=json, key=@file or key:=@file")
        key, sign, text = match.groups()
        if key in values:
            raise click.BadParameter(f"{key!r} is given twice")
        if text.startswith("@"):
            text = read_text(text[1:], key)
        values[key] = text if sign == "=" else read_json(text, key)
    return values


def payload(text: str | None, words: Iterable[str]) -> dict[str, Any]:
    """The arguments of a task: a JSON object (or @file, or @- for stdin), then key=value words on top."""
    base: Any = {}
    if text is not None:
        base = read_json(read_text(text[1:], "--payload") if text.startswith("@") else text, "--payload")
        if not isinstance(base, dict):
            raise click.BadParameter(f"--payload: must be a JSON object, is {_json_kind(base)}")
    return {**base, **pairs(words)}


def read_text(path: str, what: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise click.BadParameter(f"{what}: {path!r} cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise click.BadParameter(f"{what}: {path!r} is not UTF-8 text") from exc


def read_json(text: str, what: str) -> Any:
    from runtime.core import canonical  # noqa: PLC0415 - not needed for --help
    from runtime.errors import InvalidInput  # noqa: PLC0415 - not needed for --help

    try:
        return canonical.read_json(text.encode("utf-8", "surrogatepass"))
    except InvalidInput as exc:
        _bad_json(what, text, "; ".join(f"{pointer}: {detail}" for pointer, detail in exc.errors))
    except ValueError as exc:
        _bad_json(what, text, str(exc))


def _bad_json(what: str, text: str, why: str) -> NoReturn:
    shown = text if len(text) <= 60 else text[:57] + "…"
    hint = "; text goes with a single '=', as in name=Ann" if re.fullmatch(r"[A-Za-z][\w .-]*", text) else ""
    raise click.BadParameter(f"{what}: {shown!r} is not JSON ({why}){hint}")


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    return {list: "an array", str: "a string", bool: "a boolean"}.get(type(value), "a number")
