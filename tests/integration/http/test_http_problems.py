"""Every kind of error has its slug, its status and a document; nothing leaks, nothing is silent."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from node.http.app import make_app
from node.http.auth import Principal, Scope
from node.http.problems import PROBLEMS, Problem, problem_of
from node.http.route import Options
from runtime import errors
from tests.support.http_api import REGISTRY, Http, speaking_to
from tests.support.memory_node import memory_node, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.memory_node import MemoryNode


async def fails(exc: Exception) -> Any:
    raise exc


@pytest.mark.parametrize(
    ("exc", "slug"),
    [
        (errors.InvalidInput("bad", (("#/a", "bad"),)), "invalid-request"),
        (errors.TaskNotFound("gone"), "task-not-found"),
        (errors.WrongState("no", "running"), "wrong-state"),
        (errors.Overloaded("full", 7.2), "overloaded"),
        (errors.Unavailable("away"), "unavailable"),
        (errors.AskTimeout("late"), "unavailable"),
        (errors.IncarnationDead("dead"), "unavailable"),
        (Problem("backlog-full", "full", retry_after_s=1), "backlog-full"),
        (KeyError("secret"), "internal"),
        (TimeoutError(), "internal"),
    ],
)
async def test_what_the_service_raises(
    http: Http, node: MemoryNode, monkeypatch: pytest.MonkeyPatch, exc: Exception, slug: str
) -> None:
    monkeypatch.setattr(node.service, "submit", lambda _specs: fails(exc))
    monkeypatch.setattr(node.store, "get", lambda _id: fails(exc))
    monkeypatch.setattr(node.store, "list", lambda *_a: fails(exc))
    for answer in (
        await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}}),
        await http.post("/v1/tasks/batch", {"tasks": [{"handler": "add"}]}),
        await http.get("/v1/tasks/01a20bf4-bab6-7000-9086-cac67895897f"),
        await http.get("/v1/dead"),
    ):
        assert (answer.status, answer.slug) == (PROBLEMS[slug].status, slug)
        if answer.status in {429, 503}:
            assert int(answer.headers["Retry-After"]) >= 1
        assert b"secret" not in answer.body
        assert answer.headers["Cache-Control"] == "no-store"
    if isinstance(exc, errors.Overloaded):
        assert answer.headers["Retry-After"] == "8"


async def test_unexpected_errors_are_logged_with_their_traceback(
    http: Http, node: MemoryNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node.service, "submit", lambda _specs: fails(KeyError("secret")))
    with caplog.at_level(logging.ERROR, "node.http"):
        await http.post("/v1/tasks", {"handler": "add", "payload": {"a": 1}})
    [record] = caplog.records
    assert record.getMessage() == "POST /v1/tasks failed"
    assert record.exc_info is not None


async def test_ordinary_requests_and_refusals_are_not_logged(
    http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "node.http"), caplog.at_level(logging.DEBUG, "aiohttp"):
        await http.submit("add", {"a": 1}, delay_s=1)
        await http.post("/v1/tasks", {"handler": "nobody"})
    assert not [record for record in caplog.records if record.name.startswith(("node.http", "aiohttp"))]


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1", 404, "not-found"),
        ("GET", "/v1/tasks/", 404, "not-found"),
        ("GET", "/console/../app.py", 404, "not-found"),
        ("GET", "/console/nothing.js", 404, "not-found"),
        ("GET", "/v1/handlers/nobody", 404, "handler-not-found"),
        ("POST", "/v1/handlers/nobody/pause", 404, "handler-not-found"),
        ("POST", "/v1/handlers/a%00b/resume", 404, "handler-not-found"),
        ("PUT", "/v1/tasks", 405, "method-not-allowed"),
        ("DELETE", "/v1/tasks/batch", 405, "method-not-allowed"),
        ("POST", "/livez", 405, "method-not-allowed"),
        ("PATCH", "/", 405, "method-not-allowed"),
    ],
)
async def test_paths_and_methods_that_do_not_exist(
    http: Http, method: str, path: str, status: int, slug: str
) -> None:
    answer = await http.call(method, path)
    assert (answer.status, answer.slug) == (status, slug)
    if status == 405:
        assert answer.headers["Allow"]


async def test_aiohttps_own_errors_are_problems_too() -> None:
    assert problem_of(web.HTTPBadRequest(text="no")).slug == "bad-request"
    assert problem_of(web.HTTPExpectationFailed()).slug == "bad-request"
    assert problem_of(web.HTTPRequestEntityTooLarge(1, 2)).slug == "too-large"
    assert problem_of(web.HTTPInternalServerError(text="secret")).detail.count("secret") == 0


async def test_details_may_quote_what_is_no_text(http: Http) -> None:
    answer = await http.post("/v1/tasks", {"handler": "add"}, headers={"Idempotency-Key": "k\udcff"})
    assert (answer.status, answer.slug) == (422, "invalid-request")
    assert b"\\udcff" in Problem("bad-request", "what \udcff").response().body  # type: ignore[operator]


# -- who may do what --------------------------------------------------------------------------------


@asynccontextmanager
async def asked_by(principal: Principal | Problem) -> AsyncIterator[Http]:
    async def authenticate(_request: web.Request) -> Principal:
        if isinstance(principal, Problem):
            raise principal
        return principal

    options = Options(authenticate=authenticate)
    async with memory_node(REGISTRY, options=options) as node, speaking_to(node) as http:
        yield http


async def test_every_route_demands_its_scope() -> None:
    from node.http.app import ROUTES

    async with asked_by(Principal("default", "reader", frozenset())) as http:
        for route in ROUTES:
            path = route.path.replace("{id}", "x").replace("{name}", "x").replace("{file}", "console.js")
            answer = await http.call(route.method, path)
            if route.scope is Scope.PUBLIC:
                assert answer.status == 200, path
            else:
                assert (answer.status, answer.slug) == (403, "forbidden"), path
                assert route.scope.value in answer.json["detail"]
    async with asked_by(Problem("unauthenticated", "who?")) as http:
        assert (await http.get("/v1/tasks")).slug == "unauthenticated"
        assert (await http.get("/livez")).status == 200


async def test_a_tenant_sees_its_own_tasks_only(http: Http, node: MemoryNode) -> None:
    task = await http.submit("add", {"a": 1}, delay_s=100)

    async def authenticate(_request: web.Request) -> Principal:
        return Principal("other", "eve", frozenset(Scope))

    app = make_app(node.service, Options(authenticate=authenticate))
    async with serving(app) as url:
        eve = Http(http.session)
        path = f"{url}/v1/tasks/{task['id']}"
        for method, rest in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("POST", "/retry")):
            assert (await eve.call(method, path + rest)).slug == "task-not-found"
        assert (await eve.get(f"{url}/v1/tasks")).json["tasks"] == []
        done = await eve.post(f"{url}/v1/tasks/cancel", {"all": True})
        assert done.json["matched"] == 0
        theirs = await eve.post(f"{url}/v1/tasks", {"handler": "add", "payload": {"a": 1}})
        assert (theirs.json["tenant"], theirs.json["created_by"]) == ("other", "eve")
    assert (await http.get(f"/v1/tasks/{task['id']}")).json["state"] == "scheduled"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "{own}"}, True),
    ],
)
async def test_pages_of_other_sites_may_not_act(
    http: Http, node: MemoryNode, headers: dict[str, str], allowed: bool
) -> None:
    sent = {name: value.replace("{own}", node.url) for name, value in headers.items()}
    answer = await http.call("POST", "/v1/handlers/add/pause", headers=sent)
    assert answer.status == (200 if allowed else 403)
    assert (await http.call("GET", "/v1/tasks", headers=sent)).status == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("demo.localhost:1", True),
        ("127.0.0.9:8080", True),
        ("[::1]:8080", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("[", False),
    ],
)
async def test_a_rebound_name_reaches_nothing(http: Http, node: MemoryNode, host: str, allowed: bool) -> None:
    answer = await http.call("GET", "/v1/tasks", headers={"Host": host})
    assert answer.status == (200 if allowed else 403)
    app = make_app(node.service, Options(loopback=False))
    async with serving(app) as url:
        assert (await http.call("GET", f"{url}/v1/tasks", headers={"Host": host})).status == 200
