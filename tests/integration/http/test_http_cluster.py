"""Handlers, nodes, numbers, health."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from actors import Context, handler
from actors.activity import HotKey, NextFire
from actors.authoring.registry import Registry
from node.http.stats import counted
from runtime.core.slots import slot_of
from runtime.core.task import Band, BandCount, BandKey, Census, Lane
from runtime.core.view import Member, Standing, View
from tests.support.factories import new_task
from tests.support.http_api import REGISTRY
from tests.support.memory_node import memory_node, until

if TYPE_CHECKING:
    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode


@handler("there")
async def there(ctx: Context, who: str = "") -> str:
    return "ahoy"


async def test_handlers_tell_what_they_take(http: Http) -> None:
    handlers = (await http.get("/v1/handlers")).json["handlers"]
    assert [one["name"] for one in handlers] == ["add", "echo", "fail", "gate", "later", "raw"]
    one = (await http.get("/v1/handlers/gate")).json
    assert one == handlers[3]
    assert (one["doc"], one["nodes"], one["paused"]) == ("Waits.", ["n1"], False)
    assert one["schema"]["properties"]["name"]["type"] == "string"
    assert one["defaults"]["max_attempts"] == 3


async def test_pause_and_resume(http: Http, node: MemoryNode) -> None:
    paused = await http.post("/v1/handlers/add/pause")
    assert (paused.status, paused.json["paused"]) == (200, True)
    assert (await http.post("/v1/handlers/add/pause")).json["paused"] is True
    await until(lambda: "add" in node.world.capacity.paused.handlers)
    task = await http.submit("add", {"a": 1})
    assert (task["state"], task["waiting"]["reason"]) == ("ready", "paused")
    resumed = await http.post("/v1/handlers/add/resume")
    assert (resumed.status, resumed.json["paused"]) == (200, False)
    assert (await http.finished(task["id"]))["state"] == "succeeded"


async def test_the_cluster_is_told_by_its_leases(http: Http, node: MemoryNode, gates: Gates) -> None:
    gone = await node.store.join("n0", 60, {"tags": ["gpu"], "handlers": ["add"]})
    await node.store.set_state(gone, "left")
    await http.submit("gate")
    await gates.started["g"].wait()
    cluster = (await http.get("/v1/cluster")).json
    here, there = sorted(cluster["nodes"], key=lambda one: one["name"], reverse=True)
    assert (here["name"], here["state"], here["slots"], here["running"]) == ("n1", "active", 4096, 1)
    assert "gate" in here["handlers"]
    assert (there["name"], there["state"], there["slots"], there["running"]) == ("n0", "left", 0, None)
    assert there["tags"] == ["gpu"]
    assert (cluster["view"], here["weight"]) == (1, 1.0)
    assert here["credit"] == 104  # 99 async, 4 threads, 1 process
    assert cluster["table_hash"] == node.world.cluster.placement.hash


async def test_the_state_of_a_node_is_told_by_lease_and_view(http: Http, node: MemoryNode) -> None:
    """Others' leases are set here; views are proposed by hand, so that no member is faster."""
    store, cluster = node.store, node.world.cluster
    numbers = {
        name: await store.join(name, 60, {"handlers": []}) for name in ("joins", "waits", "silent", "ends")
    }
    for name in ("waits", "silent"):
        await store.set_state(numbers[name], "active")
    await store.set_state(numbers["ends"], "draining")
    lost = await store.join("lost", 0.001, {})
    await store.set_state(lost, "active")
    silent = Member(node="silent", incarnation=numbers["silent"], standing=Standing.UNREACHABLE)
    me = cluster.view.members[0]
    cluster.install(View(number=100, members=(me, silent)), {})  # newer than what the node itself proposes
    states = {one["name"]: one["state"] for one in (await http.get("/v1/cluster")).json["nodes"]}
    assert states == {
        "n1": "active", "joins": "joining", "waits": "joining", "silent": "unreachable", "ends": "draining",
        "lost": "unreachable",
    }  # fmt: skip


