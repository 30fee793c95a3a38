# pyright: strict
"""Handlers as an author writes them: clean under mypy and pyright in strict mode, and run by the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from dataclasses import field as plain_field
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, assert_type

from aiohttp import ClientSession
from pydantic import BaseModel
from typing_extensions import TypedDict

from actors import (
    Actor,
    Backoff,
    Batch,
    BatchContext,
    Context,
    Fail,
    Harness,
    Retry,
    Task,
    actor,
    field,
    handler,
    lifespan,
    task,
)


@dataclass
class Page:
    title: str
    links: list[str] = plain_field(default_factory=list[str])

    @classmethod
    def parse(cls, text: str) -> Page:
        title, *links = text.splitlines()
        return cls(title, links)


class Order(BaseModel):
    id: int
    amount: Decimal


class Where(TypedDict):
    country: str
    seen: datetime


@lifespan
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@handler(
    "scrape",
    timeout_s=30,
    max_attempts=5,
    rate_limit="100/s",
    backoff=Backoff(first_s=2, max_s=600),
    give_up_on=(UnicodeError,),
)
async def scrape(ctx: Context, url: str, depth: int = 0) -> Page:
    async with ctx.use(ClientSession).get(url) as response:
        if response.status == 404:
            raise Fail("gone")
        if response.status == 429:
            raise Retry("busy", after_s=60)
        page = Page.parse(await response.text())
    ctx.submit(
        *(
            task(scrape, url=u, depth=depth - 1).options(idempotency_key=f"scrape:{u}")
            for u in page.links
            if depth
        )
    )
    return page


@handler("fingerprint", cpu=True, timeout_s=60)
def fingerprint(ctx: Context, path: str) -> str:
    return f"{ctx.attempt}:{path}"


@handler
def ship(ctx: Context, order: Order, to: Where, gift: bytes | None = None) -> Decimal:
    for done in range(order.id):
        ctx.raise_if_cancelled()
        ctx.progress(done, order.id, "packing")
    if ctx.failures and not gift:
        ctx.snooze(3600)
    return order.amount


class Account(Actor, name="account"):
    state_version: ClassVar[int] = 2
    balance_cents: int = 0
    notes: list[str] = field(default_factory=list[str])

    @classmethod
    def migrate(cls, state: dict[str, Any], from_version: int) -> dict[str, Any]:
        return state | {"notes": [f"migrated from version {from_version}"]}

    @handler
    async def deposit(self, ctx: Context, amount_cents: int) -> int:
        self.balance_cents += amount_cents
        self.notes.append(str(ctx.task_id))
        return self.balance_cents

    @handler(read_only=True)
    async def balance(self, ctx: Context) -> int:
        del ctx
        return self.balance_cents


class Savings(Account, name="savings"):
    rate: float = 0.01


@handler("send", batch=Batch(max=100, wait_s=0.05), max_attempts=5)
async def send(ctx: BatchContext, order: list[Order]) -> list[Page | Exception]:
    ctx.each[0].submit(task(ship, order=order[0], to={"country": "NL", "seen": datetime(2026, 1, 2)}))  # noqa: DTZ001
    return [Page(str(one.id)) if one.amount else Fail("nothing to send") for one in order]


@handler(batch=Batch())
async def index(ctx: BatchContext, text: list[str]) -> None:
    del ctx, text


@handler(batch=Batch(max=8))
async def fetch(ctx: BatchContext, url: list[str]) -> list[int | BaseException]:
    async def size(one: Context, at: str) -> int:
        return len(await (await one.use(ClientSession).get(at)).text())

    return await asyncio.gather(*map(size, ctx.each, url), return_exceptions=True)


@handler(batch=Batch())
def embed(ctx: BatchContext, text: Sequence[str]) -> list[list[float]]:
    ctx.raise_if_cancelled()
    return [[float(len(each))] for each in text]


@handler(batch=Batch())
def judge(ctx: BatchContext, text: list[str]) -> Sequence[bool | Exception]:
    return [each in ctx.handler for each in text]


sending = assert_type(task(send, Order(id=1, amount=Decimal(1))), Task[Page])
indexing = assert_type(task(index, "text"), Task[None])
fetching = assert_type(task(fetch, "https://example.org"), Task[int])
embedding = assert_type(task(embed, "text").options(priority="low"), Task[list[float]])
judging = assert_type(task(judge, "text"), Task[bool])

scraping = assert_type(task(scrape, url="https://example.org", depth=2), Task[Page])
hurried = assert_type(scraping.options(priority="high", metadata={"by": "me"}), Task[Page])
printing = assert_type(task(fingerprint, path="/etc/hosts"), Task[str])
shipping = assert_type(
    task(
        ship,
        order=Order(id=1, amount=Decimal("9.90")),
        to={"country": "NL", "seen": datetime(2026, 1, 2)},  # noqa: DTZ001 - any datetime
    ),
    Task[Decimal],
)
deposit = assert_type(actor(Account, "42").task(Account.deposit, amount_cents=5), Task[int])
inherited = assert_type(actor(Savings, "42").task(Savings.deposit, amount_cents=5), Task[int])
by_name = assert_type(Task(handler="scrape", payload={"url": "https://example.org"}), Task[Any])
anything: Task[object] = scraping  # a task of a Page is a task of an object


def read(body: bytes) -> Page:
    return scraping.decode_result(body)


async def rehearse(session: ClientSession) -> Page:
    async with Harness(scrape, fingerprint, resources={ClientSession: session}) as harness:
        scraped = await harness.submit(scraping)
        await harness.advance(60)
        return assert_type(scraped.result, Page)
