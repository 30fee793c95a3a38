"""The document says what the node does: every route, every answer, checked against the running thing."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from node.http.app import API, ROUTES, make_app
from node.http.auth import Scope
from node.http.openapi import document
from node.http.problems import PROBLEMS
from tests.support.http_api import GATES, REGISTRY, speaking_to
from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from node.http.route import Route
    from tests.support.http_api import Answer, Gates, Http
    from tests.support.memory_node import MemoryNode

DOCUMENT = document(ROUTES, "0")


# -- the table --------------------------------------------------------------------------------------


def test_every_route_has_a_scope_and_is_described() -> None:
    for route in ROUTES:
        assert isinstance(route.scope, Scope), route.path
        assert route.summary.endswith("."), route.path
        assert route.answers, route.path
        assert (route.body is None) == (route.body_max == 0), route.path
        assert set(route.problems) <= set(PROBLEMS), route.path
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        assert operation["x-scope"] == route.scope.value
    public = {route.path for route in ROUTES if route.scope is Scope.PUBLIC}
    assert public == {"/livez", "/readyz", "/openapi.json", "/", "/console/{file}"}


async def test_nothing_is_served_beside_the_table(node: MemoryNode) -> None:
    app = make_app(node.service)
    table = {(route.method, route.path) for route in ROUTES}
    served = {(one.method, one.resource.canonical) for one in app.router.routes() if one.resource is not None}
    assert {pair for pair in served if pair[0] != "HEAD"} == table
    assert {path for method, path in served if method == "HEAD"} < {path for _, path in table}
    assert app[API].service is node.service


def test_every_kind_of_problem_can_happen_somewhere() -> None:
    always = {"forbidden", "internal", "unavailable", "unauthenticated", "not-found", "method-not-allowed"}
    declared = {slug for route in ROUTES for slug in route.problems}
    assert set(PROBLEMS) - declared - always == {"bad-request"}


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)


# -- the document -----------------------------------------------------------------------------------


def test_schemas_are_json_schema_2020_12() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_what_validates_is_what_is_described() -> None:
    task = DOCUMENT["components"]["schemas"]["TaskRequest"]
    assert set(task["properties"]) == {
        "handler", "payload", "idempotency_key", "actor_key", "limit_key", "priority", "requires", "prefers", "delay_s",
        "run_at", "expires_at", "timeout_s", "max_attempts", "sensitive", "metadata",
        "unique", "depends_on", "on_parent_failure",
    }  # fmt: skip
    assert task["required"] == ["handler"]
    assert task["additionalProperties"] is False
    key, handler = DOCUMENT["paths"]["/v1/cluster/locate"]["get"]["parameters"]
    assert [(one["name"], one["required"]) for one in (key, handler)] == [("key", True), ("handler", False)]
    wait = DOCUMENT["paths"]["/v1/tasks/{id}"]["get"]["parameters"][1]
    assert (wait["name"], wait["schema"]["maximum"]) == ("wait", 60)


async def test_the_document_is_served(http: Http) -> None:
    answer = await http.get("/openapi.json")
    served = answer.json
    assert served.pop("info")["title"] == "Noria"
    assert served == {name: part for name, part in DOCUMENT.items() if name != "info"}


def conforms(answer: Answer, method: str, path: str) -> None:
    """The answer is one that the document tells of."""
    responses = DOCUMENT["paths"][path][method]["responses"]
    assert str(answer.status) in responses, (path, answer.status)
    content = responses[str(answer.status)]["content"]
    content_type = answer.headers["Content-Type"].partition(";")[0]
    assert content_type in content, (path, content_type)
    schema = content[content_type].get("schema")
    if schema:
        whole = {**schema, "components": DOCUMENT["components"]}
        Draft202012Validator(whole).validate(answer.json)


async def test_real_answers_conform(http: Http, node: MemoryNode, gates: Gates) -> None:
    await node.store.join("n0", 60, {"tags": ["gpu"]})
    add = {"handler": "add", "payload": {"a": 1}, "idempotency_key": "k", "metadata": {"x": [1]}}
    for _ in range(2):
        conforms(await http.post("/v1/tasks?wait=10", add), "post", "/v1/tasks")
        conforms(await http.post("/v1/tasks/batch", {"tasks": [add]}), "post", "/v1/tasks/batch")
    conforms(await http.post("/v1/tasks", add | {"payload": {"a": 2}}), "post", "/v1/tasks")
    conforms(await http.post("/v1/tasks", {"handler": "x", "y": 1}), "post", "/v1/tasks")
    conforms(await http.call("POST", "/v1/tasks"), "post", "/v1/tasks")
    await http.post("/v1/tasks", {"handler": "gate", "expires_at": "2031-01-31T12:00:00Z"})
    await gates.started["g"].wait()
    dead = await http.done("fail")
    await http.done("raw")
    await http.submit("add", {"a": 1}, delay_s=60)
    await http.submit("add", {"a": 1}, requires=["gpu"])
    for task in (await http.get("/v1/tasks")).json["tasks"]:
        path = f"/v1/tasks/{task['id']}"
        conforms(await http.get(path), "get", "/v1/tasks/{id}")
        conforms(await http.get(f"{path}/attempts"), "get", "/v1/tasks/{id}/attempts")
        conforms(await http.post(f"{path}/cancel"), "post", "/v1/tasks/{id}/cancel")
    conforms(await http.post(f"/v1/tasks/{dead['id']}/retry"), "post", "/v1/tasks/{id}/retry")
    for path in (
        "/v1/tasks", "/v1/dead", "/v1/handlers", "/v1/cluster", "/v1/cluster/ring", "/v1/cluster/views", "/v1/stats",
        "/livez", "/readyz",
    ):  # fmt: skip
        conforms(await http.get(path), "get", path)
    for query in ("key=k", "key=k&handler=add", "key=k&handler=nobody", "handler=add"):
        conforms(await http.get(f"/v1/cluster/locate?{query}"), "get", "/v1/cluster/locate")
    for name in ("n0", "nobody"):
        answer = await http.post(f"/v1/cluster/nodes/{name}/drain")
        conforms(answer, "post", "/v1/cluster/nodes/{node}/drain")
    schedule = "/v1/schedules/{schedule}"
    conforms(await http.call("PUT", "/v1/schedules/nightly", json=NIGHTLY), "put", schedule)
    conforms(await http.call("PUT", "/v1/schedules/nightly", json={}), "put", schedule)
    for step in ("run", "pause", "resume"):
        conforms(await http.post(f"/v1/schedules/nightly/{step}"), "post", f"{schedule}/{step}")
    conforms(await http.get("/v1/schedules/nightly"), "get", schedule)
    conforms(await http.get("/v1/schedules"), "get", "/v1/schedules")
    conforms(await http.call("DELETE", "/v1/schedules/nightly"), "delete", schedule)
    conforms(await http.call("PUT", "/v1/tenants/acme", json={"weight": 2}), "put", "/v1/tenants/{tenant}")
    conforms(await http.call("PUT", "/v1/tenants/acme", json={"weight": 0}), "put", "/v1/tenants/{tenant}")
    conforms(await http.get("/v1/tenants"), "get", "/v1/tenants")
    conforms(await http.post("/v1/handlers/add/pause"), "post", "/v1/handlers/{name}/pause")
    conforms(await http.get("/v1/handlers/nobody"), "get", "/v1/handlers/{name}")
    conforms(await http.post("/v1/tasks/cancel", {"all": True}), "post", "/v1/tasks/cancel")


# -- the document against the node, by random requests ----------------------------------------------


EXAMPLES: list[dict[str, Any]] = [
    {"handler": "add", "payload": {"a": 1}},
    {"handler": "fail"},
    {"handler": "raw"},
    {"handler": "gate"},
    {"handler": "add", "payload": {"a": 1}, "delay_s": 1000},
]


NIGHTLY = {"cron": "0 3 * * *", "time_zone": "Europe/Berlin", "task": {"handler": "add", "payload": {"a": 1}}}


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    known: list[str]  # ids of tasks in several states
    stop: Callable[[], object]


async def run(ready: Future[Running]) -> None:
    GATES.forget()
    async with memory_node(REGISTRY) as node, speaking_to(node) as http:
        known = [(await http.post("/v1/tasks?wait=0.2", request)).json["id"] for request in EXAMPLES]
        await node.store.join("n0", 3600, {})  # the one that is asked to drain
        await http.call("PUT", "/v1/schedules/nightly", json=NIGHTLY)
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        ready.set_result(Running(node.url, known, lambda: loop.call_soon_threadsafe(stopped.set)))
        await stopped.wait()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A node in a thread of its own, because schemathesis blocks."""
    ready: Future[Running] = Future()

    def work() -> None:
        try:
            asyncio.run(run(ready))
        except BaseException as exc:  # noqa: BLE001 - shown by the test
            ready.set_exception(exc)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        found = ready.result(20)
        yield found
        found.stop()
    finally:
        thread.join(20)


