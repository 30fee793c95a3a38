"""Lists, dead letters, handlers, nodes, numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from actors import task
from node.client import InvalidTask, NotFound, TaskFailed
from runtime.core.slots import slot_of
from tests.support.client_handlers import LATER, add, fail
from tests.support.memory_node import until

if TYPE_CHECKING:
    from node.client import Client
    from tests.support.memory_node import MemoryNode


async def dead_letters(client: Client, count: int) -> list[str]:
    handles = await client.submit_many(task(fail, message=str(n)) for n in range(count))
    met = await client.results(handles, 20, return_errors=True)
    assert all(isinstance(each, TaskFailed) for each in met)
    return [handle.id for handle in handles]


async def test_lists_are_read_page_by_page_newest_first(client: Client) -> None:
    handles = await client.submit_many([("add", {"a": n}, {"run_at": LATER}) for n in range(1_203)])
    listed = [info.id async for info in client.tasks()]
    assert listed == [handle.id for handle in reversed(handles)]
    assert [info.id async for info in client.tasks(limit=3)] == listed[:3]
    first = await client.page(limit=2)
    second = await client.page(limit=2, cursor=first.next_cursor)
    assert [info.id for info in (*first.tasks, *second.tasks)] == listed[:4]


async def test_lists_are_filtered(client: Client) -> None:
    ended = await client.submit(task(add, a=1))
    await ended.result(10)
    waits = await client.submit(task(add, a=1).options(run_at=LATER, idempotency_key="k,1"))
    now = datetime.now(UTC)

    async def ids(**which: object) -> list[str]:
        return [info.id async for info in client.tasks(**which)]  # type: ignore[arg-type]  # every field in turn

    assert await ids(state="succeeded") == [ended.id]
    assert await ids(state=["succeeded", "scheduled"]) == [waits.id, ended.id]
    assert await ids(idempotency_key="k,1") == [waits.id]
    assert await ids(ids=[ended.id]) == [ended.id]
    assert await ids(handler="fail") == []
    assert await ids(created_after=now + timedelta(hours=1)) == []
    assert len(await ids(created_before=now + timedelta(hours=1), handler="add")) == 2
    with pytest.raises(InvalidTask, match="created_after has no time zone"):
        await ids(created_after=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(InvalidTask) as caught:
        await ids(state="lost")
    assert caught.value.errors


async def test_dead_letters_are_listed_replayed_and_purged(client: Client) -> None:
    ids = await dead_letters(client, 3)
    assert {info.id async for info in client.dead()} == set(ids)
    assert {info.error.message async for info in client.dead(error_type="ValueError") if info.error} == {
        "0",
        "1",
        "2",
    }
    assert [info async for info in client.dead(error_type="KeyError")] == []
    assert (await client.replay(error_type="ValueError", dry_run=True)).matched == 3
    replayed = await client.replay(ids=ids[:1])
    assert (replayed.matched, replayed.changed, replayed.more) == (1, 1, False)
    with pytest.raises(TaskFailed):
        await client.handle(ids[0]).result(10)
    assert (await client.purge(handler="fail")).changed == 3
    with pytest.raises(NotFound):
        await client.get(ids[0])


async def test_no_filter_means_nothing_unless_everything_is_said(client: Client) -> None:
    await client.submit(task(add, a=1).options(run_at=LATER))
    for act in (client.cancel_matching, client.replay, client.purge):
        with pytest.raises(InvalidTask) as caught:
            await act()
        assert [pointer for pointer, _ in caught.value.errors] == ["#/filter"]
    assert (await client.cancel_matching(everything=True, dry_run=True)).changed == 0
    assert (await client.cancel_matching(everything=True)).changed == 1


async def test_handlers_pause_and_resume(client: Client) -> None:
    assert {entry["name"] for entry in await client.handlers()} >= {"add", "fail", "gate"}
    assert "a" in (await client.handler("add"))["schema"]["properties"]
    assert (await client.pause("add"))["paused"] is True
    t = await client.submit(task(add, a=4))
    info = await t.status()
    assert info.state in {"ready", "running", "succeeded"}
    assert (await client.resume("add"))["paused"] is False
    assert await t.result(20) == 4
    for act in (client.handler, client.pause, client.resume):
        with pytest.raises(NotFound):
            await act("nobody/there")


async def test_nodes_numbers_and_readiness(client: Client, node: MemoryNode) -> None:
    assert [row["name"] for row in (await client.cluster())["nodes"]] == ["n1"]
    assert [(row["name"], row["slots"]) for row in (await client.ring())["nodes"]] == [("n1", 4096)]
    assert [view["number"] for view in await client.views(limit=5)] == [1]
    assert (await client.stats())["node"] == "n1"
    assert await client.ready() is True
    await node.drain()
    assert await client.ready() is False


async def test_a_key_is_located(client: Client) -> None:
    place = await client.locate("k/ä?&")
    assert (place["slot"], place["node"]) == (slot_of("k/ä?&"), "n1")
    assert (await client.locate("k", handler="nobody"))["node"] is None
    with pytest.raises(InvalidTask):
        await client.locate("")


async def test_a_node_is_drained(client: Client, node: MemoryNode) -> None:
    with pytest.raises(NotFound, match="no node 'nobody/there' is alive"):
        await client.drain("nobody/there")
    assert (await client.drain("n1"))["drain_requested"] is True
    await until(lambda: node.service.draining)
