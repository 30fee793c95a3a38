"""Whatever is sent, the node answers with what the contract knows, and never with 500."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.http import specs
from node.http.auth import LOCAL
from node.http.problems import PROBLEMS, Problem
from runtime.core.canonical import digest
from runtime.errors import InvalidInput
from tests.support.http_api import GATES, REGISTRY, speaking_to
from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.http_api import Http
    from tests.support.memory_node import MemoryNode

FIELDS = [
    "handler", "payload", "idempotency_key", "actor_key", "priority", "requires", "prefers", "delay_s", "run_at",
    "expires_at", "timeout_s", "max_attempts", "sensitive", "metadata", "tasks", "filter", "all", "dry_run",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["add", "echo", "fail", "high", "2031-01-31T12:00:00Z", "0001-01-01T00:00:00+23:59"])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(FIELDS), inner, max_size=6)
    ),
    max_leaves=20,
)
TASKS = st.fixed_dictionaries(
    {"handler": st.sampled_from(["add", "echo", "fail"]) | SCALARS},
    optional={name: VALUES for name in FIELDS if name not in {"handler", "tasks"}},
)
BODIES = (
    VALUES
    | TASKS
    | st.fixed_dictionaries({"tasks": st.lists(TASKS, max_size=4)})
    | st.fixed_dictionaries({"filter": st.dictionaries(st.sampled_from([*FIELDS, "state", "ids"]), VALUES)})
)
TARGETS = [
    ("POST", "/v1/tasks"),
    ("POST", "/v1/tasks/batch"),
    ("POST", "/v1/tasks/cancel"),
    ("POST", "/v1/dead/replay"),
    ("DELETE", "/v1/dead"),
]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def asked(loop: asyncio.Runner) -> Iterator[Http]:
    async def start() -> tuple[Any, Any, Http]:
        GATES.forget()
        node = memory_node(REGISTRY)
        running: MemoryNode = await node.__aenter__()
        speaking = speaking_to(running)
        return node, speaking, await speaking.__aenter__()

    node, speaking, http = loop.run(start())
    yield http
    loop.run(speaking.__aexit__(None, None, None))
    loop.run(node.__aexit__(None, None, None))


def check(loop: asyncio.Runner, http: Http, target: tuple[str, str], body: bytes) -> None:
    method, path = target
    answer = loop.run(http.call(method, path, data=body, headers={"Content-Type": "application/json"}))
    assert answer.status != 500, answer.body
    if answer.status >= 400:
        assert PROBLEMS[answer.slug].status == answer.status
        assert answer.status in {400, 413, 422}
        for error in answer.json.get("errors", []):
            assert error["pointer"].startswith("#")
            assert error["detail"]


@settings(max_examples=150, deadline=None)
@given(target=st.sampled_from(TARGETS), body=BODIES, ascii_only=st.booleans())
def test_random_json(
    loop: asyncio.Runner, asked: Http, target: tuple[str, str], body: Any, ascii_only: bool
) -> None:
    text = json.dumps(body, ensure_ascii=ascii_only)
    check(loop, asked, target, text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150, deadline=None)
@given(target=st.sampled_from(TARGETS), body=st.binary(max_size=50))
def test_random_bytes(loop: asyncio.Runner, asked: Http, target: tuple[str, str], body: bytes) -> None:
    check(loop, asked, target, body)


@settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from(["/v1/tasks", "/v1/dead", "/v1/tasks/x", "/v1/handlers", "/v1/stats"]),
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "state", "handler", "created_after", "ids", "wait", "x"]),
        st.text(max_size=10) | st.sampled_from(["1", "failed", "nan", "2031-01-31T12:00:00Z"]),
        max_size=3,
    ),
)
def test_random_queries(loop: asyncio.Runner, asked: Http, path: str, query: dict[str, str]) -> None:
    query = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
    if query.get("wait", "").isdigit():
        query["wait"] = "0"
    answer = loop.run(asked.get(path, **query))
    assert answer.status in {200, 404, 422}, answer.body


# -- what is read is what was sent ------------------------------------------------------------------

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)  # fmt: skip
ACCEPTABLE = st.fixed_dictionaries(
    {"handler": st.just("echo")},
    optional={
        "payload": st.dictionaries(st.text("abc", max_size=2), PLAIN),
        "idempotency_key": st.none() | st.text("xyz", min_size=1, max_size=9),
        "priority": st.sampled_from(["high", "medium", "low", None]),
        "requires": st.lists(st.sampled_from(["gpu", "eu"]), max_size=16),
        "delay_s": st.none() | st.floats(0, 1000) | st.integers(0, 1000),
        "max_attempts": st.none() | st.integers(1, 1000),
        "metadata": st.none() | st.dictionaries(st.text("abc", max_size=2), PLAIN),
        "sensitive": st.just(False),
    },
)


@settings(max_examples=200, deadline=None)
@given(tasks=st.lists(ACCEPTABLE, max_size=4))
def test_a_batch_reads_each_task_as_a_single_post_does(tasks: list[dict[str, Any]]) -> None:
    singles = [specs.one(orjson.dumps(task), {}, LOCAL) for task in tasks]
    assert specs.many(orjson.dumps({"tasks": tasks}), {}, LOCAL) == singles
    for task, spec in zip(tasks, singles, strict=True):
        assert spec.payload == task.get("payload", {})
        assert spec.idempotency_key == task.get("idempotency_key")
        expected = digest(task) if task.get("idempotency_key") else None
        assert spec.digest == expected
        assert (spec.delay_s, spec.max_attempts) == (task.get("delay_s"), task.get("max_attempts"))


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=30) | VALUES.map(lambda value: repr(value).encode("utf-8", "replace")))
def test_reading_fails_with_our_own_errors_only(body: bytes) -> None:
    for read in (specs.one, specs.many):
        try:
            read(body, {}, LOCAL)
        except (InvalidInput, Problem):
            continue