async def test_what_others_have_in_hand_is_told_as_heard(http: Http, node: MemoryNode) -> None:
    async with memory_node(REGISTRY, name="n2", beside=node) as other:
        await until(lambda: len(node.world.cluster.view.active) == 2)
        [band] = await node.store.intern([BandKey("gate", Lane.LOW)])
        await node.store.accept([[new_task(band, born_on=other.world.incarnation)]])
        [_, unheard] = (await http.get("/v1/cluster")).json["nodes"]
        assert (unheard["running"], unheard["credit"]) == (1, None)  # by the record alone
        heard = node.world.cluster.peer(other.world.incarnation)
        heard.running, heard.credits = 7, [3, 0, 1]
        [_, told] = (await http.get("/v1/cluster")).json["nodes"]
        assert (told["name"], told["running"], told["credit"]) == ("n2", 7, 4)


# -- the ring ---------------------------------------------------------------------------------------


async def test_the_ring_tells_shares_and_who_owns_nothing(http: Http, node: MemoryNode) -> None:
    async with (
        memory_node(REGISTRY, name="n2", beside=node, weight=3.0) as second,
        memory_node(REGISTRY, name="n3", beside=node, weight=0.0),
    ):
        await until(lambda: node.world.cluster.view.number == 3)
        second.world.cluster.install(node.world.cluster.view, {})
        await node.store.set_state(second.world.incarnation, "draining")
        ring = (await http.get("/v1/cluster/ring")).json
        assert (ring["view"], ring["slots"], ring["table_hash"]) == (
            3, 4096, node.world.cluster.placement.hash,
        )  # fmt: skip
        first, large, nothing = ring["nodes"]
        assert first["slots"] + large["slots"] == 4096
        assert large["share"] == round(large["slots"] / 4096, 6)
        assert (first["even_share"], large["even_share"], nothing["even_share"]) == (0.25, 0.75, 0)
        assert 0.2 < first["share"] < 0.3
        expected = max(first["share"] / 0.25, large["share"] / 0.75)
        assert ring["max_over_average"] == pytest.approx(expected, abs=1e-3)
        assert (nothing["slots"], nothing["reason"]) == (0, "its weight is 0: it gets work by pulling only")
        assert first["reason"] is None
        await until(lambda: node.world.cluster.view.number == 4)
        [_, drains, _] = (await http.get("/v1/cluster/ring")).json["nodes"]
        assert (drains["state"], drains["slots"], drains["reason"]) == (
            "draining", 0, "it drains, and gets nothing new",
        )  # fmt: skip


async def test_a_key_is_located_where_its_tasks_go(http: Http, node: MemoryNode) -> None:
    async with memory_node(Registry(there), name="n2", beside=node):
        await until(lambda: len(node.world.cluster.view.active) == 2)
        owners = set()
        for key in map(str, range(40)):
            place = (await http.get("/v1/cluster/locate", key=key)).json
            assert place["slot"] == slot_of(key)
            owners.add(place["node"])
            assert (await http.get("/v1/cluster/locate", key=key, handler="there")).json["node"] == "n2"
            task = await http.submit("there", idempotency_key=key)
            assert (task["slot"], task["home"]) == (slot_of(key), "n2")
        assert owners == {"n1", "n2"}
        lost = (await http.get("/v1/cluster/locate", key="k", handler="nobody")).json
        assert lost == {
            "slot": slot_of("k"), "node": None, "incarnation": None,
            "reason": "no active node has the handler nobody loaded",
        }  # fmt: skip


@pytest.mark.parametrize(
    "query", ["", "?key=", "?key=" + "x" * 256, "?key=" + "%E2%82%AC" * 200, "?key=a&key=b"]
)
async def test_a_key_that_no_task_can_have_is_refused(http: Http, query: str) -> None:
    answer = await http.get(f"/v1/cluster/locate{query}")
    assert (answer.status, answer.slug, answer.pointers) == (422, "invalid-request", ["?key"])


