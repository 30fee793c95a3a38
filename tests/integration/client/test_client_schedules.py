"""Schedules through the client."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from actors import Actor, Context, handler, task
from actors.authoring.registry import Registry
from node.client import Client, InvalidTask, NotFound
from tests.support.client_handlers import add, page
from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from tests.support.memory_node import MemoryNode


class Counted(Actor, name="counted"):
    beats: int = 0

    @handler
    async def beat(self, ctx: Context) -> int:
        self.beats += 1
        return self.beats


KEYED = Registry(Counted)


async def test_a_task_with_its_options_is_scheduled(client: Client) -> None:
    work = task(page, url="u", day=date(2030, 1, 1)).options(priority="high", max_attempts=7)
    made = await client.put_schedule("pages", work, cron="15 30 4 * * *", time_zone="Asia/Tokyo")
    assert (made.handler, made.cron, made.time_zone) == ("page", "15 30 4 * * *", "Asia/Tokyo")
    assert {at.astimezone(UTC).strftime("%H:%M:%S") for at in made.next} == {"19:30:15"}
    assert (made.last_task_id, made.last_state, made.fired) == (None, None, 0)
    ran = await client.run_schedule("pages")
    assert (ran.priority, ran.max_attempts) == ("high", 7)
    await client.handle(ran.id).result(10)
    found = await client.schedule("pages", times=2)
    assert (found.last_task_id, found.last_state, len(found.next)) == (ran.id, "succeeded", 2)
    assert [one.name for one in await client.schedules()] == ["pages"]
    assert (await client.pause_schedule("pages")).paused_at is not None
    assert (await client.resume_schedule("pages")).next[0] > datetime.now(UTC)
    await client.delete_schedule("pages")
    assert await client.schedules() == []


async def test_what_is_wrong_is_told(client: Client) -> None:
    with pytest.raises(InvalidTask) as refused:
        await client.put_schedule("s", "add", {"a": "x"}, cron="* * * * *")
    assert refused.value.errors[0][0] == "#/task/payload/a"
    with pytest.raises(InvalidTask) as refused:
        await client.put_schedule("s", task(add, a=1).options(idempotency_key="k"), cron="* * * * *")
    assert refused.value.errors[0][0] == "#/task/idempotency_key"
    for call in (client.schedule, client.pause_schedule, client.run_schedule, client.delete_schedule):
        with pytest.raises(NotFound):
            await call("nobody")


async def test_messages_to_keyed_actors_are_scheduled_too() -> None:
    node: MemoryNode
    async with memory_node(KEYED) as node, Client(node.url) as client:
        await client.put_schedule("beat", "counted.beat", options={"actor_key": "7"}, every_s=1)
        results = set()
        for _ in range(3):
            ran = await client.run_schedule("beat")
            results.add(await client.handle(ran.id).result(10))
        assert len(results) == 3
        assert results <= set(range(1, 20))