TRIED = [route for route in ROUTES if not route.streams and route.path != "/metrics"]
CHECKS = (
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    not_a_server_error,
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("route", TRIED, ids=lambda route: f"{route.method} {route.path}")
def test_random_requests_are_answered_as_described(running: Running, route: Route) -> None:
    operation = schemathesis.openapi.from_dict(DOCUMENT)[route.path][route.method]

    @hypothesis.settings(
        max_examples=30, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(case=operation.as_strategy(), real=st.booleans(), data=st.data())
    def check(case: Any, real: bool, data: st.DataObject) -> None:
        if real:
            _make_real(case, running.known, data)
        if "wait" in (case.query or {}):
            case.query["wait"] = 0.01
        response = case.call(base_url=running.url, headers={"Host": "localhost"})
        case.validate_response(response, checks=CHECKS)

    check()


def _make_real(case: Any, known: list[str], data: st.DataObject) -> None:
    """Random requests mostly meet nothing; name what exists."""
    parameters = case.path_parameters or {}
    if "id" in parameters:
        parameters["id"] = data.draw(st.sampled_from(known))
    if "name" in parameters:
        parameters["name"] = "echo"
    if "schedule" in parameters:
        parameters["schedule"] = "nightly"
    if "node" in parameters:
        parameters["node"] = "n0"
    tasks = case.body.get("tasks") if isinstance(case.body, dict) else None
    scheduled = case.body.get("task") if isinstance(case.body, dict) else None
    for task in [case.body, scheduled, *(tasks if isinstance(tasks, list) else [])]:
        if isinstance(task, dict) and "handler" in task:
            task |= {"handler": "echo", "payload": {}}
