# pyright: strict
"""How callers use the client. Every line marked `# E:` must be an error in both type checkers, and no other line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, assert_type

from actors import task
from node.client import Client, ClientError, SyncClient, SyncTaskHandle, TaskHandle, TaskInfo
from tests.support.client_handlers import Page, add, page, raw


async def asynchronous(client: Client) -> None:
    t = await client.submit(task(page, url="x", day=date(2030, 1, 1)).options(priority="high"))
    assert_type(t, TaskHandle[Page])
    assert_type(await t.result(timeout_s=30), Page)
    assert_type(await client.call(task(raw, size=1)), bytes)
    assert_type(await client.call("raw", {"size": 1}, timeout_s=3), Any)
    assert_type(await client.submit("page", {"url": "x"}, priority="low", delay_s=5), TaskHandle[Any])
    many = await client.submit_many(task(add, a=n) for n in range(3))
    assert_type(many, list[TaskHandle[int]])
    assert_type(await client.results(many, 5), list[int])
    assert_type(await client.results(many, return_errors=True), list[int | ClientError])
    async for each in client.as_ended(many):
        assert_type(each, TaskHandle[int])
    await client.submit_many([("add", {"a": 1}), task(add, a=2), ("add", {"a": 3}, {"priority": "low"})])
    assert_type(client.handle(t.id, like=task(add, a=1)), TaskHandle[int])
    async for info in client.tasks(state=["failed", "cancelled"], handler="add"):
        assert_type(info, TaskInfo)
    await client.submit("add", {"a": 1}, priority="urgent")  # E: no such priority
    await client.submit("add", {"a": 1}, delay="5m")  # E: no such option
    await client.submit(task(add, a=1), priority="low")  # E: a Task holds its options
    number: str = await client.call(task(add, a=1))  # E: its result is an int
    client.tasks(state="lost")  # E: no such state
    client.tasks(colour="red")  # E: no such filter
    assert number


def synchronous(client: SyncClient) -> None:
    t = client.submit(task(page, url="x", day=date(2030, 1, 1)))
    assert_type(t, SyncTaskHandle[Page])
    assert_type(t.result(timeout_s=30), Page)
    assert_type(client.call(task(add, a=1)), int)
    many = client.submit_many(task(add, a=n) for n in range(3))
    assert_type(client.results(many, 5), list[int])
    assert_type(client.results(many, return_errors=True), list[int | ClientError])
    assert_type(client.tasks(limit=5), Iterator[TaskInfo])
    assert_type(client.handlers(), list[Mapping[str, Any]])
    wrong: Sequence[str] = client.results(many)  # E: they are int
    client.submit("add", {"a": 1}, delay="5m")  # E: no such option
    assert wrong
