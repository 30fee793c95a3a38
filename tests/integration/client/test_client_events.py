"""The stream of events: parsed as the standard says, and followed over broken connections."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from actors import task
from node.client import Client, Overloaded, Refused, TaskEvent, Unreachable, events
from node.client.events import Parser
from tests.support.client_handlers import add, fail
from tests.support.memory_node import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence


def parsed(text: str) -> list[TaskEvent]:
    parser = Parser()
    return [event for line in text.split("\n") if (event := parser.line(line)) is not None]


def test_events_are_parsed_as_the_standard_says() -> None:
    told = parsed(
        ': hello\n\nretry: 1000\n\nid: a-1\nevent: task\ndata: {"x":1}\n\n'
        "data:first\ndata: second\n\n"  # two lines of data, kind and id as before
        "event: ignored\n\n"  # without data: no event
        "id: bad\0id\ndata: 3\n\nunfinished: 1\ndata: never told"
    )
    assert told == [
        TaskEvent("task", "a-1", {"x": 1}),
        TaskEvent("message", "a-1", {"text": "first\nsecond"}),
        TaskEvent("message", "a-1", {"value": 3}),
    ]


async def first(
    client: Client, count: int, submit: Callable[[], Awaitable[None]], **which: Sequence[str]
) -> list[TaskEvent]:
    """The first events; submits again and again, because nothing is told until the stream is open."""
    told: list[TaskEvent] = []
    async with asyncio.timeout(10), aclosing(client.events(last_event_id=None, **which)) as stream:
        while len(told) < count:
            reader = asyncio.ensure_future(anext(stream))
            while not reader.done():
                await submit()
                await asyncio.wait([reader], timeout=0.05)
            told.append(await reader)
    return told


async def test_events_of_a_node_are_filtered_there(client: Client) -> None:
    async def submit() -> None:
        await client.submit(task(add, a=1))
        await client.submit(task(fail))

    told = await first(client, 2, submit, state=["failed"])
    assert {event.data["state"] for event in told} == {"failed"}
    told = await first(client, 2, submit, handler=["add"], state=["succeeded"])
    assert {event.data["handler"] for event in told} == {"add"}
    assert all(event.kind == "task" and event.id for event in told)


class Script:
    """Answers each connection to /v1/events with the next text, and keeps the Last-Event-ID it came with."""

    def __init__(self, *texts: str | int) -> None:
        self.texts = list(texts)
        self.ids: list[str | None] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.ids.append(request.headers.get("Last-Event-ID"))
        text = self.texts.pop(0) if self.texts else 503
        if isinstance(text, int):
            return web.Response(status=text, headers={"Retry-After": "0"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(text.encode())
        if text.endswith("hang\n"):
            await asyncio.sleep(3600)
        if text.endswith("cut\n") and request.transport is not None:
            request.transport.abort()
        return response


async def following(script: Script, retry_for_s: float = 5.0) -> AsyncGenerator[TaskEvent]:
    app = web.Application()
    app.router.add_get("/v1/events", script.serve)
    async with (
        serving(app) as url,
        Client(url, retry_for_s=retry_for_s) as client,
        aclosing(client.events(last_event_id="s-0")) as stream,
    ):
        async for event in stream:
            yield event


async def test_a_broken_stream_goes_on_where_it_stopped() -> None:
    script = Script(
        "id: s-1\ndata: 1\n\nid: s-2\ndata: 2\n\n: cut\n",  # broken in the middle of a line
        503,
        "id: s-3\ndata: 3\n\n",  # ended in order
        'event: gap\ndata: {"missed": 5}\n\nid: s-9\ndata: 9\n\n',
    )
    told = []
    async with aclosing(following(script)) as stream:
        async for event in stream:
            told.append((event.kind, event.id))
            if event.id == "s-9":
                break
    assert told == [
        ("message", "s-1"),
        ("message", "s-2"),
        ("message", "s-3"),
        ("gap", "s-3"),
        ("message", "s-9"),
    ]
    assert script.ids == ["s-0", "s-2", "s-2", "s-3"]


async def test_a_silent_stream_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.2)
    script = Script("id: s-1\ndata: 1\n\n: hang\n", "id: s-2\ndata: 2\n\n: hang\n")
    told = []
    async with aclosing(following(script)) as stream:
        async for event in stream:
            told.append(event.id)
            if len(told) == 2:
                break
    assert told == ["s-1", "s-2"]


@pytest.mark.parametrize(("answer", "error"), [(403, Refused), (503, Overloaded), (502, Unreachable)])
async def test_it_ends_with_the_error_of_a_node_that_refuses(answer: int, error: type[Exception]) -> None:
    script = Script(*[answer] * 50)
    with pytest.raises(error):
        await anext(following(script, retry_for_s=0.5))


async def test_the_connection_closes_when_the_reader_leaves() -> None:
    left = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:  # a server notices that a reader has left when it writes
                await response.write(b"data: 1\n\n")
                await asyncio.sleep(0.01)
        except ConnectionResetError:
            left.set()
        return response

    app = web.Application()
    app.router.add_get("/v1/events", serve)
    async with serving(app) as url, Client(url) as client:
        async with aclosing(client.events()) as stream:
            await anext(stream)
        async with asyncio.timeout(5):
            await left.wait()
