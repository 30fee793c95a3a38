"""What comes in: its type, its size, its JSON without loss, and how much at once."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any, Self

import orjson
import pytest

from node.http import reading
from node.http.models import BATCH_BYTES_MAX, BATCH_TASKS_MAX
from node.http.route import Options
from tests.support.http_api import REGISTRY, Http, speaking_to
from tests.support.memory_node import memory_node, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.http_api import Answer
    from tests.support.memory_node import MemoryNode

JSON = {"Content-Type": "application/json"}
WITH_BODIES = [
    ("POST", "/v1/tasks"),
    ("POST", "/v1/tasks/batch"),
    ("POST", "/v1/tasks/cancel"),
    ("POST", "/v1/dead/replay"),
    ("DELETE", "/v1/dead"),
]


async def raw(http: Http, body: bytes | str, path: str = "/v1/tasks", method: str = "POST") -> Answer:
    return await http.call(method, path, data=body, headers=JSON)


@pytest.mark.parametrize(("method", "path"), WITH_BODIES)
async def test_only_json_is_understood(http: Http, method: str, path: str) -> None:
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},  # what curl -d sends
        {"Content-Type": "application/octet-stream"},
    ):
        answer = await http.call(method, path, data=b"{}", headers=headers)
        assert (answer.status, answer.slug) == (415, "unsupported-media-type")
    answer = await http.call(method, path, skip_auto_headers=["Content-Type"])
    assert (answer.status, answer.slug) == (415, "unsupported-media-type")
    ok = await http.call(
        method, path, data=b"{}", headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert ok.status == 422


@pytest.mark.parametrize(("method", "path"), WITH_BODIES)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{}{}", b"nul", b"'a'", b'{"a":1,}', b"\xff", b'{"a":"\xff"}', b'"\x00"', b"\xef\xbb\xbf{}",
     b"01", b"+1", b"[1 2]", b'{"a" 1}'],
)  # fmt: skip
async def test_what_is_not_json(http: Http, method: str, path: str, body: bytes) -> None:
    answer = await raw(http, body, path, method)
    assert (answer.status, answer.slug) == (400, "malformed-json")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9007199254740993", 9007199254740993),  # a reader of doubles would say …992
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("5e-324", 5e-324),
        ("0.1", 0.1),
        ('"9223372036854775808"', "9223372036854775808"),
        ('"\\\\u0000"', "\\u0000"),
        ('"\\ud83d\\ude00"', "😀"),
    ],
)
async def test_numbers_and_texts_are_kept_exactly(http: Http, value: str, kept: Any) -> None:
    answer = await http.call(
        "POST",
        "/v1/tasks?wait=30",
        data=f'{{"handler":"echo","payload":{{"value":{value}}}}}'.encode(),
        headers=JSON,
    )
    assert answer.status == 200, answer.body
    assert answer.json["result"] == kept
    assert type(answer.json["result"]) is type(kept)


@pytest.mark.parametrize(
    "value",
    ["9223372036854775808", "-9223372036854775809", "18446744073709551615", "1" * 400, "1e400", "-1e400",
     "NaN", "Infinity", "-Infinity", '"a\\u0000b"', '"\\ud800"', '"\\udc00x"'],
)  # fmt: skip
async def test_what_cannot_be_kept_is_refused_with_its_place(http: Http, value: str) -> None:
    single = f'{{"handler":"echo","payload":{{"value":[0,{{"deep":{value}}}]}}}}'
    answer = await raw(http, single)
    assert (answer.status, answer.slug) == (422, "invalid-request")
    assert answer.pointers == ["#/payload/value/1/deep"]
    in_metadata = f'{{"handler":"echo","metadata":{{"m":{value}}}}}'
    assert (await raw(http, in_metadata)).pointers == ["#/metadata/m"]
    batch = f'{{"tasks":[{{"handler":"echo"}},{single}]}}'
    assert (await raw(http, batch, "/v1/tasks/batch")).pointers == ["#/tasks/1/payload/value/1/deep"]
    assert (await http.get("/v1/tasks")).json["tasks"] == []


@pytest.mark.parametrize("key", ["a\\u0000b", "\\ud800"])
async def test_keys_of_objects_are_text_too(http: Http, key: str) -> None:
    answer = await raw(http, f'{{"handler":"echo","payload":{{"value":{{"{key}":1}}}}}}')
    assert (answer.status, answer.slug) == (422, "invalid-request")


async def test_deep_nesting_is_refused(http: Http) -> None:
    for depth in (300, 2_000, 100_000):
        body = '{"handler":"echo","payload":{"value":' + "[" * depth + "]" * depth + "}}"
        answer = await raw(http, body)
        assert (answer.status, answer.slug) == (422, "invalid-request")


async def test_a_payload_of_a_mebibyte_and_no_more(http: Http) -> None:
    frame = len(b'{"value":""}')
    fits = {"handler": "echo", "payload": {"value": "x" * ((1 << 20) - frame)}, "metadata": {"m": "y" * 4000}}
    assert (await http.post("/v1/tasks", fits)).status == 202
    over = {"handler": "echo", "payload": {"value": "x" * ((1 << 20) - frame + 1)}}
    answer = await http.post("/v1/tasks", over)
    assert (answer.status, answer.slug, answer.pointers) == (413, "too-large", ["#/payload"])
    answer = await http.post("/v1/tasks/batch", {"tasks": [{"handler": "echo"}, over]})
    assert (answer.status, answer.slug, answer.pointers) == (413, "too-large", ["#/tasks/1/payload"])
    assert len((await http.get("/v1/tasks")).json["tasks"]) == 1


async def chunks(size: int) -> AsyncIterator[bytes]:
    """A body whose size is not told before."""
    for _ in range(0, size, 65_536):
        yield b" " * 65_536


async def test_bodies_are_bounded(http: Http) -> None:
    single, batch = b" " * (1 << 20) + b" " * 65_537, BATCH_BYTES_MAX + 1
    answer = await raw(http, single)
    assert (answer.status, answer.slug) == (413, "too-large")
    assert (await http.call("POST", "/v1/tasks", data=chunks(3 << 20), headers=JSON)).slug == "too-large"
    answer = await http.call("POST", "/v1/tasks/batch", data=chunks(batch), headers=JSON)
    assert (answer.status, answer.slug) == (413, "too-large")
    assert (await http.post("/v1/tasks", {"handler": "echo"})).status == 202


async def test_compressed_bodies_are_bounded_by_what_they_hold(http: Http) -> None:
    headers = JSON | {"Content-Encoding": "gzip"}
    small = gzip.compress(b'{"handler":"echo"}')
    assert (await http.call("POST", "/v1/tasks", data=small, headers=headers)).status == 202
    bomb = gzip.compress(b" " * (8 << 20))
    answer = await http.call("POST", "/v1/tasks", data=bomb, headers=headers)
    assert answer.status == 413


async def test_a_batch_has_at_most_ten_thousand_tasks(http: Http) -> None:
    task = {"handler": "echo", "delay_s": 1000}
    answer = await http.post("/v1/tasks/batch", {"tasks": [task] * (BATCH_TASKS_MAX + 1)})
    assert (answer.status, answer.pointers) == (422, ["#/tasks"])
    answer = await http.post("/v1/tasks/batch", {"tasks": [task] * BATCH_TASKS_MAX})
    assert (answer.status, len(answer.json["tasks"])) == (202, BATCH_TASKS_MAX)


# -- how much at once -------------------------------------------------------------------------------


class Held:
    """A request whose body stops in the middle until `rest` is called."""

    def __init__(self, node: MemoryNode, size: int) -> None:
        self._node = node
        self._size = size
        self._body = orjson.dumps({"handler": "add", "payload": {"a": 1}}).ljust(size)

    async def __aenter__(self) -> Self:
        host, port = self._node.url.removeprefix("http://").split(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/tasks HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        before = self._node.api.bodies.count
        self._writer.write(f"{head}Content-Length: {self._size}\r\n\r\n".encode() + self._body[:1])
        await until(lambda: self._node.api.bodies.count == before + 1)
        return self

    async def rest(self) -> bytes:
        self._writer.write(self._body[1:])
        return await self._reader.readline()

    async def head(self) -> bytes:
        return await self._reader.readline()

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def test_too_many_bodies_at_once() -> None:
    async with memory_node(REGISTRY, options=Options(bodies_max=2)) as node, speaking_to(node) as http:
        async with Held(node, 100), Held(node, 100) as second:
            answer = await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}})
            assert (answer.status, answer.slug) == (503, "overloaded")
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await http.get("/v1/tasks")).status == 200  # what has no body is served
            assert b"202" in await second.rest()
            assert (await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}})).status == 202
        await until(lambda: (node.api.bodies.count, node.api.bodies.bytes) == (0, 0))


async def test_too_many_bytes_at_once() -> None:
    async with memory_node(REGISTRY, options=Options(body_bytes_max=1000)) as node, speaking_to(node) as http:
        async with Held(node, 990):
            answer = await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}})
            assert (answer.status, answer.slug) == (503, "overloaded")
        await until(lambda: (node.api.bodies.count, node.api.bodies.bytes) == (0, 0))
        assert (await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}})).status == 202


async def test_a_body_that_does_not_arrive(node: MemoryNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BODY_TIMEOUT_S", 0.05)
    async with Held(node, 100) as held:
        assert b"408" in await held.head()
    await until(lambda: node.api.bodies.count == 0)


async def test_a_long_poll_holds_no_body(http: Http, node: MemoryNode) -> None:
    posting = asyncio.create_task(http.post("/v1/tasks?wait=30", {"handler": "gate"}))
    await until(lambda: len(node.api.long_polls) == 1)
    assert (node.api.bodies.count, node.api.bodies.bytes) == (0, 0)
    posting.cancel()
    await asyncio.gather(posting, return_exceptions=True)


async def test_too_many_long_polls_are_answered_at_once() -> None:
    async with memory_node(REGISTRY, options=Options(long_polls_max=1)) as node, speaking_to(node) as http:
        task = await http.submit("add", {"a": 1}, delay_s=100)
        path = f"/v1/tasks/{task['id']}?wait=60"
        first = asyncio.create_task(http.get(path))
        await until(lambda: len(node.api.long_polls) == 1)
        assert (await http.get(path)).json["state"] == "scheduled"
        assert not first.done()
        await http.post(f"/v1/tasks/{task['id']}/cancel")
        assert (await first).json["state"] == "cancelled"


# -- the backlog ------------------------------------------------------------------------------------


async def test_a_full_backlog_refuses_new_tasks_and_answers_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_node(REGISTRY, options=Options(backlog_max=5)) as node, speaking_to(node) as http:
        keyed = {"handler": "add", "payload": {"a": 1}, "idempotency_key": "old"}
        known = (await http.post("/v1/tasks", keyed)).json
        monkeypatch.setattr(node.service, "backlog", lambda: 5)
        for request in (
            {"handler": "add", "payload": {"a": 1}},
            {"handler": "add", "payload": {"a": 1}, "idempotency_key": "new"},
        ):
            answer = await http.post("/v1/tasks", request)
            assert (answer.status, answer.slug) == (429, "backlog-full")
            assert int(answer.headers["Retry-After"]) >= 1
            answer = await http.post("/v1/tasks/batch", {"tasks": [keyed, request]})
            assert (answer.status, answer.slug) == (429, "backlog-full")
        again = await http.post("/v1/tasks", keyed)
        assert (again.status, again.json["id"], again.json["duplicate"]) == (200, known["id"], True)
        batch = await http.post("/v1/tasks/batch", {"tasks": [keyed, keyed]})
        assert (batch.status, [row["id"] for row in batch.json["tasks"]]) == (200, [known["id"]] * 2)
        other = await http.post("/v1/tasks", keyed | {"payload": {"a": 2}})
        assert (other.status, other.slug) == (422, "idempotency-key-reused")
        monkeypatch.setattr(node.service, "backlog", lambda: 4)
        assert (await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}})).status == 202
