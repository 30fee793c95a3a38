"""Unique tasks over HTTP, by the clients and the CLI's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors import Harness, InvalidInput, Unique, handler
from actors.authoring.context import Context
from actors.authoring.registry import Registry
from actors.authoring.task import task
from node.client import Client, NotUnique, TaskCancelled
from runtime.adapters.telemetry import PrometheusTelemetry
from runtime.core.task import State
from runtime.errors import WrongState
from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode

GATE = {"handler": "gate", "payload": {"name": "x"}}


async def test_the_other_task_is_told_or_refused(http: Http, gates: Gates) -> None:
    first = (await http.post("/v1/tasks", {**GATE, "unique": {"mode": "existing"}})).json
    found = await http.post("/v1/tasks", {**GATE, "unique": {"mode": "existing"}})
    assert (found.status, found.json["id"], found.json["duplicate"]) == (200, first["id"], True)
    assert found.headers["Location"] == f"/v1/tasks/{first['id']}"
    other = {"handler": "gate", "payload": {"name": "y"}, "unique": {"mode": "existing"}}
    assert (await http.post("/v1/tasks", other)).status == 202, "other arguments"
    refused = await http.post("/v1/tasks", {**GATE, "unique": {"mode": "reject"}})
    assert (refused.status, refused.json["type"]) == (409, "urn:noria:error:not-unique")
    assert refused.json["existing_id"] == first["id"]
    assert refused.json["errors"] == [
        {"pointer": "#/unique", "detail": f"task {first['id']} stands for the same"}
    ]
    batch = await http.post("/v1/tasks/batch", {"tasks": [GATE, {**GATE, "unique": {"mode": "reject"}}]})
    assert (batch.status, batch.json["errors"][0]["pointer"]) == (409, "#/tasks/1/unique")
    gates.opened["x"].set()
    await http.finished(first["id"])
    assert (await http.post("/v1/tasks", {**GATE, "unique": {"mode": "reject"}})).status == 202


async def test_the_one_that_waits_is_replaced(http: Http, node: MemoryNode) -> None:
    body: dict[str, Any] = {"handler": "add", "delay_s": 3600, "unique": {"mode": "replace", "key": "k"}}
    first = (await http.post("/v1/tasks", {**body, "payload": {"a": 1}})).json
    second = await http.post("/v1/tasks", {**body, "payload": {"a": 2}})
    assert (second.status, second.json["duplicate"]) == (202, False)
    old = (await http.get(f"/v1/tasks/{first['id']}")).json
    assert (old["state"], old["error"]["type"]) == ("cancelled", "Replaced")
    assert second.json["id"] in old["error"]["message"]
    told = node.world.activity.events.since(0)[-1]
    assert (str(told.id), told.state, told.error_type) == (first["id"], State.CANCELLED, "Replaced")
    assert isinstance(node.world.telemetry, PrometheusTelemetry)
    counter = node.world.telemetry._counters["unique_tasks_total"]
    assert counter.labels(what="replaced")._value.get() == 1


@pytest.mark.parametrize(
    ("unique", "pointer"),
    [
        ({}, "#/unique/mode"),
        ({"mode": "once"}, "#/unique/mode"),
        ({"mode": "reject", "for": 1}, "#/unique/for"),
        ({"mode": "throttle"}, "#/unique/for_s"),
        ({"mode": "throttle", "for_s": 0}, "#/unique/for_s"),
        ({"mode": "debounce", "for_s": 5, "max_s": 1}, "#/unique/max_s"),
        ({"mode": "reject", "key": ""}, "#/unique/key"),
        ("reject", "#/unique"),
    ],
)
async def test_what_is_wrong_is_named(http: Http, unique: Any, pointer: str) -> None:
    answer = await http.post("/v1/tasks", {**GATE, "unique": unique})
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


async def test_a_debounced_task_has_no_other_due_time(http: Http) -> None:
    rule = {"mode": "debounce", "for_s": 60}
    answer = await http.post("/v1/tasks", {**GATE, "unique": rule, "delay_s": 1})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "#/delay_s")
    made = (await http.post("/v1/tasks", {**GATE, "unique": rule})).json
    assert (made["state"], made["waiting"]["reason"]) == ("scheduled", "due_later")


async def test_schedules_and_children_are_not_unique(http: Http) -> None:
    schedule = {"every_s": 60, "task": {**GATE, "unique": {"mode": "reject"}}}
    refused = await http.call("PUT", "/v1/schedules/s", json=schedule)
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "#/task/unique")

    @handler
    async def parent(ctx: Context) -> None:
        ctx.submit(task(parent).options(unique=Unique(mode="reject")))

    async with Harness(parent) as harness:
        made = await harness.submit(task(parent))
        await harness.run_until_idle()
        assert made.state is State.FAILED
        assert made.error is not None
        assert "only tasks that are posted can be unique" in made.error.message


@handler("once", unique=Unique(mode="reject"))
async def once(ctx: Context, n: int) -> int:
    return n


@handler("last", unique=Unique(mode="debounce", for_s=10, key="k"))
async def last(ctx: Context, n: int) -> int:
    return n


async def test_a_handler_says_it_for_all_that_are_posted() -> None:
    async with Harness(once, last) as harness:
        one = await harness.submit(task(once, n=1).options(delay_s=60))
        with pytest.raises(WrongState, match="is unique"):
            await harness.submit(task(once, n=1))
        assert (await harness.submit(task(once, n=2))).result == 2
        await harness.advance(60)
        assert one.result == 1
        first = await harness.submit(task(last, n=1))
        second = await harness.submit(task(last, n=2))
        await harness.advance(9)
        assert (first.state, second.state) == (State.CANCELLED, State.SCHEDULED)
        third = await harness.submit(task(last, n=3).options(unique=Unique(mode="existing", key="k")))
        assert third.id == second.id, "a task's own rule goes before its handler's"
        await harness.advance(1)
        assert second.result == 2


async def test_the_client_tells_them_apart() -> None:
    async with memory_node(Registry(once, last)) as node, Client(node.url) as client:
        first = await client.submit(task(last, n=1))
        found = await client.submit("last", {"n": 2}, unique=Unique(mode="existing", key="k"))
        assert (found.id, found.duplicate, first.duplicate) == (first.id, True, False)
        with pytest.raises(NotUnique) as refused:
            await client.submit(task(last, n=3).options(unique=Unique(mode="reject", key="k")))
        assert (refused.value.existing_id, refused.value.status) == (first.id, 409)
        [again] = await client.submit_many([task(last, n=4).options(unique=Unique(mode="existing", key="k"))])
        assert (again.id, again.duplicate) == (first.id, True)
        await client.submit(task(last, n=5))
        with pytest.raises(TaskCancelled, match="took its place"):
            await first.result(5)
    with pytest.raises(InvalidInput, match="unique/for_s: is required"):
        task(last, n=1).options(unique=Unique(mode="throttle"))
