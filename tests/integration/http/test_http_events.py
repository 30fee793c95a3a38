"""/v1/events: what happens, in order, to readers that are fast, slow, or come back."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import pytest

from node.http import sse
from node.http.route import Options
from runtime.core.task import State
from tests.support.http_api import REGISTRY, speaking_to
from tests.support.memory_node import memory_node, until

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from tests.support.http_api import Http
    from tests.support.memory_node import MemoryNode

SOMEBODY = UUID("01a20bf4-bab6-7000-9086-cac67895897f")


class Reader:
    """Events of a stream, one by one, with comments."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    async def frame(self) -> dict[str, Any]:
        """The next event or comment."""
        fields: dict[str, Any] = {}
        async with asyncio.timeout(20):
            async for line in self._response.content:
                text = line.decode().rstrip("\n")
                if not text:
                    return fields
                name, _, value = text.partition(": ")
                fields[name or "comment"] = value
        return {"end": True}

    async def event(self, kind: str = "task") -> dict[str, Any]:
        """The next event; it must be of this kind."""
        while True:
            frame = await self.frame()
            if "event" in frame or "end" in frame:
                break
        assert frame.get("event") == kind, frame
        return {**orjson.loads(frame["data"]), "event_id": frame.get("id")}


async def opened(http: Http, path: str = "/v1/events", last_id: str | None = None) -> Reader:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    response = await http.stream(path, headers)
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    reader = Reader(response)
    assert "retry" in await reader.frame()
    return reader


def publish(node: MemoryNode, count: int, handler: str = "add", state: State = State.SUCCEEDED) -> None:
    for n in range(count):
        node.world.activity.events.publish(SOMEBODY, handler, state, n)


async def test_a_task_is_followed_to_its_end(http: Http) -> None:
    reader = await opened(http)
    task = await http.submit("add", {"a": 1})
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["state"] != "succeeded":
        seen.append(await reader.event())
    assert {event["id"] for event in seen} == {task["id"]}
    last = seen[-1]
    assert (last["handler"], last["attempt"], last["error_type"]) == ("add", 1, None)
    assert last["at"].endswith("Z")
    assert last["run_s"] >= 0
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9]+", last["event_id"])


async def test_streams_are_filtered(http: Http, node: MemoryNode) -> None:
    failed = await opened(http, "/v1/events?state=failed,cancelled&handler=add,fail")
    publish(node, 3)
    publish(node, 3, "echo", State.FAILED)
    task = await http.done("fail")
    event = await failed.event()
    assert (event["id"], event["state"], event["error_type"]) == (task["id"], "failed", "ValueError")


@pytest.mark.parametrize("query", ["state=done", "state=", "handlers=x", "handler="])
async def test_conditions_that_are_not_allowed(http: Http, query: str) -> None:
    answer = await http.get(f"/v1/events?{query}")
    assert (answer.status, answer.slug) == (422, "invalid-request")


async def test_a_reader_that_comes_back_misses_nothing(http: Http, node: MemoryNode) -> None:
    reader = await opened(http)
    publish(node, 3)
    last = (await reader.event())["event_id"]
    again = await opened(http, last_id=last)
    publish(node, 1)
    assert [(await again.event())["attempt"] for _ in range(3)] == [1, 2, 0]


@pytest.mark.parametrize("last_id", ["00000000-7", "7", "x", "abcdef01-99999999999999999999"])
async def test_a_reader_of_an_earlier_start_is_told_of_a_gap(
    http: Http, node: MemoryNode, last_id: str
) -> None:
    publish(node, 2)
    reader = await opened(http, last_id=last_id)
    assert (await reader.event("gap"))["missed"] == -1
    assert [(await reader.event())["attempt"] for _ in range(2)] == [0, 1]


async def test_events_that_are_no_longer_kept_are_a_gap(http: Http, node: MemoryNode) -> None:
    reader = await opened(http)
    publish(node, 1)
    last = (await reader.event())["event_id"]
    publish(node, 10_500)  # more than the log keeps
    again = await opened(http, last_id=last)
    assert (await again.event("gap"))["missed"] == 500
    assert (await again.event())["attempt"] == 500


async def test_a_slow_reader_finds_a_gap_and_costs_nothing(node: MemoryNode) -> None:
    host, port = node.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET /v1/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    await reader.readuntil(b": hello\n\n")
    [stream] = node.api.streams
    published = 0
    for _ in range(200):  # nobody reads: what the kernel and the buffer take is bounded, the rest is not kept
        publish(node, 1_000)
        published += 1_000
        await asyncio.sleep(0)
        assert len(stream._frames) <= sse._BUFFER_MAX
    text = b""
    async with asyncio.timeout(30):
        while b"event: gap" not in text:
            text = text[-100:] + await reader.read(65_536)
    assert published == 200_000
    writer.close()


async def test_a_silent_stream_is_kept_alive(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sse.COMMENT_S == 15.0
    monkeypatch.setattr(sse, "COMMENT_S", 0.01)
    reader = await opened(http)
    assert [await reader.frame() for _ in range(2)] == [{"comment": "alive"}] * 2


async def test_many_events_go_out_in_few_writes(
    http: Http, node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiohttp import web

    writes = 0
    write = web.StreamResponse.write

    async def counting(self: web.StreamResponse, data: bytes) -> None:
        nonlocal writes
        writes += 1
        await write(self, data)

    reader = await opened(http)
    monkeypatch.setattr(web.StreamResponse, "write", counting)
    publish(node, 400)
    assert [(await reader.event())["attempt"] for _ in range(400)] == list(range(400))
    assert writes <= 3
    began_s = time.monotonic()
    for _ in range(200):  # one by one, as tasks end
        publish(node, 1)
        await asyncio.sleep(0)
    for _ in range(200):
        await reader.event()
    assert writes <= 3 + (time.monotonic() - began_s) / 0.02 + 2


async def test_streams_are_bounded_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    options = Options(event_streams_max=1)
    async with memory_node(REGISTRY, options=options) as node, speaking_to(node) as http:
        response = await http.stream("/v1/events")
        answer = await http.get("/v1/events")
        assert (answer.status, answer.slug) == (503, "overloaded")
        response.close()

        def left() -> bool:  # a reader that left is noticed by the next write
            publish(node, 1)
            return not node.api.streams

        await until(left)
        assert not caplog.records  # it is no error
        assert (await http.stream("/v1/events")).status == 200


async def test_streams_end_in_good_order_when_the_node_stops() -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(memory_node(REGISTRY))
        async with speaking_to(node) as http:
            reader = await opened(http)
            await stack.aclose()
            assert await reader.frame() == {"end": True}