async def test_views_are_told_newest_first(http: Http, node: MemoryNode) -> None:
    async with memory_node(REGISTRY, name="n2", beside=node, tags=("gpu",)):
        await until(lambda: node.world.cluster.view.number == 2)
        views = (await http.get("/v1/cluster/views")).json["views"]
        assert [view["number"] for view in views] == [2, 1]
        assert [(one["node"], one["tags"]) for one in views[0]["members"]] == [("n1", []), ("n2", ["gpu"])]
        assert "n2" in views[0]["reason"]
        assert len((await http.get("/v1/cluster/views?limit=1")).json["views"]) == 1
        assert (await http.get("/v1/cluster/views?limit=201")).pointers == ["?limit"]


async def test_a_node_is_asked_to_drain_and_leaves(http: Http, node: MemoryNode, gates: Gates) -> None:
    async with memory_node(REGISTRY, name="n2", beside=node) as other:
        await until(lambda: len(node.world.cluster.view.active) == 2)
        for _ in range(2):
            answer = await http.post("/v1/cluster/nodes/n2/drain")
            assert (answer.status, answer.json) == (202, {"name": "n2", "drain_requested": True})
        await until(lambda: other.service.draining)
        await until(lambda: len(node.world.cluster.view.members) == 1)
        rows = {one["name"]: one for one in (await http.get("/v1/cluster")).json["nodes"]}
        assert (rows["n2"]["state"], rows["n2"]["drain_requested"]) == ("left", True)
        assert rows["n1"]["slots"] == 4096
        gone = await http.post("/v1/cluster/nodes/n2/drain")
        assert (gone.status, gone.slug) == (404, "node-not-found")


@pytest.mark.parametrize("name", ["nobody", "a%00b", "%F0%9F%8C%8A", "a%2Fb"])
async def test_a_node_that_is_not_there_cannot_drain(http: Http, name: str) -> None:
    answer = await http.post(URL(f"/v1/cluster/nodes/{name}/drain", encoded=True))  # type: ignore[arg-type]  # sent as it is
    assert (answer.status, answer.slug) == (404, "node-not-found")


# -- tasks of a cluster -----------------------------------------------------------------------------


async def test_any_node_accepts_for_all(http: Http, node: MemoryNode) -> None:
    assert (await http.post("/v1/tasks", {"handler": "there"})).slug == "invalid-request"
    async with memory_node(Registry(there), name="n2", beside=node):
        async with asyncio.timeout(5):  # the catalog is asked once a second for what it lacks
            while (answer := await http.post("/v1/tasks", {"handler": "there"})).status == 422:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert answer.status == 202
        task = await http.finished(answer.json["id"])
        assert (task["state"], task["result"], task["node"], task["home"]) == (
            "succeeded", "ahoy", "n2", "n2",
        )  # fmt: skip
        wrong = await http.post("/v1/tasks", {"handler": "there", "payload": {"who": 7, "x": 1}})
        assert (wrong.status, sorted(wrong.pointers)) == (422, ["#/payload/who", "#/payload/x"])


async def test_why_a_task_waits_is_judged_for_the_whole_cluster(http: Http, node: MemoryNode) -> None:
    async def why(handler: str, **fields: Any) -> tuple[str, str]:
        task = await http.submit(handler, **fields)
        assert task["state"] == "ready", task
        again = (await http.get(f"/v1/tasks/{task['id']}")).json
        assert again["waiting"] == task["waiting"]
        return task["waiting"]["reason"], task["waiting"]["detail"]

    async with memory_node(Registry(there), name="n2", beside=node, tags=("gpu",)) as other:
        await until(lambda: len(node.world.cluster.view.active) == 2)
        other.world.capacity.close("test")
        assert await why("there") == ("no_capacity", "waits for its turn")
        assert await why("there", requires=["gpu"]) == ("no_capacity", "waits for its turn")
        assert await why("there", requires=["gpu", "eu"]) == (
            "no_tags", "no active node that has the handler there bears eu, gpu together",
        )  # fmt: skip
        assert await why("add", payload={"a": 1}, requires=["gpu"]) == (
            "no_tags", "no active node that has the handler add bears gpu",
        )  # fmt: skip
        await other.drain()
    await until(lambda: len(node.world.cluster.view.members) == 1)
    assert await why("there") == ("no_handler", "no active node has the handler there loaded")
    me = replace(node.world.cluster.view.members[0], standing=Standing.DRAINING)
    node.world.cluster.install(View(number=100, members=(me,)), {})
    node.world.capacity.close("test")
    assert (await why("add", payload={"a": 1}))[0] == "no_handler"
    node.world.cluster.install(View(number=101), {})  # in no view, a node works by pulling
    assert (await why("add", payload={"a": 1}))[0] == "no_capacity"


