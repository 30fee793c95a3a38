"""The same API on a whole node with real PostgreSQL: what only the real record can get wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from node.settings import Settings
from node.wiring import open_node
from tests.support.http_api import Http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HANDLERS = """
from typing import Any
from actors import Context, handler

@handler("echo")
async def echo(ctx: Context, value: Any = None) -> Any:
    return value

@handler("fail", max_attempts=1)
async def fail(ctx: Context, message: str = "boom") -> None:
    raise ValueError(message)

@handler("raw")
async def raw(ctx: Context) -> bytes:
    return bytes(range(256))
"""
pytestmark = pytest.mark.allow_blocking("a node reads its handlers when it starts")


@pytest.fixture
async def http(pg_dsn: str, tmp_path: Path) -> AsyncIterator[Http]:
    (tmp_path / "http_postgres_handlers.py").write_text(HANDLERS)
    settings = Settings(
        postgres_dsn=pg_dsn,
        handlers=(str(tmp_path / "http_postgres_handlers.py"),),
        node_name="n1",
        http_port=0,
        max_backlog=1000,
    )
    async with open_node(settings) as node, ClientSession(node.url) as session:
        yield Http(session)


async def test_a_task_from_end_to_end(http: Http) -> None:
    value: Any = {"a": [1, 2**63 - 1, 0.1, "Zoë 😀", None], "b": {}}
    request = {
        "handler": "echo",
        "payload": {"value": value},
        "idempotency_key": "ключ-🔑",
        "actor_key": "k",
        "priority": "high",
        "prefers": ["eu"],
        "timeout_s": 1.5,
        "metadata": {"who": "Zoë"},
    }
    posted = await http.post(
        "/v1/tasks?wait=20", request, headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    )
    task = posted.json
    assert (posted.status, task["state"], task["result"]) == (200, "succeeded", value)
    assert (task["metadata"], task["priority"], task["trace_id"]) == ({"who": "Zoë"}, "high", "a" * 32)
    read = (await http.get(f"/v1/tasks/{task['id']}")).json
    assert read == {name: field for name, field in task.items() if name != "duplicate"}
    assert (await http.get(f"/v1/tasks/{task['id']}/result")).json == value
    again = await http.post("/v1/tasks", request)
    assert (again.status, again.json["id"], again.json["duplicate"]) == (200, task["id"], True)
    other = await http.post("/v1/tasks", request | {"payload": {}})
    assert (other.slug, other.json["existing_id"]) == ("idempotency-key-reused", task["id"])
    [listed] = (await http.get("/v1/tasks", idempotency_key="ключ-🔑")).json["tasks"]
    assert listed["id"] == task["id"]


async def test_a_202_says_what_the_record_says(http: Http) -> None:
    for extra in (
        {"delay_s": 100.5},
        {"run_at": "2031-01-31T12:00:00.123456789+02:00"},
        {"requires": ["gpu"]},
    ):
        answer = await http.post("/v1/tasks", {"handler": "echo", "metadata": {"n": [1.5]}, **extra})
        assert answer.status == 202
        read = (await http.get(answer.headers["Location"])).json
        assert read == {name: field for name, field in answer.json.items() if name != "duplicate"}


async def test_batches_dead_letters_and_bytes(http: Http) -> None:
    tasks = [
        {"handler": "fail", "payload": {"message": f"m{n}"}, "idempotency_key": f"f{n}"} for n in range(3)
    ]
    batch = (await http.post("/v1/tasks/batch", {"tasks": [*tasks, {"handler": "raw"}, tasks[0]]})).json[
        "tasks"
    ]
    assert [row["duplicate"] for row in batch] == [False] * 4 + [True]
    assert batch[4]["id"] == batch[0]["id"]
    for row in batch[:3]:
        assert (await http.finished(row["id"]))["error"]["type"] == "ValueError"
    raw = await http.finished(batch[3]["id"])
    assert raw["result_bytes"] == 256
    assert (await http.get(f"/v1/tasks/{raw['id']}/result")).body == bytes(range(256))
    dead = (await http.get("/v1/dead?error_type=ValueError")).json["tasks"]
    assert [task["error"]["message"] for task in dead] == ["m2", "m1", "m0"]
    replayed = await http.post("/v1/dead/replay", {"filter": {"ids": [batch[0]["id"]]}})
    assert replayed.json == {"matched": 1, "changed": 1, "more": False}
    assert (await http.finished(batch[0]["id"]))["attempt"] == 2
    rows = (await http.get(f"/v1/tasks/{batch[0]['id']}/attempts")).json["attempts"]
    assert [(row["attempt"], row["kind"]) for row in rows] == [(1, "replayed"), (2, "failed")]
    purged = await http.call("DELETE", "/v1/dead", json={"all": True})
    assert purged.json == {"matched": 3, "changed": 3, "more": False}
    assert (await http.get(f"/v1/tasks/{batch[0]['id']}")).slug == "task-not-found"


@pytest.mark.parametrize(
    "query",
    [
        "created_after=1970-01-01T00:00:00Z",
        "created_before=8999-12-31T23:59:59.999999-12:00",
        "created_after=1970-01-01T00:00:00%2B14:00&created_before=1970-01-01T00:00:00Z",
        "cursor=00000000-0000-0000-0000-000000000000",
        "cursor=ffffffff-ffff-ffff-ffff-ffffffffffff&limit=500",
        "handler=%27;drop table noria.task;--&state=failed,ready,running,blocked",
        "actor_key=%F0%9F%98%80&workflow_id=01a20bf4-bab6-7000-9086-cac67895897f",
        "error_type=%25&state=cancelled",
    ],
)
async def test_odd_conditions_find_what_they_should(http: Http, query: str) -> None:
    await http.done("echo")
    for path in ("/v1/tasks", "/v1/dead"):
        answer = await http.get(f"{path}?{query}")
        assert answer.status == 200, answer.body
    everything = (await http.get("/v1/tasks?created_after=1970-01-01T00:00:00Z")).json["tasks"]
    assert len(everything) == 1


async def test_the_rest_of_the_table(http: Http) -> None:
    assert (await http.get("/readyz")).status == 200
    handler = (await http.post("/v1/handlers/echo/pause")).json
    assert (handler["paused"], handler["nodes"]) == (True, ["n1"])
    waiting = await http.submit("echo", delay_s=100)
    cancelled = await http.post("/v1/tasks/cancel", {"filter": {"handler": "echo"}})
    assert cancelled.json == {"matched": 1, "changed": 1, "more": False}
    assert (await http.get(f"/v1/tasks/{waiting['id']}")).json["state"] == "cancelled"
    assert (await http.post("/v1/handlers/echo/resume")).json["paused"] is False
    [node] = (await http.get("/v1/cluster")).json["nodes"]
    assert (node["name"], node["state"], node["slots"]) == ("n1", "active", 4096)
    assert (await http.get("/v1/stats")).json["node"] == "n1"
    assert b"noria_tasks_accepted_total" in (await http.get("/metrics")).body
