"""Actions on everything that matches, and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from node.http import routes_bulk

if TYPE_CHECKING:
    from tests.support.http_api import Http
    from tests.support.memory_node import MemoryNode

ACTIONS = [("POST", "/v1/tasks/cancel"), ("POST", "/v1/dead/replay"), ("DELETE", "/v1/dead")]


async def act(http: Http, method: str, path: str, body: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    return await http.call(method, path, json=body, headers=headers)


@pytest.mark.parametrize(("method", "path"), ACTIONS)
async def test_everything_must_be_said_to_be_meant(http: Http, method: str, path: str) -> None:
    bodies: list[dict[str, Any]] = [{}, {"filter": {}}, {"dry_run": True}, {"filter": {}, "all": False}]
    for body in bodies:
        answer = await act(http, method, path, body)
        assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", ["#/filter"])
    answer = await act(http, method, path, {"all": True})
    assert (answer.status, answer.json) == (200, {"matched": 0, "changed": 0, "more": False})


@pytest.mark.parametrize(("method", "path"), ACTIONS)
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"filter": {"ids": []}}, "#/filter/ids"),  # an empty list would mean no condition at all
        ({"filter": {"state": []}}, "#/filter/state"),
        ({"filter": {"state": ["done"]}}, "#/filter/state/0"),
        ({"filter": {"state": "failed"}}, "#/filter/state"),
        ({"filter": {"handlr": "x"}}, "#/filter/handlr"),
        ({"filter": {"ids": ["x" * 36]}}, "#/filter/ids"),
        ({"filter": {"created_after": "x"}}, "#/filter/created_after"),
        ({"filter": []}, "#/filter"),
        ({"all": "yes"}, "#/all"),
        ({"handler": "x"}, "#/handler"),
        ([], "#"),
    ],
)
async def test_filters_that_are_not_allowed(
    http: Http, method: str, path: str, body: Any, pointer: str
) -> None:
    answer = await act(http, method, path, body)
    assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", [pointer])


async def test_cancel_by_filter(http: Http) -> None:
    for n in range(5):
        await http.submit("add", {"a": n}, delay_s=100)
    kept = await http.submit("echo", delay_s=100)
    which = {"filter": {"handler": "add", "state": ["scheduled"]}}
    dry = await act(http, "POST", "/v1/tasks/cancel", which | {"dry_run": True})
    assert dry.json == {"matched": 5, "changed": 0, "more": False}
    done = await act(http, "POST", "/v1/tasks/cancel", which)
    assert done.json == {"matched": 5, "changed": 5, "more": False}
    assert (await http.get("/v1/tasks?state=cancelled")).json["tasks"][0]["handler"] == "add"
    assert (await http.get(f"/v1/tasks/{kept['id']}")).json["state"] == "scheduled"


async def test_large_actions_go_in_chunks(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_bulk, "_CHUNK", 2)
    for n in range(5):
        await http.submit("add", {"a": n}, delay_s=100)
    done = await act(http, "POST", "/v1/tasks/cancel", {"all": True})
    assert done.json == {"matched": 5, "changed": 5, "more": False}


async def test_what_fails_again_at_once_is_not_replayed_for_ever(
    http: Http, node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def comes_back(_which: object, limit: int, *, dry_run: bool = False) -> tuple[int, int]:
        nonlocal calls
        calls += 1
        return (3, 0) if dry_run else (limit, limit)

    monkeypatch.setattr(routes_bulk, "_CHUNK", 2)
    monkeypatch.setattr(node.store, "replay_matching", comes_back)
    done = await act(http, "POST", "/v1/dead/replay", {"all": True})
    assert (done.json, calls) == ({"matched": 4, "changed": 4, "more": False}, 3)


async def test_an_action_that_takes_long_says_that_there_is_more(
    http: Http, node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_which: object, limit: int, *, dry_run: bool = False) -> tuple[int, int]:
        return limit, limit

    monkeypatch.setattr(node.store, "cancel_matching", endless)
    object.__setattr__(node.api.options, "bulk_s", 0.0)
    done = await act(http, "POST", "/v1/tasks/cancel", {"all": True})
    assert done.json == {"matched": 500, "changed": 500, "more": True}


async def test_dead_letters(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_bulk, "_CHUNK", 2)
    dead = [(await http.done("fail", {"message": f"m{n}"}))["id"] for n in range(3)]
    await http.done("add", {"a": 1})
    page = (await http.get("/v1/dead")).json
    assert [task["id"] for task in page["tasks"]] == dead[::-1]
    assert page["tasks"][0]["error"]["message"] == "m2"
    assert (await http.get("/v1/dead?error_type=KeyError")).json["tasks"] == []
    replayed = await act(http, "POST", "/v1/dead/replay", {"filter": {"error_type": "ValueError"}})
    assert replayed.json["changed"] >= 3
    for task_id in dead:
        assert (await http.finished(task_id))["attempt"] >= 2
    one = await act(http, "DELETE", "/v1/dead", {"filter": {"ids": dead[:1]}})
    assert one.json == {"matched": 1, "changed": 1, "more": False}
    assert (await http.get(f"/v1/tasks/{dead[0]}")).status == 404
    rest = await act(http, "DELETE", "/v1/dead", {"all": True})
    assert rest.json == {"matched": 2, "changed": 2, "more": False}
    assert (await http.get("/v1/dead")).json == {"tasks": [], "next_cursor": None}
