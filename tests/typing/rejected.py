# pyright: strict
"""Every line marked `# E:` must be an error in both type checkers, and no other line."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type

from actors import Actor, Batch, BatchContext, Context, Retry, Task, actor, field, handler, lifespan, task
from tests.typing.sample import Account, Order, Page, embed, fingerprint, index, scrape, send, ship

task(scrape, urll="x")  # E: no such argument
task(scrape, url=5)  # E: wrong type
task(scrape)  # E: url is missing
task(scrape, "x", 1, 2)  # E: too many
task(scrape, url="x", depth="1")  # E: wrong type
task(fingerprint, path=b"x")  # E: wrong type in a def
task(fingerprint, ctx=Context.for_test(), path="x")  # E: the context is not an argument
task(ship, order={"id": 1}, to={"country": "NL"})  # E: a dict is not a model
task(Account.deposit, amount_cents=5)  # E: a method needs an actor
task(len)  # E: not a handler's signature

task(send, [Order(id=1, amount=Decimal(1))])  # E: one value of the list, not a list
task(embed, 5)  # E: wrong type
task(index)  # E: the value is missing
task(index, "a", "b")  # E: one value makes a task
sent: Task[str] = task(send, Order(id=1, amount=Decimal(1)))  # E: its result is a Page

page: Task[str] = task(scrape, url="x")  # E: its result is a Page
digest: Task[int] = task(fingerprint, path="x")  # E: its result is a str
assert_type(task(scrape, url="x").decode_result(b""), str)  # E: decodes into a Page

task(scrape, url="x").options(priority="urgent")  # E: no such priority
task(scrape, url="x").options(delay="1")  # E: no such option
task(scrape, url="x").options(max_attempts="3")  # E: wrong type
task(scrape, url="x").handler = "other"  # E: frozen

actor(Account, 42)  # E: a key is text
actor(Page, "42")  # E: not an actor
actor(Account, "42").task(Account.deposit, amount="5")  # E: no such argument
actor(Account, "42").task(Account.deposit, amount_cents="5")  # E: wrong type
actor(Account, "42").task(scrape, url="x")  # E: not a method
Account(balance="5")  # E: no such field of the state
Account(balance_cents="5")  # E: wrong type


class Basket(Actor):
    items: list[str] = field(default_factory=list[int])  # E: wrong type


@handler(timeout="30")  # E: no such option
async def no_option(ctx: Context) -> None: ...


@handler(priority="urgent")  # E: no such priority
async def no_priority(ctx: Context) -> None: ...


@handler("greet")  # E: no context
async def no_context(name: str) -> str:
    return name


@handler(batch=Batch(max=10))  # E: the context of one task
async def no_batch(ctx: Context, text: list[str]) -> None: ...


@handler  # E: how many is not said
async def no_size(ctx: BatchContext, text: list[str]) -> None: ...


@handler(batch=Batch(max=10))  # E: no list
async def no_list(ctx: BatchContext, text: str) -> None: ...


@handler(batch=Batch(max=10), cpu=True)  # E: not in child processes
def no_process(ctx: BatchContext, text: list[str]) -> None: ...


@handler(batch=Batch(max="10"))  # E: wrong type
async def no_number(ctx: BatchContext, text: list[str]) -> None: ...


@lifespan  # E: not an async generator
async def no_resource() -> int:
    return 1


def uses(ctx: Context) -> str:
    ctx.submit("scrape")  # E: not a task
    ctx.progress("half")  # E: not a number
    ctx.use(Page("x"))  # E: a value, not a type
    raise Retry("busy", after_s="1")  # E: not a number
