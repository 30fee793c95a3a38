"""What the client is by itself: its imports, its settings, its words for errors, its bytes."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.client import (
    Client,
    InvalidTask,
    KeyReused,
    NotFound,
    Overloaded,
    Refused,
    ResultExpired,
    ServerFault,
    TooLarge,
)
from node.client.config import resolve_api_key, resolve_url
from node.client.encode import BATCH_TASKS_MAX, chunks, encode, fresh_key
from node.client.errors import from_problem
from node.client.retry import RetryPolicy, parse_retry_after
from node.client.transport import Answer
from runtime.core.backoff import Backoff
from runtime.errors import InvalidInput, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

FORBIDDEN = (
    "asyncpg",
    "aio_pika",
    "aiormq",
    "opentelemetry",
    "prometheus_client",
    "uvloop",
    "runtime.adapters",
)


def test_the_client_brings_neither_database_nor_broker_nor_telemetry() -> None:
    program = (
        "import sys, node.client; from actors import task; "
        f"print([name for name in sys.modules if name.startswith({FORBIDDEN!r})])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_is_read_at_import_and_all_when_constructed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().url == "http://127.0.0.1:8080"
    monkeypatch.setenv("NORIA_URL", "https://noria.example:8443/base/")
    assert Client().url == "https://noria.example:8443/base"
    assert Client("http://other").url == "http://other"


@pytest.mark.parametrize(
    "wrong", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:port", "http://[::1", "http://x:0"]
)
def test_a_wrong_url_is_named(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"NORIA_URL=.*: must be http"):
        resolve_url(None, {"NORIA_URL": wrong})


def test_the_api_key_comes_from_argument_environment_or_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    env = {"NORIA_API_KEY_FILE": str(file)}
    assert resolve_api_key(None, {}) is None
    assert resolve_api_key(None, env) == "from-file"
    assert resolve_api_key(None, {**env, "NORIA_API_KEY": "from-env"}) == "from-env"
    assert resolve_api_key("given", env) == "given"
    with pytest.raises(SettingsError, match="NORIA_API_KEY_FILE='/nowhere': cannot be read"):
        resolve_api_key(None, {"NORIA_API_KEY_FILE": "/nowhere"})
    with pytest.raises(SettingsError, match="printable ASCII") as caught:
        resolve_api_key("two words", {})
    assert "two words" not in str(caught.value)


# -- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidTask), (401, Refused), (403, Refused), (404, NotFound), (409, Refused),
     (410, ResultExpired), (413, TooLarge), (415, InvalidTask), (422, InvalidTask), (429, Overloaded), (503, Overloaded),
     (405, ServerFault), (500, ServerFault), (418, ServerFault)],
)  # fmt: skip
def test_every_status_has_its_error_even_without_a_document(status: int, kind: type[Exception]) -> None:
    assert type(from_problem(status, None)) is kind
    error = from_problem(status, {"type": "urn:noria:error:some-slug", "detail": "why"})
    assert (str(error), error.status, error.slug) == ("why", status, "some-slug")


def test_a_reused_key_tells_the_task_and_both_digests() -> None:
    error = from_problem(
        422,
        {
            "type": "urn:noria:error:idempotency-key-reused",
            "detail": "no",
            "existing_id": "i",
            "existing_digest": "aa",
            "digest": "bb",
        },
    )
    assert isinstance(error, KeyReused)
    assert (error.existing_id, error.existing_digest, error.digest) == ("i", "aa", "bb")


def test_a_document_that_is_odd_breaks_nothing() -> None:
    for odd in ({"errors": "x"}, {"errors": [1, {}]}, {"type": None, "detail": None}, {"type": 5}):
        assert isinstance(from_problem(422, odd), InvalidTask)


def test_invalid_task_is_an_invalid_input() -> None:
    error = InvalidTask("d", [("#/x", "y")])
    assert isinstance(error, InvalidInput)
    assert error.errors == (("#/x", "y"),)


# -- encoding ---------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_encoded_reads_as_the_same_value(value: Any) -> None:
    assert orjson.loads(encode({"handler": "h", "payload": {"v": value}}))["payload"]["v"] == value


@dataclass
class Point:
    x: float


class Model:
    def model_dump(self, *, mode: str) -> dict[str, str]:
        return {"mode": mode}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place", "detail"),
    [
        ({"a": [1, float("inf")]}, "/a/1", "inf is not a JSON number"),
        ({"a": None, "b": {"c/d~e": float("nan")}}, "/b/c~1d~0e", "nan is not a JSON number"),
        (2**64, "", "Integer exceeds 64-bit range"),
        ({"s": {1}}, "/s", "set has no JSON form"),
        ({"s": b"x"}, "/s", "bytes has no JSON form"),
        ({1: 2}, "", "key 1 is int; must be a string"),
        ("\ud800", "", "str is not valid UTF-8: surrogates not allowed"),
        (Point(float("nan")), "/x", "nan is not a JSON number"),
    ],
)
def test_what_json_would_change_or_lose_is_pointed_at(value: Any, place: str, detail: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        encode({"handler": "h", "payload": {"v": value}}, "#/tasks/3")
    assert caught.value.errors == ((f"#/tasks/3/payload/v{place}", detail),)


def test_too_deep_or_endless_values_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (nested(300), endless):
        with pytest.raises(InvalidTask) as caught:
            encode({"handler": "h", "payload": {"v": value}})
        assert "nested deeper than" in caught.value.errors[0][1]


def test_values_with_a_plain_form() -> None:
    raw = encode(
        {"d": Decimal("0.10"), "p": Path("a/b"), "m": Model(), "x": Point(1.5), "n": None, "t": "null"}
    )
    assert orjson.loads(raw) == {
        "d": "0.10",
        "p": "a/b",
        "m": {"mode": "json"},
        "x": {"x": 1.5},
        "n": None,
        "t": "null",
    }


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 10), st.integers(80, 200))
def test_chunks_hold_all_tasks_in_order_within_both_limits(
    sizes: list[int], count_max: int, bytes_max: int
) -> None:
    from unittest.mock import patch

    tasks = [b'"%s"' % (b"x" * size) for size in sizes]
    with (
        patch("node.client.encode.BATCH_TASKS_MAX", count_max),
        patch("node.client.encode.BATCH_BYTES_MAX", bytes_max),
    ):
        cut = list(chunks(iter(tasks)))
    bodies = [orjson.loads(chunk.body)["tasks"] for chunk in cut]
    assert [b'"%s"' % task.encode() for body in bodies for task in body] == tasks
    assert all(len(chunk.body) <= bytes_max and 1 <= chunk.count <= count_max for chunk in cut)
    assert [chunk.first for chunk in cut] == [sum(map(len, bodies[:n])) for n in range(len(cut))]


def test_fresh_keys_ascend_and_differ() -> None:
    keys = [fresh_key() for _ in range(1000)]
    assert len(set(keys)) == 1000
    assert [key[:17] for key in keys] == sorted(key[:17] for key in keys)


def test_a_result_with_a_large_integer_stays_exact() -> None:
    assert (
        Answer(200, b'{"result": 123456789012345678901234567890}', "").json()["result"]
        == 123456789012345678901234567890
    )


# -- retries ----------------------------------------------------------------------------------------


def test_pauses_grow_are_bounded_and_end() -> None:
    policy = RetryPolicy(total_s=10, backoff=Backoff(first_s=0.1, factor=2, max_s=2))
    assert [policy.pause_s(tries, 0, 0.5) for tries in (1, 2, 3, 10, 60)] == [0.05, 0.1, 0.2, 1.0, 1.0]
    assert policy.pause_s(1, 0, 0.5, advice_s=3) == 3.05
    assert policy.pause_s(1, 9.99, 0.5) is None
    assert policy.pause_s(1, 0, 0.5, advice_s=10) is None
    assert policy.pause_s(1, 0, 0.5, advice_s=10, patience_s=60) == 10.05
    assert policy.pause_s(1, 20, 0.5, patience_s=60) is None, "patience is for a node that answers"
    assert policy.pause_s(100, 0, 0.0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2.0), ("0.5", 0.5), (None, None), ("", None), ("-1", None), ("inf", None), ("nan", None),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text) == seconds


# -- speed ------------------------------------------------------------------------------------------


class Recorded:
    """A node that answers at once."""

    url = "http://recorded"

    def __init__(self, count: int) -> None:
        rows = [{"id": f"01a20c19-6313-7000-99af-{n:012d}", "duplicate": False} for n in range(count)]
        self.answer = Answer(202, orjson.dumps({"tasks": rows}), "application/json")

    async def call(self, *args: Any, **options: Any) -> Answer:
        return self.answer


async def test_a_task_of_a_batch_costs_the_client_a_few_microseconds() -> None:
    """5 us are promised; the bound here leaves room for a slow or busy machine."""
    count = 10_000
    client = Client("http://recorded")
    client._transport = Recorded(BATCH_TASKS_MAX)  # type: ignore[assignment]  # all that submit_many asks of it
    work: Callable[[], list[tuple[str, dict[str, Any]]]] = lambda: [("noop", {}) for _ in range(count)]  # noqa: E731
    best_s = 1.0
    for _ in range(5):
        tasks = work()
        started_s = time.process_time()
        await client.submit_many(tasks)
        best_s = min(best_s, time.process_time() - started_s)
    assert best_s / count < 15e-6