async def test_stats_tell_what_goes_on(http: Http, gates: Gates) -> None:
    await http.submit("gate")
    await gates.started["g"].wait()
    await http.done("fail", {"message": "no luck"})
    stats = (await http.get("/v1/stats")).json
    assert (stats["node"], stats["state"]) == ("n1", "active")
    [running] = stats["running"]
    assert (running["handler"], running["attempt"]) == ("gate", 1)
    assert running["for_s"] >= 0
    [failure] = stats["failures"]
    assert (failure["handler"], failure["error_type"], failure["message"], failure["final"]) == (
        "fail", "ValueError", "no luck", True,
    )  # fmt: skip
    assert stats["capacity"]["async"]["taken"] == 1
    assert len(stats["rates"]["accepted"]["last"]) == 120


async def test_stats_tell_of_all_nodes_what_they_told_last(http: Http, node: MemoryNode) -> None:
    other = await node.store.join("n2", 60, {"handlers": ["there", "add"]})
    await node.store.set_state(other, "draining")
    load = {
        "running": 7,
        "limit": 9,
        "rates": {"accepted": 1.5},
        "handlers": {"add": [2.0, 1.0], "there": [8, 0]},
    }
    await node.store.renew(other, 60, load)
    for _ in range(5):
        await http.done("add", {"a": 1})

    rows: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    async with asyncio.timeout(10):  # rates are of whole seconds, and the record is counted once a second
        while rows.get("add", {}).get("per_s", 0) <= 2 or len(stats["nodes"]) < 2:
            stats = (await http.get("/v1/stats")).json
            rows = {row["name"]: row for row in stats.get("handlers", ())}
    me, they = stats["nodes"]
    assert (me["name"], me["state"], me["limit"]) == ("n1", "active", 105)
    assert they == {"name": "n2", "incarnation": other, "state": "draining", "running": 7, "limit": 9,
                    "rates": {"accepted": 1.5}}  # fmt: skip
    assert rows["add"]["per_s"] >= 2.1
    assert rows["add"]["failed_per_s"] == 1.0
    assert rows["add"]["p95_s"] >= rows["add"]["p50_s"] > 0
    assert (rows["there"]["per_s"], rows["there"].get("p50_s")) == (8.0, None)


async def test_tenants_are_listed_and_weighed(http: Http, node: MemoryNode) -> None:
    assert (await http.call("PUT", "/v1/tenants/acme", json={"weight": 3})).json == {
        "name": "acme", "weight": 3, "paused": False, "ready": 0, "scheduled": 0, "running": 0, "oldest_s": 0.0,
    }  # fmt: skip
    await http.submit("add", {"a": 1}, delay_s=3600)
    await until(lambda: node.world.capacity.weights == {"acme": 3})
    async with asyncio.timeout(10):  # until the record is counted
        rows: list[dict[str, Any]] = []
        while not rows or rows[-1]["scheduled"] == 0:
            rows = (await http.get("/v1/tenants")).json["tenants"]
    assert [(row["name"], row["weight"], row["scheduled"]) for row in rows] == [
        ("acme", 3, 0),
        ("default", 1, 1),
    ]
    page = (await http.get("/v1/tenants?limit=1")).json
    assert ([row["name"] for row in page["tenants"]], page["next_cursor"]) == (["acme"], "acme")
    page = (await http.get("/v1/tenants?limit=1&cursor=acme")).json
    assert ([row["name"] for row in page["tenants"]], page["next_cursor"]) == (["default"], None)
    stats = (await http.get("/v1/stats")).json
    assert [row["name"] for row in stats["tenants"]] == ["acme", "default"]


