"""Look at, wait for, list, cancel and retry single tasks."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.memory_node import until

if TYPE_CHECKING:
    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode

NOBODY = "01a20bf4-bab6-7000-9086-cac67895897f"


@pytest.mark.parametrize("bad", ["x", NOBODY[:-1], NOBODY + "0", f"{{{NOBODY[:-2]}}}", NOBODY, "%00", "%ff"])
@pytest.mark.parametrize(
    ("method", "rest"),
    [("GET", ""), ("GET", "/result"), ("GET", "/attempts"), ("POST", "/cancel"), ("POST", "/retry")],
)
async def test_what_is_no_task_is_not_found(http: Http, method: str, rest: str, bad: str) -> None:
    answer = await http.call(method, f"/v1/tasks/{bad}{rest}")
    assert (answer.status, answer.slug) == (404, "task-not-found")


async def test_a_long_poll_ends_when_the_task_does(http: Http, gates: Gates) -> None:
    task = await http.submit("gate")
    polls = [asyncio.create_task(http.get(f"/v1/tasks/{task['id']}", wait="30")) for _ in range(5)]
    await gates.started["g"].wait()
    assert not any(poll.done() for poll in polls)
    gates.opened["g"].set()
    for poll in polls:
        assert (await poll).json["state"] == "succeeded"


async def test_a_long_poll_ends_with_the_present_state_in_time(http: Http, gates: Gates) -> None:
    task = await http.submit("gate")
    answer = await http.get(f"/v1/tasks/{task['id']}", wait="0.05")
    assert (answer.status, answer.json["state"], answer.json["node"]) == (200, "running", "n1")
    assert "waiting" not in answer.json


async def test_long_polls_are_answered_when_the_node_drains(
    http: Http, gates: Gates, node: MemoryNode
) -> None:
    task = await http.submit("gate")
    await gates.started["g"].wait()
    polls = [asyncio.create_task(http.get(f"/v1/tasks/{task['id']}", wait="60")) for _ in range(3)]
    posted = asyncio.create_task(
        http.post("/v1/tasks?wait=60", {"handler": "gate", "payload": {"name": "g"}})
    )
    await until(lambda: len(node.api.long_polls) == 4)
    async with asyncio.timeout(10):
        await node.drain(within_s=0.0)
        for poll in [*polls, posted]:
            answer = await poll
            assert answer.status in {200, 202}
            assert answer.json["state"] in {"running", "ready"}
    assert (await http.get("/readyz")).slug == "not-ready"


async def test_a_poll_whose_client_has_left_is_ended(
    http: Http, gates: Gates, node: MemoryNode, caplog: pytest.LogCaptureFixture
) -> None:
    task = await http.submit("gate")
    stays = asyncio.create_task(http.get(f"/v1/tasks/{task['id']}", wait="60"))
    leaves = asyncio.create_task(http.get(f"/v1/tasks/{task['id']}", wait="60"))
    await until(lambda: len(node.api.long_polls) == 2)
    assert node.api.long_polls.end_abandoned() == 0
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    await until(lambda: node.api.long_polls.end_abandoned() == 1)
    await until(lambda: len(node.api.long_polls) == 1)
    gates.opened["g"].set()
    assert (await stays).json["state"] == "succeeded"
    assert not [record for record in caplog.records if record.name.startswith(("node.http", "aiohttp"))]


@pytest.mark.parametrize("wait", ["-1", "60.1", "x", "nan", "inf", ""])
async def test_wait_has_bounds(http: Http, wait: str) -> None:
    task = await http.submit("add", {"a": 1})
    for answer in (
        await http.get(f"/v1/tasks/{task['id']}", wait=wait),
        await http.post(f"/v1/tasks?wait={wait}", {"handler": "add", "payload": {"a": 1}}),
    ):
        assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", ["?wait"])


async def test_unknown_parameters_are_refused(http: Http) -> None:
    for path in ("/v1/tasks?states=ready", "/v1/handlers?x=1", "/v1/dead?x=1", "/v1/stats?x=1"):
        answer = await http.get(path)
        assert (answer.status, answer.slug) == (422, "invalid-request"), path


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "text ✓", [1, {"a": None}], {"k": [[]]}, 2**63 - 1])
async def test_json_results_come_inline_and_raw(http: Http, value: Any) -> None:
    task = await http.done("echo", {"value": value})
    assert task["result"] == value
    raw = await http.get(f"/v1/tasks/{task['id']}/result")
    assert (raw.status, raw.headers["Content-Type"], raw.json) == (200, "application/json", value)


async def test_results_of_bytes_come_raw_only(http: Http) -> None:
    task = await http.done("raw")
    assert "result" not in task
    assert task["result_bytes"] == 10
    raw = await http.get(f"/v1/tasks/{task['id']}/result")
    assert (raw.headers["Content-Type"], raw.body) == ("application/octet-stream", b"\x00\xff<script>")
    assert raw.headers["X-Content-Type-Options"] == "nosniff"


async def test_there_is_no_result_before_the_end_and_after_a_failure(http: Http, gates: Gates) -> None:
    running = await http.submit("gate")
    failed = await http.done("fail", {"message": "no luck"})
    delayed = await http.submit("add", {"a": 1}, delay_s=100)
    cancelled = await http.post(f"/v1/tasks/{delayed['id']}/cancel")
    assert cancelled.json["state"] == "cancelled"
    expected = {
        running["id"]: "task-not-finished",
        failed["id"]: "task-failed",
        delayed["id"]: "task-cancelled",
    }
    for task_id, slug in expected.items():
        answer = await http.get(f"/v1/tasks/{task_id}/result")
        assert (answer.status, answer.slug) == (409, slug)
    assert "no luck" in (await http.get(f"/v1/tasks/{failed['id']}/result")).json["detail"]


async def test_an_expired_result_is_gone(http: Http, node: MemoryNode) -> None:
    task = await http.done("add", {"a": 1})
    outcome = node.store._tables.outcomes[uuid.UUID(task["id"])]
    object.__setattr__(outcome, "result", None)
    answer = await http.get(f"/v1/tasks/{task['id']}/result")
    assert (answer.status, answer.slug) == (410, "result-expired")


async def test_a_failure_is_told(http: Http) -> None:
    task = await http.done("fail", {"message": "no luck"})
    assert (task["state"], task["failures"], task["max_attempts"]) == ("failed", 1, 1)
    error = task["error"]
    assert (error["type"], error["message"], error["attempt"]) == ("ValueError", "no luck", 1)
    assert "in fail" in error["traceback"]


async def test_attempts_tell_what_each_met(http: Http, gates: Gates) -> None:
    task = await http.done("fail", {"message": "first"})
    await http.post(f"/v1/tasks/{task['id']}/retry")
    await http.finished(task["id"])
    rows = (await http.get(f"/v1/tasks/{task['id']}/attempts")).json["attempts"]
    assert [(row["attempt"], row["kind"]) for row in rows] == [(1, "replayed"), (2, "failed")]
    assert all(row["error"]["message"] == "first" and row["node"] == "n1" for row in rows)
    assert all(row["started_at"] and row["ended_at"] for row in rows)
    running = await http.submit("gate")
    await gates.started["g"].wait()
    rows = (await http.get(f"/v1/tasks/{running['id']}/attempts")).json["attempts"]
    assert [(row["attempt"], row["kind"], row["ended_at"]) for row in rows] == [(1, "running", None)]
    delayed = await http.submit("add", {"a": 1}, delay_s=100)
    assert (await http.get(f"/v1/tasks/{delayed['id']}/attempts")).json == {"attempts": []}


async def test_waiting_says_why(http: Http, node: MemoryNode) -> None:
    delayed = await http.submit("add", {"a": 1}, delay_s=100)
    assert delayed["waiting"]["reason"] == "due_later"
    assert delayed["waiting"]["until"] == delayed["run_at"]
    busy = await http.submit("later")
    await until(lambda: not node.world.capacity.taken)
    task = (await http.get(f"/v1/tasks/{busy['id']}")).json
    assert task["waiting"]["reason"] == "retry_backoff"
    assert task["waiting"]["detail"] == "failed once; 3 are allowed"
    assert task["waiting"]["until"] > task["created_at"]
    tagged = await http.submit("add", {"a": 1}, requires=["gpu"])
    assert tagged["waiting"]["reason"] == "no_tags"
    assert "gpu" in tagged["waiting"]["detail"]


async def test_lists_are_filtered_and_paged(http: Http) -> None:
    for n in range(7):
        await http.done("add", {"a": n}, idempotency_key=f"k{n}")
    failed = await http.done("fail")
    seen: list[Any] = []
    path, pages = "/v1/tasks?limit=3&handler=add", 0
    while True:
        page = (await http.get(path)).json
        seen += page["tasks"]
        pages += 1
        if page["next_cursor"] is None:
            break
        path = f"/v1/tasks?limit=3&handler=add&cursor={page['next_cursor']}"
    assert [task["idempotency_key"] for task in seen] == [f"k{n}" for n in reversed(range(7))]
    assert pages >= 3
    assert all("result" not in task for task in seen)

    async def ids(query: str) -> list[str]:
        return [task["id"] for task in (await http.get(f"/v1/tasks?{query}")).json["tasks"]]

    assert await ids("state=failed") == [failed["id"]]
    assert len(await ids("state=failed,succeeded")) == len(await ids("state=failed&state=succeeded")) == 8
    assert await ids("idempotency_key=k3") == [seen[3]["id"]]
    assert await ids(f"ids={seen[0]['id']},{seen[1]['id']}") == [seen[0]["id"], seen[1]["id"]]
    assert await ids("error_type=ValueError") == [failed["id"]]
    assert await ids("error_type=KeyError") == []
    assert await ids(f"created_after={seen[1]['created_at']}&handler=add") != []
    assert await ids("created_after=2031-01-31T12:00:00%2B02:00") == []
    assert len(await ids("created_before=2031-01-31T12:00:00Z")) == 8


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=501", "?limit"),
        ("limit=x", "?limit"),
        ("limit=1&limit=2", "?limit"),
        ("cursor=x", "?cursor"),
        ("state=done", "?state/0"),
        ("state=", "?state"),
        ("workflow_id=x", "?workflow_id"),
        ("ids=x", "?ids/0"),
        ("created_after=yesterday", "?created_after"),
        ("created_after=2031-01-31T12:00:00%2B99:00", "?created_after"),
        ("actor_key=", "?actor_key"),
        ("handler=a%00b", "?handler"),
    ],
)
async def test_conditions_that_are_not_allowed(http: Http, query: str, pointer: str) -> None:
    for path in ("/v1/tasks", "/v1/dead"):
        answer = await http.get(f"{path}?{query}")
        assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", [pointer])


async def test_cancel_is_repeatable(http: Http, gates: Gates) -> None:
    delayed = await http.submit("add", {"a": 1}, delay_s=100)
    for _ in range(2):
        answer = await http.post(f"/v1/tasks/{delayed['id']}/cancel")
        assert (answer.status, answer.json["state"]) == (200, "cancelled")
    running = await http.submit("gate")
    await gates.started["g"].wait()
    first = await http.post(f"/v1/tasks/{running['id']}/cancel")
    assert (first.status, first.json["state"]) == (200, "running")
    assert first.json["cancel_requested_at"].endswith("Z")
    assert (await http.finished(running["id"]))["state"] == "cancelled"
    done = await http.done("add", {"a": 1})
    assert (await http.post(f"/v1/tasks/{done['id']}/cancel")).json["state"] == "succeeded"


async def test_retry_opens_a_new_run(http: Http, gates: Gates) -> None:
    task = await http.done("fail")
    answer = await http.post(f"/v1/tasks/{task['id']}/retry")
    assert answer.status == 202
    assert (answer.json["failures"], answer.json["attempt"]) == (0, 1)
    again = await http.finished(task["id"])
    assert (again["state"], again["attempt"], again["failures"]) == ("failed", 2, 1)
    done = await http.done("add", {"a": 1})
    running = await http.submit("gate")
    for other in (done, running):
        refused = await http.post(f"/v1/tasks/{other['id']}/retry")
        assert (refused.status, refused.slug) == (409, "wrong-state")
        assert refused.json["state"] in {"succeeded", "running"}
