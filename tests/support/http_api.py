"""Handlers for tests of the API, and a client that answers plainly."""

from __future__ import annotations

import asyncio
import io
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from actors import Context, Retry, handler
from actors.authoring.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp import ClientResponse, ClientSession

    from tests.support.memory_node import MemoryNode


class Gates:
    """Lets tests hold bodies back: `gate` says that it has started, then waits until it is opened."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.started: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.opened: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


GATES = Gates()


@handler("add")
async def add(ctx: Context, a: int, b: int = 0) -> int:
    return a + b


@handler("echo")
async def echo(ctx: Context, value: Any = None) -> Any:
    return value


@handler("gate")
async def gate(ctx: Context, name: str = "g") -> str:
    """Waits."""
    GATES.started[name].set()
    await GATES.opened[name].wait()
    return name


@handler("fail", max_attempts=1)
async def fail(ctx: Context, message: str = "boom") -> None:
    raise ValueError(message)


@handler("later", max_attempts=3)
async def later(ctx: Context) -> None:
    raise Retry("busy", after_s=3600)


@handler("raw")
async def raw(ctx: Context) -> bytes:
    return b"\x00\xff<script>"


REGISTRY = Registry(add, echo, gate, fail, later, raw)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def slug(self) -> str:
        """Of a problem; checks what every problem must be."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        problem = self.json
        assert problem["status"] == self.status
        assert problem["title"]
        assert problem["detail"]
        assert problem["type"].startswith("urn:noria:error:")
        return str(problem["type"].removeprefix("urn:noria:error:"))

    @property
    def pointers(self) -> list[str]:
        return [error["pointer"] for error in self.json["errors"]]


class Http:
    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.streams: list[ClientResponse] = []

    async def stream(self, path: str, headers: Mapping[str, str] | None = None) -> ClientResponse:
        """An answer without an end; it is closed with the client."""
        response = await self.session.get(path, headers=headers)
        self.streams.append(response)
        return response

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        if isinstance(data := options.get("data"), bytes):
            options["data"] = io.BytesIO(data)  # aiohttp warns of large bytes
        async with self.session.request(method, path, **options) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def get(self, path: str, **params: Any) -> Answer:
        return await self.call("GET", path, params=params)

    async def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        if json is not None:
            options |= {"data": orjson.dumps(json)}
            options.setdefault("headers", {}).setdefault("Content-Type", "application/json")
        return await self.call("POST", path, **options)

    async def submit(self, handler: str, payload: Any = None, **fields: Any) -> Any:
        """The accepted task."""
        answer = await self.post("/v1/tasks", {"handler": handler, "payload": payload or {}, **fields})
        assert answer.status in {200, 202}, answer.body
        return answer.json

    async def finished(self, task_id: str) -> Any:
        """The task once it is final."""
        answer = await self.get(f"/v1/tasks/{task_id}", wait="30")
        assert answer.json["state"] in {"succeeded", "failed", "cancelled"}, answer.body
        return answer.json

    async def done(self, handler: str, payload: Any = None, **fields: Any) -> Any:
        return await self.finished((await self.submit(handler, payload, **fields))["id"])


@asynccontextmanager
async def speaking_to(node: MemoryNode) -> AsyncIterator[Http]:
    async with node.client() as session:
        http = Http(session)
        try:
            yield http
        finally:
            for response in http.streams:
                response.close()
