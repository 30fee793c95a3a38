"""Arguments: what is accepted binds to the same values, and what is not says where and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from actors import Context, InvalidInput, handler, task
from actors.authoring.binding import Binding, binding_of


class Colour(enum.Enum):
    RED = "red"


class Size(TypedDict):
    width: int


class Model(BaseModel):
    name: str
    ratio: float | None = None
    extra: Any = None


@dataclass
class Box:
    size: Size
    lid: bytes | None = None


@handler
def everything(  # type: ignore[no-untyped-def]  # un-annotated on purpose
    ctx: Context,
    when: datetime,
    box: Box,
    model: Model,
    colour: Colour = Colour.RED,
    price: Decimal = Decimal(1),
    raw: bytes = b"",
    ids: frozenset[UUID] = frozenset(),
    days: dict[date, timedelta] | None = None,
    small: Annotated[int, Field(ge=1, le=3)] = 1,
    either: int | list[str] = 0,
    word: Literal["a", "b"] = "a",
    anything=None,  # noqa: ANN001 - un-annotated on purpose
) -> None: ...


@handler
def two(ctx: Context, a: int, b: int = 2) -> None: ...


@handler
def nothing(ctx: Context) -> None: ...


@handler
def free(ctx: Context, value: Any) -> None: ...


FULL: dict[str, Any] = {
    "when": "2026-01-02T03:04:05Z",
    "box": {"size": {"width": 3}, "lid": "_w=="},
    "model": {"name": "n"},
    "colour": "red",
    "price": "1.10",
    "raw": "_-8=",
    "ids": ["00000000-0000-7000-8000-000000000000"],
    "days": {"2026-01-02": "PT1.5S"},
    "small": 2,
    "either": ["x"],
    "word": "b",
    "anything": {"deep": [1, None, 1.5]},
}


def faults(binding: Binding, payload: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refused:
        binding.accept(payload)
    assert len(dict(refused.value.errors)) == len(refused.value.errors)
    return dict(refused.value.errors)


def test_values_are_converted_by_their_annotations() -> None:
    raw, values = binding_of(everything).accept(FULL)
    assert values == {
        "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "box": Box(size={"width": 3}, lid=b"\xff"),
        "model": Model(name="n"),
        "colour": Colour.RED,
        "price": Decimal("1.10"),
        "raw": b"\xff\xef",
        "ids": frozenset({UUID("00000000-0000-7000-8000-000000000000")}),
        "days": {date(2026, 1, 2): timedelta(seconds=1.5)},
        "small": 2,
        "either": ["x"],
        "word": "b",
        "anything": {"deep": [1, None, 1.5]},
    }
    assert binding_of(everything).bind(raw) == values


def test_defaults_stay_the_functions_own() -> None:
    assert binding_of(two).accept({"a": 1}) == (b'{"a":1}', {"a": 1})
    assert binding_of(nothing).accept({}) == (b"{}", {})
    assert binding_of(nothing).bind(b"{}") == {}
    assert binding_of(nothing).bind(b" { } ") == {}


def test_names_that_the_function_does_not_have() -> None:
    assert faults(binding_of(two), {"a": 1, "c": 1, "x/y~": 2}) == {
        "#/payload/c": "is not an argument of two, which takes a, b",
        "#/payload/x~1y~0": "is not an argument of two, which takes a, b",
    }
    assert faults(binding_of(nothing), {"c": 1}) == {
        "#/payload/c": "is not an argument of nothing, which takes none"
    }


@pytest.mark.parametrize(
    ("changed", "pointer", "detail"),
    [
        (
            {"when": "yesterday"},
            "#/payload/when",
            'should be a valid datetime, input is too short; got "yesterday"',
        ),
        ({"box": {"size": {"width": "3"}}}, "#/payload/box/size/width", 'should be a valid integer; got "3"'),
        ({"box": {"size": {}}}, "#/payload/box/size/width", "is required"),
        ({"box": {"size": {"width": 3}, "top": 1}}, "#/payload/box/top", "is not a known field"),
        ({"model": []}, "#/payload/model", "should be an object; got an array"),
        ({"colour": "blue"}, "#/payload/colour", "should be 'red'; got \"blue\""),
        ({"price": True}, "#/payload/price", "got true"),
        ({"raw": "%"}, "#/payload/raw", "base64"),
        ({"ids": ["x"]}, "#/payload/ids/0", "should be a valid UUID"),
        ({"days": {"x": "PT1S"}}, "#/payload/days/x", "should be a valid date"),
        ({"small": 4}, "#/payload/small", "should be less than or equal to 3; got 4"),
        ({"either": [1]}, "#/payload/either/0", "should be a valid string; got 1"),
        ({"word": "c"}, "#/payload/word", "should be 'a' or 'b'; got \"c\""),
    ],
)
def test_a_wrong_value_names_its_place_and_what_is_allowed(
    changed: dict[str, Any], pointer: str, detail: str
) -> None:
    found = faults(binding_of(everything), FULL | changed)
    assert detail in found[pointer]
    assert set(found) <= {pointer, "#/payload/either"}  # a union tells of each of its branches


def test_json_types_are_not_guessed() -> None:
    for wrong in ("1", 1.0, True, None):
        assert "should be a valid integer" in faults(binding_of(two), {"a": wrong})["#/payload/a"]


def test_what_is_missing() -> None:
    assert faults(binding_of(two), {}) == {"#/payload/a": "is required"}


@pytest.mark.parametrize("payload", [[1], "x", 5, None, True])
def test_a_payload_is_an_object(payload: Any) -> None:
    for binding in (binding_of(two), binding_of(nothing)):
        assert "must be an object" in faults(binding, payload)["#/payload"]


NOT_FINITE = "not a finite number"


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        (float("nan"), "", NOT_FINITE),
        ([1, {"x": float("inf")}], "/1/x", NOT_FINITE),
        ({"x": [float("-inf")]}, "/x/0", NOT_FINITE),
        (2**63, "", "outside int64"),
        ({"x": -(2**63) - 1}, "/x", "outside int64"),
        (2**64, "", "outside int64"),
        (10**400, "", "outside int64"),
        ("a\0b", "", "NUL"),
        ({"a\0b": 1}, "/a%00b", "NUL"),
        (["\ud800"], "/0", "lone surrogate"),
    ],
)
def test_what_json_cannot_keep_exactly_is_refused_everywhere(value: Any, pointer: str, detail: str) -> None:
    assert detail in faults(binding_of(free), {"value": value})[f"#/payload/value{pointer}"]
    with pytest.raises(InvalidInput) as refused:
        task(free, value=value)
    assert detail in dict(refused.value.errors)[f"#/payload/value{pointer}"]


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, -(2**63), "NaN", "Infinity", "1" * 30, {"9" * 30: "null"}, [1e308, 5e-324], "\\u0000", None],
)
def test_what_only_looks_inexact_is_kept(value: Any) -> None:
    raw, values = binding_of(free).accept({"value": value})
    assert values == {"value": value}
    assert binding_of(free).bind(raw) == {"value": value}
    assert task(free, value=value).payload == {"value": value}


def test_nan_that_a_model_would_write_as_null_is_refused() -> None:
    for model in (Model(name="x", ratio=float("nan")), Model(name="x", extra=[float("inf")])):
        with pytest.raises(InvalidInput) as refused:
            task(free, value={"models": [model]})
        ((pointer, detail),) = refused.value.errors
        assert pointer.startswith("#/payload/value/models/0/")
        assert NOT_FINITE in detail


def test_what_has_no_json_form_names_the_argument() -> None:
    with pytest.raises(InvalidInput) as refused:
        task(two, a=1, b=object())  # type: ignore[call-overload]  # the point
    assert refused.value.errors == (("#/payload/b", "a value of type object has no JSON form"),)

    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInput) as refused:
        task(free, value=loop)
    assert refused.value.errors == (("#/payload/value", "it contains itself"),)


def test_a_stranger_is_not_taken_for_a_model() -> None:
    """pydantic would write it as the fields that it shares with the model, here none."""

    @handler
    def takes(ctx: Context, model: Model | None = None, more: list[Model] | None = None) -> None: ...

    class Stranger:
        pass

    with pytest.raises(InvalidInput, match="model should be a Model"):
        task(takes, model=Stranger())  # type: ignore[call-overload]  # the point
    assert task(takes, model=Model(name="x")).payload == {
        "model": {"name": "x", "ratio": None, "extra": None}
    }
    assert task(takes, model=None, more=[]).payload == {"model": None, "more": []}


def test_calls_are_assigned_as_python_would() -> None:
    assert task(two, 1, 5).payload == {"a": 1, "b": 5}
    assert task(two, 1, b=5).payload == {"a": 1, "b": 5}
    with pytest.raises(InvalidInput) as refused:
        task(two, 1, 2, 3, a=1, c=1)  # type: ignore[call-arg,misc,arg-type]  # the point
    assert dict(refused.value.errors) == {
        "#/payload": "3 arguments by position; two takes a, b",
        "#/payload/a": "is given twice",
        "#/payload/c": "is not an argument of two, which takes a, b",
    }
    with pytest.raises(InvalidInput, match="a is required"):
        task(two)  # type: ignore[call-overload]  # the point


def test_a_payload_beyond_one_mebibyte() -> None:
    assert task(free, value="x" * (2**20 - 12)).payload
    with pytest.raises(InvalidInput, match="1048577 bytes as JSON; at most 1048576"):
        task(free, value="x" * (2**20 - 11))


def test_at_most_a_hundred_faults_are_listed() -> None:
    @handler
    def many(ctx: Context, xs: list[int]) -> None: ...

    assert list(faults(binding_of(many), {"xs": ["x"] * 150})) == [f"#/payload/xs/{n}" for n in range(100)]
    assert faults(binding_of(many), {"xs": ["x"] * 5000}) == {
        "#/payload": "5000 values are wrong; too many to list"
    }


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a":1}x', b"[1]", b"\xff", b"null"])
def test_bytes_that_are_no_payload(raw: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        binding_of(two).bind(raw)
    ((pointer, _),) = refused.value.errors
    assert pointer == "#/payload"


def test_the_schema_is_json_schema_and_agrees() -> None:
    schema = binding_of(everything).schema
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(FULL)
    assert schema["required"] == ["when", "box", "model"]
    assert schema["properties"]["price"]["default"] == "1"
    assert schema["properties"]["colour"]["default"] == "red"
    assert not validator.is_valid({**FULL, "unknown": 1})
    assert not validator.is_valid({**FULL, "small": 4})
    assert binding_of(nothing).schema["properties"] == {}
