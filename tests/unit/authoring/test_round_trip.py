"""What task() encodes binds equal, and what a handler returns decodes equal, for every type that we promise."""

from __future__ import annotations

import enum
import json
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NotRequired

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypedDict

from actors import Context, InvalidInput, handler, task
from actors.authoring.binding import binding_of
from actors.authoring.exceptions import ResultNotSerializable
from actors.authoring.results import ResultAdapter
from runtime.core.canonical import check_numbers, find_nul, read_json
from runtime.core.task import Codec


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Place(NamedTuple):
    x: int
    name: str


class Movie(TypedDict):
    title: str
    data: NotRequired[bytes]


class Order(BaseModel):
    amount: Decimal
    lines: list[Movie] | None = None


@dataclass(frozen=True)
class Leaf:
    raw: bytes | None
    when: datetime


@dataclass(frozen=True)
class Tree:
    name: str
    leaves: tuple[Leaf, ...] = ()
    left: Tree | None = None


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
ints = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
zones = st.just(UTC) | st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# ISO 8601 has no seconds in an offset, and an instant near the ends of the calendar has no UTC form
instants = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones) | st.datetimes()  # noqa: DTZ001 - bounds
decimals = st.decimals(allow_nan=False, allow_infinity=False)
spans = st.timedeltas(timedelta(days=-99_999), timedelta(days=99_999))
movies = st.fixed_dictionaries({"title": texts}, optional={"data": st.binary(max_size=8)})
named = st.fixed_dictionaries({"title": texts})  # a model's own config says how its bytes are written
leaves = st.builds(Leaf, st.none() | st.binary(max_size=8), instants)
trees = st.recursive(
    st.builds(Tree, texts), lambda inner: st.builds(Tree, texts, st.tuples(leaves), inner), max_leaves=3
)
plain = st.recursive(
    st.none() | st.booleans() | ints | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)

TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": (int, ints),
    "float": (float, floats),
    "bool": (bool, st.booleans()),
    "str": (str, texts),
    "none": (type(None), st.none()),
    "bytes in a list": (list[bytes], st.lists(st.binary(max_size=8))),
    "optional bytes": (dict[str, bytes | None], st.dictionaries(texts, st.none() | st.binary(max_size=8))),
    "decimal": (Decimal, decimals),
    "uuid": (uuid.UUID, st.uuids()),
    "datetime": (datetime, instants),
    "date": (date, st.dates()),
    "time": (time, st.times()),
    "timedelta": (timedelta, spans),
    "enum": (Colour, st.sampled_from(Colour)),
    "literal": (Literal["a", 1], st.sampled_from(["a", 1])),
    "named tuple": (Place, st.builds(Place, ints, texts)),
    "typed dict": (Movie, movies),
    "dataclass": (Tree, trees),
    "models": (list[Order], st.lists(st.builds(Order, amount=decimals), max_size=3)),
    "model": (Order, st.builds(Order, amount=decimals, lines=st.none() | st.lists(named))),
    "list": (list[int], st.lists(ints)),
    "tuple": (tuple[int, str], st.tuples(ints, texts)),
    "set": (set[int], st.sets(ints)),
    "frozenset": (frozenset[str], st.frozensets(texts)),
    "dict by int": (dict[int, float], st.dictionaries(ints, floats)),
    "dict by uuid": (
        dict[uuid.UUID, list[Leaf]],
        st.dictionaries(st.uuids(), st.lists(leaves, max_size=2), max_size=2),
    ),
    "dict by date": (dict[date, str], st.dictionaries(st.dates(), texts)),
    "union": (int | str | None, ints | texts | st.none()),
    "any": (Any, plain),
}


def handler_of(annotation: Any) -> Callable[[Context, Any], Any]:
    def fn(ctx: Context, value: Any, more: Any = None) -> Any: ...

    fn.__annotations__ |= {"value": annotation, "more": annotation, "return": annotation}
    return handler(fn)


@pytest.mark.parametrize("name", TYPES)
def test_arguments_and_results_come_back_equal(name: str) -> None:
    annotation, values = TYPES[name]
    fn = handler_of(annotation)
    binding = binding_of(fn)

    @settings(max_examples=60, deadline=None)
    @given(values)
    def round_trip(value: Any) -> None:
        made = task(fn, value)
        raw = orjson.dumps(made.payload)
        assert binding.bind(raw) == {"value": value}
        assert binding.accept(made.payload)[1] == {"value": value}
        body, codec = binding.result.encode(value)
        assert made.decode_result(body, codec) == value
        assert type(made.decode_result(body, codec)) is type(value)

    round_trip()


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    )
)
def test_any_json_like_value_is_kept_exactly_or_refused(value: Any) -> None:
    """The reference is a plain walk over the value, without looks at bytes."""
    binding = binding_of(handler_of(Any))
    fine = not check_numbers(value) and not find_nul(value)
    try:
        raw, values = binding.accept({"value": value})
    except InvalidInput:
        assert not fine
    else:
        assert fine
        assert values == {"value": value}
        assert orjson.loads(raw) == {"value": value}


@settings(max_examples=300, deadline=None)
@given(plain)
def test_what_was_read_exactly_is_kept_the_short_way_too(value: Any) -> None:
    binding = binding_of(handler_of(Any))
    payload = read_json(json.dumps({"value": value}).encode())
    raw, values = binding.accept(payload, exact=True)
    assert values == binding.accept(payload)[1] == {"value": value}
    assert orjson.loads(raw) == {"value": value}


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=4), lambda x: st.lists(x, max_size=4)
    )
)
def test_any_result_is_kept_exactly_or_refused(value: Any) -> None:
    adapter = ResultAdapter[Any](Any)
    fine = not check_numbers(value) and not any("surrogate" in detail for _, detail in find_nul(value))
    try:
        body, codec = adapter.encode(value)
    except ResultNotSerializable:
        assert not fine
    else:
        assert fine
        assert codec is Codec.JSON
        assert orjson.loads(body) == value


def test_negative_zero_and_long_floats_survive() -> None:
    binding = binding_of(handler_of(float))
    for value in (-0.0, 0.1 + 0.2, 1e22, 1.7976931348623157e308):
        raw, values = binding.accept({"value": value})
        assert math.copysign(1, values["value"]) == math.copysign(1, value)
        assert binding.bind(raw)["value"].hex() == value.hex()
