"""A proxy in front of a node that breaks as it is told, request by request."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import ClientSession, web

from tests.support.memory_node import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_HOP = {"transfer-encoding", "content-length", "connection", "content-encoding", "date", "server"}


@dataclass(slots=True)
class Proxy:
    """`plan` says what happens to the next requests; when it is empty they pass.

    pass · lose (the request never reaches the node) · lose-answer (it does, but the connection breaks
    before the answer) · hang (no answer at all) · a status, with headers: (503, {"Retry-After": "0"}).
    """

    target: str
    session: ClientSession
    url: str = ""
    plan: deque[str | tuple[int, dict[str, str]]] = field(default_factory=deque)
    seen: list[tuple[str, str]] = field(default_factory=list)  # method and path of every request
    bodies: list[bytes] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.path))
        self.bodies.append(body)
        step = self.plan.popleft() if self.plan else "pass"
        if isinstance(step, tuple):
            status, headers = step
            return web.Response(status=status, headers=headers)
        if step == "hang":
            await self.released.wait()
        if step == "lose":
            return self._cut(request)
        answer = await self._forward(request, body)
        return self._cut(request) if step == "lose-answer" else answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {"host", "content-length"}}
        async with self.session.request(
            request.method, self.target + request.path_qs, data=io.BytesIO(body), headers=headers
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@asynccontextmanager
async def faulty_proxy(target: str) -> AsyncIterator[Proxy]:
    async with ClientSession() as session:
        proxy = Proxy(target, session)
        app = web.Application(client_max_size=32 << 20)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        async with serving(app) as url:
            proxy.url = url
            yield proxy
            proxy.released.set()
