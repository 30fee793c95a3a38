"""Resources of a node: opened once before its first task, shared by all, closed when it drains.

    noria dev examples/03_resources.py

    noria submit fetch url=http://localhost:8080/livez --wait

Handlers ask for them by type. A test gives its own instead, and needs no network:
`Harness(fetch, resources={ClientSession: FakeSession()})`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout

from actors import Context, Fail, handler, lifespan


@dataclass(frozen=True)
class Fetched:
    url: str
    status: int
    size_bytes: int


@lifespan
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=20)) as session:
        yield session


@handler(timeout_s=30, max_attempts=3)
async def fetch(ctx: Context, url: str) -> Fetched:
    async with ctx.use(ClientSession).get(url) as response:
        if response.status == 404:
            raise Fail(f"{url} is gone")
        response.raise_for_status()  # any exception is tried again
        return Fetched(url, response.status, len(await response.read()))
