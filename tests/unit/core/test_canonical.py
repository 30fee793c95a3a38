from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.core.canonical import (
    NESTING_MAX,
    canonical,
    check_numbers,
    digest,
    find_nul,
    pointer_to,
    read_json,
)
from runtime.errors import InvalidInput

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
CLEAN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
ANY_TEXT = st.text(st.sampled_from('ab/~ %é🦆\0\ud800\udbff"\\'), max_size=4)  # high ones only, so no pairs
CLEAN_LEAF = (
    st.none()
    | st.booleans()
    | st.integers(INT64_MIN, INT64_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | CLEAN_TEXT
)
ANY_LEAF = CLEAN_LEAF | st.integers() | st.sampled_from([2**63, -(2**63) - 1, 2**64]) | st.floats() | ANY_TEXT


def nested(leaf: st.SearchStrategy[Any], key: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(key, inner, max_size=4),
        max_leaves=12,
    )


CLEAN = nested(CLEAN_LEAF, CLEAN_TEXT)
ANY = nested(ANY_LEAF, ANY_TEXT)


def same(a: Any, b: Any) -> bool:
    """Equal, also in type and in the sign of zero."""
    return repr(a) == repr(b)


def resolve(pointer: str, value: Any) -> tuple[Any, Any]:
    """(last token, value) that a pointer names: RFC 6901 read literally."""
    assert pointer[0] == "#"
    last: Any = None
    for raw in pointer[1:].split("/")[1:]:
        last = unquote(raw, errors="surrogatepass").replace("~1", "/").replace("~0", "~")
        value = value[int(last)] if isinstance(value, list) else value[last]
    return last, value


def bad_numbers(value: Any) -> int:
    """The dumb reference."""
    if isinstance(value, dict):
        return sum(map(bad_numbers, value.values()))
    if isinstance(value, list):
        return sum(map(bad_numbers, value))
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def bad_texts(value: Any) -> int:
    if isinstance(value, dict):
        return sum(bad_texts(k) + bad_texts(v) for k, v in value.items())
    if isinstance(value, list):
        return sum(map(bad_texts, value))
    return isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)


# -- canonical form and digest ----------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(CLEAN)
def test_canonical_bytes_keep_the_value_and_forget_the_order(value: Any) -> None:
    assert same(sort(json.loads(canonical(value))), sort(value))
    assert canonical(shuffle(value)) == canonical(value)


def sort(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: sort(v) for k, v in sorted(value.items())}
    return [sort(v) for v in value] if isinstance(value, list) else value


def shuffle(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: shuffle(v) for k, v in reversed(value.items())}
    return [shuffle(v) for v in value] if isinstance(value, list) else value


def test_the_canonical_form_does_not_change() -> None:
    # stored digests depend on it
    request = {"z": [1, 1.0, -0.0, 1e16, 1e-7, 0.1, True, None], "é": "🦆\n", "Z": {}, "a": {"y": 1, "x": 2}}
    assert canonical(request) == (
        '{"Z":{},"a":{"x":2,"y":1},"z":[1,1.0,-0.0,1e+16,1e-07,0.1,true,null],"é":"🦆\\n"}'.encode()
    )


def test_the_digest_leaves_out_key_and_metadata_and_nothing_else() -> None:
    request = {"handler": "scrape", "payload": {"metadata": 1, "idempotency_key": 2}}
    expected = sha256(b'{"handler":"scrape","payload":{"idempotency_key":2,"metadata":1}}').digest()
    assert digest(request) == expected
    assert digest({"metadata": {"a": 1}, **request, "idempotency_key": "k"}) == expected
    assert (
        digest({**request, "priority": "medium"}) != expected
    )  # a default that was sent is part of the request


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError):
        canonical({"a": object()})
    with pytest.raises(ValueError):
        canonical([math.nan])
    with pytest.raises(ValueError):
        canonical(["\ud800"])


# -- faults -----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(ANY)
@example({"a": [0, {"b": 2**63}], "c": -math.inf})
def test_every_bad_number_is_pointed_at(value: Any) -> None:
    faults = check_numbers(value)
    assert len(faults) == bad_numbers(value)
    assert len({pointer for pointer, _ in faults}) == len(faults)
    for pointer, _ in faults:
        _, leaf = resolve(pointer, value)
        assert bad_numbers(leaf) == 1
        assert not isinstance(leaf, dict | list)


