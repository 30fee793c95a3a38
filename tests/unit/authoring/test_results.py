"""Results: bytes stay bytes, all else is JSON, and what has no exact form is an error an author can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Never

import pytest
from pydantic import BaseModel, ConfigDict, field_serializer

from actors import InvalidInput, ResultNotSerializable
from actors.authoring.exceptions import Fail
from actors.authoring.results import ANY_RESULT, ResultAdapter
from runtime.core.task import Codec


@dataclass
class Page:
    title: str
    raw: bytes = b""


class Model(BaseModel):
    ratio: float | None = None
    extra: Any = None


class Opaque:
    pass


@pytest.mark.parametrize("value", [b"\xff\0", bytearray(b"\xff\0"), memoryview(b"\xff\0")])
@pytest.mark.parametrize("annotation", [bytes, Any, bytes | None])
def test_bytes_are_an_octet_stream(value: Any, annotation: Any) -> None:
    adapter = ResultAdapter[Any](annotation)
    body, codec = adapter.encode(value)
    assert (body, codec) == (b"\xff\0", Codec.BYTES)
    assert adapter.decode(body, codec) == b"\xff\0"


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (None, b"null"),
        (5, b"5"),
        ("é", '"é"'.encode()),
        ([1, None], b"[1,null]"),
        (Page("t", b"\xff"), b'{"title":"t","raw":"_w=="}'),
        ({"page": [Page("t")]}, b'{"page":[{"title":"t","raw":""}]}'),
        (2**63 - 1, b"9223372036854775807"),
        ("NUL is fine in a result: \0", b'"NUL is fine in a result: \\u0000"'),
    ],
)
def test_all_else_is_json(value: Any, body: bytes) -> None:
    assert ANY_RESULT.encode(value) == (body, Codec.JSON)


def test_results_become_their_type_again() -> None:
    pages = ResultAdapter[list[Page]](list[Page], "scrape")
    body, codec = pages.encode([Page("t", b"\xff")])
    assert pages.decode(body, codec) == [Page("t", b"\xff")]
    assert ResultAdapter[None](type(None)).decode(b"null") is None
    assert ResultAdapter[Any](Never).decode(b"5") == 5
    with pytest.raises(
        InvalidInput, match=r"the result of scrape is not a list\[.*Page\]: 0/title: Field required"
    ):
        pages.decode(b'[{"raw":""}]')
    with pytest.raises(InvalidInput, match="the result is not a int: it: Input should be a valid integer"):
        ResultAdapter[int](int).decode(b'"5"')
    with pytest.raises(InvalidInput):
        ResultAdapter[int](int).decode(b"1],[2")


def test_a_field_that_a_newer_handler_added_is_skipped() -> None:
    assert ResultAdapter[Page](Page).decode(b'{"title":"t","added":1}') == Page("t")


def _loop() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize("annotation", [Any, object, dict[str, Any], Model, list[float | None], int])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "it: not a finite number"),
        ({"a": [1.0, float("inf")]}, "a/1: not a finite number"),
        ({"a": {float("nan")}}, "not a finite number"),
        ({"a": None, "model": Model(ratio=float("nan"))}, "model/ratio: not a finite number"),
        ([Model(extra={"x": float("-inf")})], "0/extra/x: not a finite number"),
        (2**63, "9223372036854775808 is outside int64"),
        ({"a": -(2**64)}, "a: -18446744073709551616 is outside int64"),
        (Opaque(), "Opaque has no JSON form"),
        ([None, {"x": Opaque()}], "Opaque has no JSON form"),
        (_loop(), "it contains itself"),
        (["a", "\ud800"], "1: a lone surrogate (U+D800) is not allowed in text"),
        ({"\ud800": 1}, "a lone surrogate"),
    ],
)
def test_what_has_no_exact_form_says_where_and_why(annotation: Any, value: Any, said: str) -> None:
    with pytest.raises(ResultNotSerializable) as refused:
        ResultAdapter[Any](annotation).encode(value)
    assert said in str(refused.value)
    assert f"the result ({type(value).__name__}) cannot be kept as JSON" in str(refused.value)


def test_it_is_final() -> None:
    assert issubclass(ResultNotSerializable, Fail)


def test_a_serializer_that_raises_is_the_authors_error() -> None:
    class Broken(BaseModel):
        @field_serializer("x", check_fields=False)
        def explode(self, value: int) -> int:
            raise RuntimeError("no")

        x: int = 1

    with pytest.raises(ResultNotSerializable, match="RuntimeError: no"):
        ANY_RESULT.encode(Broken())


def test_bytes_in_a_model_follow_the_models_config() -> None:
    class Text(BaseModel):
        data: bytes

    class Binary(Text):
        model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    assert ResultAdapter[Text](Text).encode(Text(data=b"abc"))[0] == b'{"data":"abc"}'
    with pytest.raises(ResultNotSerializable, match="set ser_json_bytes and val_json_bytes='base64'"):
        ResultAdapter[Text](Text).encode(Text(data=b"\xff"))
    adapter = ResultAdapter[Binary](Binary)
    assert adapter.decode(*adapter.encode(Binary(data=b"\xff"))) == Binary(data=b"\xff")


def test_what_does_not_match_the_annotation_is_kept_all_the_same() -> None:
    """The work is done: a wrong annotation must not turn it into a failure. The reader is told."""
    assert ResultAdapter[int](int).encode("five") == (b'"five"', Codec.JSON)
    assert ResultAdapter[Model](Model).encode(Page("t")) == (b'{"title":"t","raw":""}', Codec.JSON)
    assert ResultAdapter[Model](Model).encode({"ratio": 1}) == (b'{"ratio":1}', Codec.JSON)


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ResultNotSerializable):
        ANY_RESULT.encode(deep)
