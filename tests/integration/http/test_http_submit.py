"""POST /v1/tasks and /v1/tasks/batch: what is stored, what is found again, what is refused."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode

ALWAYS = {
    "id", "handler", "state", "tenant", "idempotency_key", "actor_key", "priority", "attempt", "failures",
    "crashes", "max_attempts", "slot", "home", "node", "created_at", "run_at", "started_at", "finished_at",
    "trace_id", "metadata",
}  # fmt: skip


async def test_a_task_is_accepted_with_all_fields_of_the_contract(http: Http, gates: Gates) -> None:
    answer = await http.post("/v1/tasks", {"handler": "gate", "payload": {"name": "x"}})
    assert answer.status == 202
    task = answer.json
    assert set(task) >= ALWAYS
    assert task["duplicate"] is False
    assert answer.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", task["id"])
    assert task["created_at"].endswith("Z")
    assert datetime.fromisoformat(task["created_at"]).tzinfo is not None
    assert (task["handler"], task["priority"], task["metadata"], task["home"]) == ("gate", "medium", {}, "n1")
    gates.opened["x"].set()
    done = await http.finished(task["id"])
    assert (done["state"], done["result"], done["attempt"], done["node"]) == ("succeeded", "x", 1, "n1")


async def test_every_option_is_kept(http: Http) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await http.post(
        "/v1/tasks",
        {
            "handler": "add",
            "payload": {"a": 1},
            "idempotency_key": "k1",
            "actor_key": "account-7",
            "priority": "high",
            "requires": ["gpu", "eu"],
            "prefers": ["fast"],
            "run_at": "2031-01-31T12:00:00.5+02:00",
            "expires_at": "2031-02-01T00:00:00Z",
            "timeout_s": 2.5,
            "max_attempts": 7,
            "metadata": {"who": "Zoë", "n": 1.5},
            "sensitive": False,
        },
        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
    )
    task = (await http.get(answer.headers["Location"])).json
    assert task == {k: v for k, v in answer.json.items() if k != "duplicate"}
    assert (task["idempotency_key"], task["actor_key"], task["priority"]) == ("k1", "account-7", "high")
    assert (sorted(task["requires"]), task["prefers"]) == (["eu", "gpu"], ["fast"])
    assert (task["run_at"], task["expires_at"]) == ("2031-01-31T10:00:00.500000Z", "2031-02-01T00:00:00Z")
    assert (task["timeout_s"], task["max_attempts"], task["trace_id"]) == (2.5, 7, trace)
    assert task["metadata"] == {"who": "Zoë", "n": 1.5}
    assert task["state"] == "scheduled"
    waiting = task["waiting"]
    assert (waiting["reason"], waiting["until"]) == ("due_later", task["run_at"])


async def test_wait_answers_when_final(http: Http) -> None:
    answer = await http.post("/v1/tasks?wait=30", {"handler": "add", "payload": {"a": 2, "b": 3}})
    assert (answer.status, answer.json["state"], answer.json["result"]) == (200, "succeeded", 5)


async def test_wait_answers_with_the_present_state_on_timeout(http: Http, gates: Gates) -> None:
    answer = await http.post("/v1/tasks?wait=0.05", {"handler": "gate"})
    assert (answer.status, answer.json["state"]) == (202, "running")


async def test_the_same_request_gets_the_same_task(http: Http, gates: Gates) -> None:
    request = {"handler": "gate", "payload": {"name": "g"}, "idempotency_key": "once"}
    first = await http.post("/v1/tasks", request)
    again = await http.post("/v1/tasks", request | {"metadata": {"try": 2}})  # metadata is not compared
    assert (first.status, again.status) == (202, 200)
    assert (first.json["duplicate"], again.json["duplicate"]) == (False, True)
    assert again.json["id"] == first.json["id"]
    gates.opened["g"].set()
    await http.finished(first.json["id"])
    late = await http.post("/v1/tasks?wait=5", request)
    assert (late.status, late.json["duplicate"], late.json["result"]) == (200, True, "g")


async def test_a_hundred_posts_at_once_make_one_task(http: Http) -> None:
    request = {"handler": "add", "payload": {"a": 1}, "idempotency_key": "storm"}
    answers = await asyncio.gather(*(http.post("/v1/tasks", request) for _ in range(100)))
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sorted(answer.status for answer in answers) == [200] * 99 + [202]


async def test_another_request_under_the_key_is_refused(http: Http) -> None:
    first = await http.submit("add", {"a": 1}, idempotency_key="mine")
    answer = await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 2}, "idempotency_key": "mine"})
    assert (answer.status, answer.slug) == (422, "idempotency-key-reused")
    assert answer.pointers == ["#/idempotency_key"]
    problem = answer.json
    assert problem["existing_id"] == first["id"]
    assert re.fullmatch("[0-9a-f]{64}", problem["digest"])
    assert re.fullmatch("[0-9a-f]{64}", problem["existing_digest"])
    assert problem["digest"] != problem["existing_digest"]


async def test_defaults_are_not_filled_in_before_requests_are_compared(http: Http) -> None:
    await http.submit("add", {"a": 1}, idempotency_key="d")
    spelt_out = {"handler": "add", "payload": {"a": 1, "b": 0}, "idempotency_key": "d"}
    assert (await http.post("/v1/tasks", spelt_out)).slug == "idempotency-key-reused"


@pytest.mark.parametrize("header", ["abc", '"abc"', '  "abc" '])
async def test_the_key_may_come_as_a_header(http: Http, header: str) -> None:
    request = {"handler": "add", "payload": {"a": 1}}
    first = await http.post("/v1/tasks", request, headers={"Idempotency-Key": header})
    again = await http.post("/v1/tasks", request | {"idempotency_key": "abc"})
    assert first.json["idempotency_key"] == "abc"
    assert (again.status, again.json["id"]) == (200, first.json["id"])


async def test_header_and_field_must_agree(http: Http) -> None:
    request = {"handler": "add", "payload": {"a": 1}, "idempotency_key": "abc"}
    same = await http.post("/v1/tasks", request, headers={"Idempotency-Key": '"abc"'})
    other = await http.post("/v1/tasks", request, headers={"Idempotency-Key": "abd"})
    assert same.status == 202
    assert (other.status, other.slug, other.pointers) == (422, "invalid-request", ["#/idempotency_key"])


@pytest.mark.parametrize("header", ["", '""', "x" * 256, '"' + "x" * 256 + '"'])
async def test_a_key_in_a_header_has_the_same_limits(http: Http, header: str) -> None:
    request = {"handler": "add", "payload": {"a": 1}}
    answer = await http.post("/v1/tasks", request, headers={"Idempotency-Key": header})
    assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", ["#/idempotency_key"])


async def test_a_header_on_a_batch_is_refused_not_ignored(http: Http) -> None:
    answer = await http.post("/v1/tasks/batch", {"tasks": []}, headers={"Idempotency-Key": "abc"})
    assert (answer.status, answer.slug) == (422, "invalid-request")


async def test_a_batch_answers_in_order(http: Http) -> None:
    known = await http.submit("add", {"a": 0}, idempotency_key="b0")
    tasks = [{"handler": "add", "payload": {"a": n}, "idempotency_key": f"b{n}"} for n in range(5)]
    answer = await http.post("/v1/tasks/batch", {"tasks": tasks})
    assert answer.status == 202
    rows = answer.json["tasks"]
    assert [row["duplicate"] for row in rows] == [True, False, False, False, False]
    assert rows[0]["id"] == known["id"]
    assert [(await http.finished(row["id"]))["result"] for row in rows] == [0, 1, 2, 3, 4]
    again = await http.post("/v1/tasks/batch", {"tasks": tasks})
    assert (again.status, [row["id"] for row in again.json["tasks"]]) == (200, [row["id"] for row in rows])


async def test_an_empty_batch_is_nothing_to_do(http: Http) -> None:
    answer = await http.post("/v1/tasks/batch", {"tasks": []})
    assert (answer.status, answer.json) == (200, {"tasks": []})


async def test_one_key_twice_inside_a_batch(http: Http) -> None:
    task: dict[str, Any] = {"handler": "add", "payload": {"a": 1}, "idempotency_key": "twice"}
    same = await http.post("/v1/tasks/batch", {"tasks": [task, task]})
    first, second = same.json["tasks"]
    assert (same.status, first["id"]) == (202, second["id"])
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    other = task | {"idempotency_key": "new"}
    refused = await http.post("/v1/tasks/batch", {"tasks": [other, task, other | {"payload": {"a": 9}}]})
    assert (refused.status, refused.slug) == (422, "idempotency-key-reused")
    assert refused.pointers == ["#/tasks/2/idempotency_key"]
    assert (await http.get("/v1/tasks", idempotency_key="new")).json["tasks"] == []


async def test_one_bad_task_and_nothing_of_the_batch_is_stored(http: Http) -> None:
    good = {"handler": "add", "payload": {"a": 1}}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"handler": "add", "payload": {"a": "x"}}, "#/tasks/1/payload/a"),
        ({"handler": "add", "payload": {"a": 1, "c": 2}}, "#/tasks/1/payload/c"),
        ({"handler": "nobody"}, "#/tasks/1/handler"),
        ({"handler": "add", "payload": {"a": 1}, "priority": "urgent"}, "#/tasks/1/priority"),
    ]
    for task, pointer in bad:
        answer = await http.post("/v1/tasks/batch", {"tasks": [good, task]})
        assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", [pointer])
    alone = await http.post("/v1/tasks/batch", {"tasks": [bad[0][0]]})
    assert alone.pointers == ["#/tasks/0/payload/a"]
    assert (await http.get("/v1/tasks")).json["tasks"] == []


async def test_an_unknown_handler_names_the_nearest(http: Http) -> None:
    answer = await http.post("/v1/tasks", {"handler": "ad"})
    assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", ["#/handler"])
    assert "add" in answer.json["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("unique", {}, "#/unique/mode"),
        ("idempotencykey", "k", "#/idempotencykey"),
        ("handler", "Add", "#/handler"),
        ("handler", "1add", "#/handler"),
        ("handler", "a" * 256, "#/handler"),
        ("handler", None, "#/handler"),
        ("payload", [1], "#/payload"),
        ("payload", None, "#/payload"),
        ("idempotency_key", "", "#/idempotency_key"),
        ("idempotency_key", "x" * 256, "#/idempotency_key"),
        ("idempotency_key", "😀" * 200, "#/idempotency_key"),  # more than 512 bytes
        ("idempotency_key", 7, "#/idempotency_key"),
        ("actor_key", "", "#/actor_key"),
        ("priority", "urgent", "#/priority"),
        ("priority", 1, "#/priority"),
        ("requires", "gpu", "#/requires"),
        ("requires", ["t"] * 17, "#/requires"),
        ("requires", [""], "#/requires/0"),
        ("delay_s", -1, "#/delay_s"),
        ("delay_s", "1", "#/delay_s"),
        ("delay_s", True, "#/delay_s"),
        ("delay_s", 1e9, "#/delay_s"),
        ("run_at", "tomorrow", "#/run_at"),
        ("run_at", "2031-01-31T12:00:00", "#/run_at"),  # no time zone
        ("run_at", 1_700_000_000, "#/run_at"),
        ("run_at", "9999-12-31T23:59:59-12:00", "#/run_at"),
        ("run_at", "2031-02-30T12:00:00Z", "#/run_at"),
        ("expires_at", "2031-01-31", "#/expires_at"),
        ("timeout_s", 0, "#/timeout_s"),
        ("timeout_s", 1e12, "#/timeout_s"),
        ("max_attempts", 0, "#/max_attempts"),
        ("max_attempts", 1.5, "#/max_attempts"),
        ("max_attempts", True, "#/max_attempts"),
        ("metadata", "x", "#/metadata"),
        ("metadata", {"x": "y" * 4096}, "#/metadata"),
        ("sensitive", "yes", "#/sensitive"),
    ],
)
async def test_values_that_are_not_allowed(http: Http, field: str, value: Any, pointer: str) -> None:
    answer = await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}, field: value})
    assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", [pointer])
    assert "\n" not in answer.json["detail"]


async def test_delay_and_run_at_exclude_each_other(http: Http) -> None:
    request = {"handler": "add", "payload": {"a": 1}, "delay_s": 1, "run_at": "2031-01-31T12:00:00Z"}
    assert (await http.post("/v1/tasks", request)).pointers == ["#/run_at"]


async def test_faults_of_all_fields_are_told_at_once(http: Http) -> None:
    answer = await http.post("/v1/tasks", {"handler": "X", "priority": 1, "delay_s": -1, "foo": 2})
    assert sorted(answer.pointers) == ["#/delay_s", "#/foo", "#/handler", "#/priority"]


async def test_at_most_a_hundred_faults_are_listed(http: Http) -> None:
    answer = await http.post("/v1/tasks/batch", {"tasks": [{"handler": "X"}] * 150})
    assert (answer.status, len(answer.pointers)) == (422, 100)
    answer = await http.post("/v1/tasks/batch", {"tasks": [{"handler": "nobody"}] * 150})
    assert (answer.status, len(answer.pointers)) == (422, 100)


async def test_sensitive_is_refused_and_never_stored(http: Http) -> None:
    request = {"handler": "add", "payload": {"a": 1}, "sensitive": True}
    single = await http.post("/v1/tasks", request)
    batch = await http.post("/v1/tasks/batch", {"tasks": [{"handler": "add", "payload": {"a": 1}}, request]})
    assert (single.status, single.slug) == (422, "encryption-not-configured")
    assert (batch.status, batch.slug, batch.pointers) == (
        422, "encryption-not-configured", ["#/tasks/1/sensitive"],
    )  # fmt: skip
    assert (await http.get("/v1/tasks")).json["tasks"] == []


async def test_a_broken_traceparent_starts_no_trace(http: Http) -> None:
    for header in ("x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "\u00ff"):
        answer = await http.post(
            "/v1/tasks", {"handler": "add", "payload": {"a": 1}}, headers={"traceparent": header}
        )
        assert (answer.status, answer.json["trace_id"]) == (202, None)


async def test_tasks_belong_to_the_principal(http: Http, node: MemoryNode) -> None:
    task = await http.submit("add", {"a": 1})
    assert (task["tenant"], task["created_by"]) == ("default", "local")
    assert (await http.get("/v1/tasks")).json["tasks"][0]["id"] == task["id"]