@settings(max_examples=100, deadline=None)
@given(ANY)
@example({"\0": "\ud800", "a": ["\0"]})
def test_every_bad_text_is_pointed_at(value: Any) -> None:
    faults = find_nul(value)
    assert len(faults) == bad_texts(value)
    for pointer, _ in faults:
        assert pointer.isascii()  # so a lone surrogate in a key does not break the answer that reports it
        key, leaf = resolve(pointer, value)
        assert bad_texts(key) or bad_texts(leaf)


@pytest.mark.parametrize(
    ("token", "pointer"),
    [("width", "#/width"), (0, "#/0"), ("", "#/"), ("a/b", "#/a~1b"), ("m~n", "#/m~0n"), ("a b", "#/a%20b"),
     ("~1", "#/~01"), ("ö", "#/%C3%B6"), ("%", "#/%25"), ("#^", "#/%23%5E"), ("\ud800", "#/%ED%A0%80")],
)  # fmt: skip
def test_pointers_follow_rfc_6901(token: str | int, pointer: str) -> None:
    assert pointer_to("#", token) == pointer


def test_faults_say_what_is_allowed_and_stop_at_a_hundred() -> None:
    assert check_numbers({"n": 2**63}, "#/payload") == [
        ("#/payload/n", "9223372036854775808 is outside int64 (-9223372036854775808…9223372036854775807)")
    ]
    assert check_numbers([10**300])[0][1].startswith("an integer of 997 bits is outside int64")
    assert check_numbers([math.nan] * 200)[-1][0] == "#/99"
    assert check_numbers([INT64_MIN, INT64_MAX, 1.7e308, True]) == []
    assert find_nul("a\0b") == [("#", "a NUL character is not allowed in text")]
    assert find_nul(["\udfff"]) == [("#/0", "a lone surrogate (U+DFFF) is not allowed in text")]


def test_depth_is_no_danger() -> None:
    value: Any = 2**63
    for _ in range(20_000):
        value = [value]
    [(pointer, _)] = check_numbers(value)
    assert len(pointer) == 1 + 2 * 20_000
    while value != 2**63:  # taken apart by hand: freeing or printing it would recurse
        [value] = value


# -- reading ----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(ANY)
@example(2**64)  # orjson reads it as a float
@example("12345678901234567890")
@example(12345678901234567890.0)
@example(1234567890123456789)
def test_reading_is_exact_or_refused(value: Any) -> None:
    bad = bad_numbers(value) + bad_texts(value)
    for ensure_ascii in (True, False) if not bad_texts(value) else (True,):
        body = json.dumps(value, ensure_ascii=ensure_ascii).encode()
        if bad:
            with pytest.raises(InvalidInput) as refused:
                read_json(body, "#/payload")
            assert len(refused.value.errors) == min(bad, 100)
            assert all(pointer.startswith("#/payload") for pointer, _ in refused.value.errors)
        else:
            assert same(read_json(body), value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=12) | st.text('[]{}",:0123456789eE.-tfn\\u', max_size=30).map(str.encode))
def test_rubbish_is_a_value_error_or_json(body: bytes) -> None:
    try:
        read = read_json(body)
    except (ValueError, InvalidInput):
        return
    assert same(read, json.loads(body))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a":1,}', b"[1] 2", b"01", b"\xef\xbb\xbf{}"])
def test_what_is_not_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_json(body)


@pytest.mark.parametrize(
    "body", [b"1e400", b"-1e999", b"NaN", b"[Infinity]", b"9" * 10_000, b'{"a":-' + b"9" * 400 + b"}"]
)
def test_numbers_that_are_no_finite_double_are_json_but_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_json(body)
    assert "finite" in refused.value.errors[0][1]


@pytest.mark.parametrize("levels", [NESTING_MAX + 1, 1_024, 1_025, 100_000])
def test_what_could_not_be_written_again_is_refused(levels: int) -> None:
    with pytest.raises(InvalidInput, match="nested deeper than 254 levels"):
        read_json(b"[" * levels + b"]" * levels)


def test_the_deepest_that_is_read_can_be_written() -> None:
    body = b'{"a":' * NESTING_MAX + b"1" + b"}" * NESTING_MAX
    assert canonical(read_json(body)) == body
    assert read_json(b"[" + b"[1]," * 1_000 + b"[]]")[999] == [1]  # wide is not deep
