"""A payload is judged by the published schema as by the handler's own types."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from actors import Context, InvalidInput, Registry, handler
from actors.authoring.schema import PublishedSchema


@dataclass
class Point:
    x: int
    y: float = 0.0


@handler("draw")
async def draw(
    ctx: Context,
    at: Point,
    label: Annotated[str, Field(min_length=1, max_length=3)],
    colour: Literal["red", "blue"] = "red",
    width: Annotated[int, Field(ge=1, le=9)] = 1,
    path: list[Point] | None = None,
    tags: dict[str, int | str] = {},  # noqa: B006 - never changed
    opaque: bool = True,
) -> None: ...


@handler("moments")
async def moments(
    ctx: Context,
    at: datetime | None = None,
    day: date | None = None,
    clock: time | None = None,
    span: timedelta | None = None,
    number: UUID | None = None,
    raw: bytes | None = None,
) -> None: ...


@handler("checked")
async def checked(ctx: Context, even: Annotated[int, AfterValidator(lambda n: n)]) -> None: ...


REGISTRY = Registry(draw, moments, checked)


def both(name: str, payload: Any) -> tuple[Any, Any]:
    """What the handler's types and what its schema say: bytes, or [(pointer, detail)]."""
    own = REGISTRY.get(name)
    assert own is not None
    told: list[Any] = []
    for accept in (lambda given: own.accept(given)[0], PublishedSchema(name, own.schema).accept):
        try:
            told.append(accept(payload))
        except InvalidInput as refused:
            told.append(sorted(refused.errors))
    return told[0], told[1]


@pytest.mark.parametrize(
    "payload",
    [
        {"at": {"x": 1}, "label": "a"},
        {"label": "ä€", "at": {"y": 2, "x": 1}, "path": [{"x": 1}], "tags": {"a": 1, "b": "c"}},
        {"at": {"x": 1.0}, "label": "a"},  # an integer to the standard, not to Python
        {"at": {"x": True}, "label": "a", "opaque": 1},
        {"at": {"x": "1", "z": 1}, "label": 7},
        {"at": {}, "label": "a"},
        {"at": [1], "label": None},
        {},
        {"at": {"x": 1}, "label": "a", "colour": 5, "color": "red"},
        {"at": {"x": 1}, "label": "a", "path": [{"x": 1}, {"x": "2"}]},
        {"at": {"x": 1}, "label": "a", "path": 3},
        {"at": {"x": 1}, "label": "a", "tags": {"a": None}},
        {"at": {"x": 2**63}, "label": "a"},
        {"at": {"x": 1}, "label": "\0"},
        [1],
    ],
)
def test_types_and_schema_refuse_the_same_at_the_same_places(payload: Any) -> None:
    by_types, by_schema = both("draw", payload)
    if isinstance(by_types, bytes):
        assert by_schema == by_types
    else:
        assert {pointer for pointer, _ in by_schema} == {pointer for pointer, _ in by_types}


@pytest.mark.parametrize(
    ("payload", "faults"),
    [
        ({"at": {"x": 1}}, [("#/payload/label", "is required")]),
        ({"at": {"x": "1"}, "label": "a"}, [("#/payload/at/x", 'should be a valid integer; got "1"')]),
        ({"at": 5, "label": "a"}, [("#/payload/at", "should be an object; got 5")]),
        ({"at": {"x": 1, "q": 1}, "label": "a"}, [("#/payload/at/q", "is not a known field")]),
        (
            {"at": {"x": 1}, "label": "a", "hue": 1},
            [
                (
                    "#/payload/hue",
                    "is not an argument of draw, which takes at, label, colour, width, path, tags, opaque",
                )
            ],
        ),
        (
            {"at": {"x": 1}, "label": "", "width": 10},
            [
                ("#/payload/label", 'should have a length of at least 1; got ""'),
                ("#/payload/width", "should be less than or equal to 9; got 10"),
            ],
        ),
        (
            {"at": {"x": 1}, "label": "a", "colour": "green"},
            [("#/payload/colour", 'should be one of "red", "blue"; got "green"')],
        ),
        (
            {"at": {"x": 1}, "label": "a", "path": [{"x": 1}, {}]},
            [("#/payload/path/1/x", "is required")],
        ),
        (
            {"at": {"x": 1}, "label": "a", "tags": {"a/b": None}},
            [
                ("#/payload/tags/a~1b", "should be a valid integer; got null"),
                ("#/payload/tags/a~1b", "should be a valid string; got null"),
            ],
        ),
    ],
)
def test_faults_are_told_with_place_value_and_what_is_allowed(
    payload: Any, faults: list[tuple[str, str]]
) -> None:
    assert both("draw", payload)[1] == faults


TEXTS = st.one_of(
    st.sampled_from(
        ["", "x", "2026-02-30", "2026-02-03", "12:00", "12:00:00Z", "PT1S", "P1D", "1", "AA==", "A", "-_8="]
    ),
    st.datetimes().map(datetime.isoformat),
    st.dates().map(date.isoformat),
    st.times().map(time.isoformat),
    st.uuids().map(str),
    st.uuids().map(lambda one: one.hex),
    st.binary(max_size=8).map(lambda raw: base64.b64encode(raw).decode()),
    st.text(max_size=5),
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["at", "day", "clock", "span", "number", "raw"]), VALUES, max_size=3))
def test_text_that_becomes_a_value_is_read_by_the_same_readers(payload: dict[str, Any]) -> None:
    by_types, by_schema = both("moments", payload)
    if isinstance(by_types, bytes):
        assert by_schema == by_types
    else:
        assert {pointer for pointer, _ in by_schema} == {pointer for pointer, _ in by_types}


ANYTHING = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "z"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
POINT = st.fixed_dictionaries({"x": st.integers(0, 9)}, optional={"y": VALUES})
ARGUMENTS = st.fixed_dictionaries(
    {"at": POINT, "label": st.sampled_from(["a", "abc"]) | ANYTHING},
    optional={
        "path": st.lists(POINT, max_size=2) | ANYTHING,
        "tags": st.dictionaries(st.text(max_size=2), st.integers(0, 9) | st.text(max_size=2)) | ANYTHING,
        "width": st.integers(0, 10),
        "opaque": VALUES,
    },
)


@settings(max_examples=150, deadline=None)
@given(ARGUMENTS)
def test_any_payload_is_judged_alike(payload: dict[str, Any]) -> None:
    by_types, by_schema = both("draw", payload)
    assert isinstance(by_types, bytes) == isinstance(by_schema, bytes), (by_types, by_schema)


@pytest.mark.parametrize("payload", [{"even": 2}, {"even": 3}])
def test_what_only_code_can_tell_passes(payload: Any) -> None:
    assert isinstance(both("checked", payload)[1], bytes)


def test_a_hundred_faults_are_told_and_no_more() -> None:
    payload = {"at": {"x": 1}, "label": "a", "path": [{}] * 250}
    with pytest.raises(InvalidInput) as refused:
        PublishedSchema("draw", REGISTRY.get("draw").schema).accept(payload)  # type: ignore[union-attr]  # it is there
    assert len(refused.value.errors) == 100


def test_a_payload_deeper_than_python_can_check_is_refused_in_words() -> None:
    tree: dict[str, Any] = {
        "$defs": {"T": {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}}}},
        "$ref": "#/$defs/T",
    }
    payload: dict[str, Any] = {}
    for _ in range(250):
        payload = {"t": payload}
    with pytest.raises(InvalidInput, match="nested too deeply to be checked by a node without grow"):
        PublishedSchema("grow", tree).accept(payload)
