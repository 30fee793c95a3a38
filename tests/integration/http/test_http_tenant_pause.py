"""A paused tenant: its tasks wait, what runs goes on, and all others are served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.intake.requests import TaskSpec
from node.client import Client, SyncClient
from runtime.core.task import State
from tests.support.memory_node import until

if TYPE_CHECKING:
    from uuid import UUID

    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode


async def submit(node: MemoryNode, tenant: str, handler: str = "add") -> UUID:
    payload = {"a": 1} if handler == "add" else {}
    spec = TaskSpec(
        handler=handler, payload=payload, tenant=tenant, actor_key="k" if handler == "echo" else None
    )
    [made] = await node.service.submit([spec])
    return made.task.id


async def state(node: MemoryNode, task_id: UUID) -> State:
    view = await node.store.get(task_id)
    assert view is not None
    return view.state


async def test_its_tasks_wait_until_it_goes_on(http: Http, node: MemoryNode, gates: Gates) -> None:
    running = await submit(node, "acme", "gate")
    await gates.started["g"].wait()
    paused = await http.post("/v1/tenants/acme/pause")
    assert (paused.status, paused.json["paused"], paused.json["name"]) == (200, True, "acme")
    assert (await http.post("/v1/tenants/acme/pause")).json["paused"] is True
    await until(lambda: "acme" in node.world.capacity.paused.tenants)
    held = [await submit(node, "acme"), await submit(node, "acme", "echo")]
    gates.opened["g"].set()
    assert (await node.service.wait(running, 10)).state is State.SUCCEEDED  # type: ignore[union-attr]
    other = await submit(node, "other")
    assert (await node.service.wait(other, 10)).state is State.SUCCEEDED  # type: ignore[union-attr]
    assert [await state(node, task_id) for task_id in held] == [State.READY] * 2
    view = await node.store.get(held[0])
    assert view is not None
    assert node.service.waits_for(view) == ("paused", "the tenant acme is paused")
    rows = {row["name"]: row["paused"] for row in (await http.get("/v1/tenants")).json["tenants"]}
    assert rows["acme"] is True
    assert rows["other"] is False
    assert (await http.post("/v1/tenants/acme/resume")).json["paused"] is False
    for task_id in held:
        assert (await node.service.wait(task_id, 10)).state is State.SUCCEEDED  # type: ignore[union-attr]


async def test_the_clients(node: MemoryNode) -> None:
    async with Client(node.url) as client:
        assert (await client.pause_tenant("new"))["paused"] is True

    def in_a_thread() -> bool:
        with SyncClient(node.url) as sync:
            assert sync.pause_tenant("new")["paused"] is True
            return bool(sync.resume_tenant("new")["paused"])

    assert await asyncio.to_thread(in_a_thread) is False
