"""Handlers, nodes, numbers, health."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.http.stats import counted
from runtime.core.task import Band, BandCount, Census, Lane
from tests.support.memory_node import until

if TYPE_CHECKING:
    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode


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
    await until(lambda: "add" in node.world.capacity.paused)
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
            BandCount(3, ready=1000, scheduled=0, running=0, oldest_due_s=2.0),
            BandCount(9, ready=5, scheduled=0, running=0, oldest_due_s=0.0),  # not known here yet
        ),
        succeeded=7, failed=8, cancelled=9, succeeded_is_estimate=True,
    )  # fmt: skip
    stats = counted(census, bands, {"b"}, ["a", "c"])
    assert stats["backlog"] == 1116
    assert stats["counts"]["ready"] == 1116
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
