"""Another priority for waiting tasks, over HTTP, by the clients and on the command line."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from node.client import Client, Refused, SyncClient

if TYPE_CHECKING:
    from tests.support.http_api import Answer, Gates, Http
    from tests.support.memory_node import MemoryNode

LATER: dict[str, Any] = {"handler": "add", "payload": {"a": 1}, "delay_s": 3600}


async def patch(http: Http, task_id: str, body: Any) -> Answer:
    return await http.call("PATCH", f"/v1/tasks/{task_id}", json=body)


async def test_one_task(http: Http, gates: Gates) -> None:
    task = (await http.post("/v1/tasks", LATER)).json
    changed = await patch(http, task["id"], {"priority": "high"})
    assert (changed.status, changed.json["priority"], changed.json["state"]) == (200, "high", "scheduled")
    assert (await http.get(f"/v1/tasks/{task['id']}")).json["priority"] == "high"
    for body, pointer in (
        ({"priority": "urgent"}, "#/priority"),
        ({}, "#/priority"),
        ({"lane": "low"}, "#/lane"),
    ):
        refused = await patch(http, task["id"], body)
        assert refused.status == 422
        assert pointer in [error["pointer"] for error in refused.json["errors"]]
    running = (await http.post("/v1/tasks", {"handler": "gate"})).json
    await gates.started["g"].wait()
    refused = await patch(http, running["id"], {"priority": "low"})
    assert (refused.status, refused.slug, refused.json["state"]) == (409, "wrong-state", "running")
    assert (await patch(http, "01a20c19-6313-7000-99af-7ef162549394", {"priority": "low"})).status == 404


async def test_all_that_match(http: Http) -> None:
    for _ in range(3):
        await http.post("/v1/tasks", LATER)
    await http.post("/v1/tasks", LATER | {"handler": "echo", "payload": {}})
    body = {"filter": {"handler": "add"}, "priority": "low"}
    counted = await http.post("/v1/tasks/priority", body | {"dry_run": True})
    assert counted.json == {"matched": 3, "changed": 0, "more": False}
    assert (await http.post("/v1/tasks/priority", body)).json == {"matched": 3, "changed": 3, "more": False}
    assert (await http.post("/v1/tasks/priority", body)).json == {"matched": 0, "changed": 0, "more": False}
    rows = (await http.get("/v1/tasks")).json["tasks"]
    assert {(row["handler"], row["priority"]) for row in rows} == {("add", "low"), ("echo", "medium")}
    refused = await http.post("/v1/tasks/priority", {"priority": "low"})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "#/filter")


async def test_the_clients(node: MemoryNode, gates: Gates) -> None:
    async with Client(node.url) as client:
        task = await client.submit("add", {"a": 1}, delay_s=3600)
        assert (await client.prioritize(task.id, "high")).priority == "high"
        running = await client.submit("gate", {"name": "g"})
        await gates.started["g"].wait()
        with pytest.raises(Refused) as refused:
            await client.prioritize(running.id, "low")
        assert refused.value.state == "running"

    def in_a_thread() -> int:
        with SyncClient(node.url) as sync:
            assert sync.prioritize(task.id, "medium").priority == "medium"
            return sync.prioritize_matching("low", handler="add").changed

    assert await asyncio.to_thread(in_a_thread) == 1
