"""Workflows over HTTP: submitted, refused with names, shown, cancelled; tasks that depend on others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.http_api import Answer, Gates, Http

NOBODY = "01890000-0000-7000-8000-000000000000"


def echo(value: int, **fields: Any) -> dict[str, Any]:
    return {"handler": "echo", "payload": {"value": value}, **fields}


DIAMOND: dict[str, Any] = {
    "join": echo(4, depends_on=["left", "right"]),
    "left": echo(2, depends_on=["root"]),
    "right": echo(3, depends_on=["root"]),
    "root": echo(1),
}


async def until(look: Callable[[], Any], within_s: float = 10.0) -> Any:
    async with asyncio.timeout(within_s):
        while not (found := await look()):  # noqa: ASYNC110 - a condition of the record
            await asyncio.sleep(0.02)
    return found


async def ended(http: Http, workflow_id: str) -> Any:
    async def look() -> Any:
        shown = (await http.get(f"/v1/workflows/{workflow_id}")).json
        return shown if shown["ended"] == shown["total"] else None

    return await until(look)


async def test_a_diamond_is_stored_run_and_shown(http: Http) -> None:
    answer = await http.post("/v1/workflows", {"tasks": DIAMOND})
    assert answer.status == 202
    made = answer.json
    assert answer.headers["Location"] == f"/v1/workflows/{made['id']}"
    assert set(made["tasks"]) == set(DIAMOND)
    shown = await ended(http, made["id"])
    assert (shown["state"], shown["total"], shown["counts"]) == ("succeeded", 4, {"succeeded": 4})
    tasks = {task["name"]: task for task in shown["tasks"]}
    assert [task["name"] for task in shown["tasks"]] == ["root", "left", "right", "join"]
    assert tasks["join"]["depends_on"] == [tasks["left"]["id"], tasks["right"]["id"]]
    assert tasks["join"]["started_at"] >= tasks["left"]["finished_at"]
    one = (await http.get(f"/v1/tasks/{made['tasks']['join']}")).json
    assert (one["name"], one["workflow_id"], one["on_parent_failure"]) == ("join", made["id"], "fail")
    listed = (await http.get("/v1/workflows")).json
    assert [(each["id"], each["state"]) for each in listed["workflows"]] == [(made["id"], "succeeded")]
    assert (await http.get(f"/v1/workflows/{made['id']}?tasks=1")).json["tasks"] == [tasks["root"]]


@pytest.mark.parametrize(
    ("tasks", "pointer", "detail"),
    [
        (
            {"a": echo(1, depends_on=["b"]), "b": echo(2, depends_on=["a"])},
            "/a/depends_on",
            "is a cycle: a → b → a",
        ),
        ({"a": echo(1, depends_on=["x"])}, "/a/depends_on/0", "there is no task 'x' in this workflow"),
        ({"a": echo(1), "b": echo(1, depends_on=["a", "a"])}, "/b/depends_on/1", "'a' is named twice"),
        ({"a b": echo(1)}, "/a%20b", "'a b' is no name"),
        ({"a": echo(1), "b": {"handler": "ecko"}}, "/b/handler", "no handler is named 'ecko'"),
        ({"a": {"handler": "ecko"}}, "/a/handler", "no handler is named 'ecko'"),
        ({"a": echo(1, on_parent_failure="perhaps")}, "/a/on_parent_failure", "must be"),
        ({"a": echo(1, depends_on=7)}, "/a/depends_on", "must be a list"),
    ],
    ids=["cycle", "unknown", "twice", "name", "handler", "alone", "policy", "list"],
)
async def test_what_is_wrong_is_named_and_nothing_is_stored(
    http: Http, tasks: Any, pointer: str, detail: str
) -> None:
    answer = await http.post("/v1/workflows", {"tasks": tasks})
    assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", [f"#/tasks{pointer}"])
    assert answer.json["errors"][0]["detail"].startswith(detail)
    assert (await http.get("/v1/tasks")).json["tasks"] == []


async def test_an_empty_workflow_and_one_of_ten_thousand(http: Http) -> None:
    assert (await http.post("/v1/workflows", {"tasks": {}})).pointers == ["#/tasks"]
    many = {f"t{n}": echo(n) for n in range(10_001)}
    answer = await http.post("/v1/workflows", {"tasks": many})
    assert answer.json["errors"][0]["detail"] == "10001 tasks; allowed are 1 to 10000"


async def test_one_key_is_one_workflow(http: Http) -> None:
    body = {"tasks": DIAMOND, "idempotency_key": "k"}
    first = await http.post("/v1/workflows", body)
    again = await http.post("/v1/workflows", body)
    assert (first.status, again.status) == (202, 200)
    assert again.json == {**first.json, "duplicate": True}
    other = await http.post(
        "/v1/workflows", {"tasks": {**DIAMOND, "root": echo(9)}}, headers={"Idempotency-Key": "k"}
    )
    assert (other.status, other.slug) == (422, "idempotency-key-reused")
    assert "#/tasks/root/idempotency_key" in other.pointers
    assert (await ended(http, first.json["id"]))["total"] == 4


async def test_a_task_waits_for_another_on_record_and_says_so(http: Http, gates: Gates) -> None:
    parent = (await http.post("/v1/tasks", {"handler": "gate"})).json
    child = (await http.post("/v1/tasks", echo(1, depends_on=[parent["id"]]))).json
    assert (child["state"], child["depends_on"]) == ("blocked", [parent["id"]])
    assert child["waiting"] == {"reason": "parents", "detail": "1 task that it depends on has not ended"}
    blocked = (await http.get("/v1/tasks?state=blocked")).json["tasks"]
    assert [task["id"] for task in blocked] == [child["id"]]
    gates.opened["g"].set()
    done = (await http.get(f"/v1/tasks/{child['id']}?wait=10")).json
    assert (done["state"], done["result"]) == ("succeeded", 1)
    late = (await http.post("/v1/tasks?wait=10", echo(2, depends_on=[parent["id"]]))).json
    assert (late["state"], late["result"]) == ("succeeded", 2)


async def test_a_parent_that_does_not_exist_is_named(http: Http) -> None:
    answer = await http.post("/v1/tasks", echo(1, depends_on=[NOBODY]))
    assert (answer.status, answer.pointers) == (422, ["#/depends_on/0"])
    assert answer.json["errors"][0]["detail"] == f"there is no task {NOBODY}"
    answer = await http.post("/v1/tasks/batch", {"tasks": [echo(1), echo(2, depends_on=[NOBODY])]})
    assert (answer.status, answer.pointers) == (422, ["#/tasks/1/depends_on/0"])
    answer = await http.post("/v1/tasks", echo(1, depends_on=["x"]))
    assert (answer.status, answer.pointers) == (422, ["#/depends_on/0"])
    assert answer.json["errors"][0]["detail"] == "must be the id of a task, not 'x'"
    assert (await http.get("/v1/tasks")).json["tasks"] == []


@pytest.mark.parametrize(
    ("policy", "state"),
    [("fail", "failed"), ("skip", "cancelled"), ("run_anyway", "succeeded"), ("run", "succeeded")],
)
async def test_what_becomes_of_the_child_of_a_failed_task(http: Http, policy: str, state: str) -> None:
    tasks = {"a": {"handler": "fail"}, "b": echo(1, depends_on=["a"], on_parent_failure=policy)}
    made = (await http.post("/v1/workflows", {"tasks": tasks})).json
    child = (await http.get(f"/v1/tasks/{made['tasks']['b']}?wait=10")).json
    assert child["state"] == state
    assert child["on_parent_failure"] == policy.replace("run_anyway", "run").replace("run", "run_anyway")
    if state != "succeeded":
        assert child["error"]["type"] == "ParentFailed"
        assert child["error"]["message"].startswith(f"parent_failed: task a ({made['tasks']['a']})")


async def test_a_workflow_is_cancelled_as_a_whole(http: Http, gates: Gates) -> None:
    tasks = {"a": {"handler": "gate"}, "b": echo(1, depends_on=["a"]), "c": echo(2, depends_on=["b"])}
    made = (await http.post("/v1/workflows", {"tasks": tasks})).json
    await asyncio.wait_for(gates.started["g"].wait(), 10)
    answer = await http.post(f"/v1/workflows/{made['id']}/cancel", None)
    assert answer.status == 200
    shown = await ended(http, made["id"])
    assert (shown["state"], shown["counts"]) == ("cancelled", {"cancelled": 3})


async def test_a_workflow_that_is_not_there(http: Http) -> None:
    for path in (f"/v1/workflows/{NOBODY}", "/v1/workflows/x"):
        answer: Answer = await http.get(path)
        assert (answer.status, answer.slug) == (404, "workflow-not-found")
