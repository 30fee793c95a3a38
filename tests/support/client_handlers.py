"""Handlers that client and CLI tests call; also a module that a node can load."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from actors import Context, handler
from actors.authoring.registry import Registry


class Gates:
    """Lets tests hold bodies back: `gate` says that it has started, then waits until it is opened."""

    def __init__(self) -> None:
        self.started: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.opened: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


GATES = Gates()


@dataclass(frozen=True)
class Page:
    url: str
    day: date
    links: tuple[str, ...] = ()


@handler("add")
async def add(ctx: Context, a: int, b: int = 0) -> int:
    return a + b


@handler("echo")
async def echo(ctx: Context, value: Any = None) -> Any:
    return value


@handler("page")
async def page(ctx: Context, url: str, day: date) -> Page:
    return Page(url, day + timedelta(days=1), (url + "/1", url + "/2"))


@handler("raw")
async def raw(ctx: Context, size: int) -> bytes:
    return b"\x00\xff" * size


@handler("gate")
async def gate(ctx: Context, name: str = "g") -> str:
    GATES.started[name].set()
    await GATES.opened[name].wait()
    return name


@handler("fail", max_attempts=1)
async def fail(ctx: Context, message: str = "boom") -> None:
    raise ValueError(message)


@handler("progress")
async def progress(ctx: Context) -> None:
    ctx.progress(3, 10, "lifting")
    GATES.started["progress"].set()
    await GATES.opened["progress"].wait()


REGISTRY = Registry(add, echo, page, raw, gate, fail, progress)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