@pytest.mark.parametrize("body", [{}, {"weight": 0}, {"weight": 101}, {"weight": 1.5}, {"weight": 1, "x": 1}])
async def test_a_weight_that_is_none_is_refused(http: Http, node: MemoryNode, body: dict[str, Any]) -> None:
    assert (await http.call("PUT", "/v1/tenants/acme", json=body)).status == 422
    assert await node.store.tenant_weights() == {}


async def test_a_tenant_that_cannot_be_is_refused(http: Http) -> None:
    for name in ("a%00b", "x" * 201):
        assert (await http.call("PUT", f"/v1/tenants/{name}", json={"weight": 2})).status == 422


async def test_stats_tell_hot_keys_and_what_fires_next(http: Http, node: MemoryNode) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    node.world.activity.hot_keys = (HotKey("account", "42", 2.5),)
    node.world.activity.next_fires = (NextFire("default", "nightly", at),)
    stats = (await http.get("/v1/stats")).json
    assert stats["hot_keys"] == [{"actor": "account", "key": "42", "per_s": 2.5}]
    assert stats["next_fires"] == [{"tenant": "default", "name": "nightly", "at": "2030-01-01T00:00:00Z"}]


def test_a_census_is_counted_by_lane_and_handler() -> None:
    bands = {
        1: Band(id=1, handler="a", lane=Lane.HIGH, tenant="t", requires=(), keyed=False),
        2: Band(id=2, handler="a", lane=Lane.LOW, tenant="u", requires=(), keyed=False),
        3: Band(id=3, handler="b", lane=Lane.LOW, tenant="t", requires=("x",), keyed=True),
    }
    census = Census(
        bands=(
            BandCount(1, ready=1, scheduled=2, running=3, oldest_due_s=4.0),
            BandCount(-1, ready=10, scheduled=0, running=0, oldest_due_s=40.0),  # suspects
            BandCount(2, ready=100, scheduled=0, running=0, oldest_due_s=1.0),
            BandCount(3, ready=1000, scheduled=0, running=0, oldest_due_s=2.0, blocked=6),
            BandCount(9, ready=5, scheduled=0, running=0, oldest_due_s=0.0),  # not known here yet
        ),
        succeeded=7, failed=8, cancelled=9, succeeded_is_estimate=True,
    )  # fmt: skip
    stats = counted(census, bands, {"b"}, ["a", "c"])
    assert stats["backlog"] == 1116
    assert (stats["counts"]["ready"], stats["counts"]["blocked"]) == (1116, 6)
    assert (stats["counts"]["succeeded"], stats["counts"]["succeeded_is_estimate"]) == (7, True)
    assert {row["lane"]: (row["ready"], row["oldest_s"]) for row in stats["lanes"]} == {
        "high": (11, 40.0), "medium": (0, 0.0), "low": (1100, 2.0),
    }  # fmt: skip
    rows = {row["name"]: (row["ready"], row["running"], row["paused"]) for row in stats["handlers"]}
    assert rows == {"a": (111, 3, False), "b": (1000, 0, True), "c": (0, 0, False)}


@pytest.mark.allow_blocking("metrics of the process are read from /proc")
async def test_alive_and_ready(http: Http, node: MemoryNode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await http.get("/livez")).json == {"status": "alive"}
    assert (await http.get("/readyz")).json == {"status": "ready"}
    for path in ("/livez", "/readyz", "/", "/metrics"):
        answer = await http.call("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")

    async def away() -> str:
        return "the record is away"

    monkeypatch.setattr(node.service, "ready", away)
    answer = await http.get("/readyz")
    assert (answer.status, answer.slug) == (503, "not-ready")
    assert (answer.json["detail"], answer.headers["Retry-After"]) == ("the record is away", "1")
    assert (await http.get("/livez")).status == 200


@pytest.mark.allow_blocking("metrics of the process are read from /proc")
async def test_metrics_are_prometheus_text(http: Http) -> None:
    await http.done("add", {"a": 1})
    answer = await http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"noria_tasks_accepted", "noria_tasks_finished"} <= families
