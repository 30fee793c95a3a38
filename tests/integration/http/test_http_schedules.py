"""Schedules over HTTP: made, shown, fired by several nodes exactly once, paused, run by hand, deleted."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runtime.core.schedule import ScheduleSpec
from runtime.core.task import HandlerEntry, TaskFilter
from tests.support.http_api import GATES, REGISTRY
from tests.support.memory_node import memory_node

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.core.task import TaskView
    from tests.support.http_api import Answer, Gates, Http
    from tests.support.memory_node import MemoryNode

ECHO: dict[str, Any] = {"handler": "echo", "payload": {"value": 7}}
NIGHTLY: dict[str, Any] = {"cron": "0 3 * * *", "time_zone": "Europe/Berlin", "task": ECHO}


async def put(http: Http, name: str, body: Any) -> Answer:
    return await http.call("PUT", f"/v1/schedules/{name}", json=body)


async def made_by(node: MemoryNode, name: str) -> list[TaskView]:
    page = await node.store.list(TaskFilter(handler="echo"), 500)
    return [task for task in page.tasks if task.created_by == f"schedule:{name}"]


async def until(met: Callable[[], Any], within_s: float = 15.0) -> Any:
    """What `met` comes to, once it is true."""
    async with asyncio.timeout(within_s):
        while not (found := await met()):  # noqa: ASYNC110 - a condition of the record
            await asyncio.sleep(0.02)
    return found


# -- asking ------------------------------------------------------------------------------------------


async def test_put_shows_it_with_its_next_times(http: Http) -> None:
    answer = await put(http, "nightly", NIGHTLY | {"catch_up": "all", "catch_up_max": 3, "overlap": "skip"})
    assert answer.status == 200
    made = answer.json
    assert (made["name"], made["cron"], made["every_s"]) == ("nightly", "0 3 * * *", None)
    assert (made["catch_up"], made["catch_up_max"], made["overlap"]) == ("all", 3, "skip")
    assert made["task"] == ECHO
    assert (made["last_fire_at"], made["last_task"], made["paused_at"], made["fired"]) == (
        None,
        None,
        None,
        0,
    )
    times = [datetime.fromisoformat(text) for text in made["next"]]
    assert len(times) == 5
    assert times[0] > datetime.now(UTC)
    assert {text[11:] for text in made["next"]} <= {"01:00:00Z", "02:00:00Z"}
    assert (await http.get("/v1/schedules/nightly", next=2)).json == made | {"next": made["next"][:2]}
    again = (await put(http, "nightly", NIGHTLY)).json
    assert (again["catch_up"], again["overlap"], again["next"]) == ("last", "allow", made["next"])


async def test_they_are_listed_page_by_page(http: Http) -> None:
    for name in ("c", "a", "b"):
        await put(http, name, NIGHTLY)
    page = (await http.get("/v1/schedules", limit=2, next=1)).json
    assert [one["name"] for one in page["schedules"]] == ["a", "b"]
    assert [len(one["next"]) for one in page["schedules"]] == [1, 1]
    rest = (await http.get("/v1/schedules", limit=2, cursor=page["next_cursor"])).json
    assert ([one["name"] for one in rest["schedules"]], rest["next_cursor"]) == (["c"], None)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"cron": "61 * * * *"}, "#/cron"),
        ({"cron": "* * *"}, "#/cron"),
        ({"cron": "0 0 */20 2 1L"}, "#/cron"),
        ({"cron": None}, "#/cron"),
        ({"time_zone": "Europe/Bielefeld"}, "#/time_zone"),
        ({"time_zone": "../../etc/passwd"}, "#/time_zone"),
        ({"every_s": 5}, "#/every_s"),
        ({"catch_up": "some"}, "#/catch_up"),
        ({"catch_up_max": 5}, "#/catch_up_max"),
        ({"catch_up": "all", "catch_up_max": 0}, "#/catch_up_max"),
        ({"overlap": "queue"}, "#/overlap"),
        ({"task": {"handler": "ecko"}}, "#/task/handler"),
        ({"task": {"handler": "add", "payload": {"a": "x"}}}, "#/task/payload/a"),
        ({"task": ECHO | {"idempotency_key": "k"}}, "#/task/idempotency_key"),
        ({"task": ECHO | {"timeout_s": -1}}, "#/task/timeout_s"),
        ({"corn": "* * * * *"}, "#/corn"),
    ],
)
async def test_what_is_wrong_is_named(http: Http, change: dict[str, Any], pointer: str) -> None:
    answer = await put(http, "s", NIGHTLY | change)
    assert (answer.status, answer.slug) == (422, "invalid-request")
    assert pointer in [error["pointer"] for error in answer.json["errors"]]
    assert (await http.get("/v1/schedules/s")).status == 404


async def test_bounds_of_intervals_and_names(http: Http) -> None:
    for body, pointer in (
        ({"task": ECHO}, "#/cron"),
        ({"every_s": 0.5, "task": ECHO}, "#/every_s"),
        ({"every_s": 60, "time_zone": "UTC", "task": ECHO}, "#/time_zone"),
    ):
        assert (await put(http, "s", body)).json["errors"][0]["pointer"] == pointer
    for name in ("-a", "a%20b", "x" * 201, "%00"):
        assert (await put(http, name, NIGHTLY)).json["errors"][0]["pointer"] == "#/name"
        assert (await http.get(f"/v1/schedules/{name}")).slug == "schedule-not-found"


async def test_what_is_not_there_is_said(http: Http) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/run"),
    ):
        answer = await http.call(method, f"/v1/schedules/nobody{path}")
        assert (answer.status, answer.slug) == (404, "schedule-not-found")


# -- firing ------------------------------------------------------------------------------------------


async def test_each_fire_time_makes_one_task_whatever_nodes_there_are() -> None:
    GATES.forget()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(memory_node(REGISTRY))
        others = [memory_node(REGISTRY, name=name, beside=node) for name in ("n2", "n3")]
        nodes = [node, *[await stack.enter_async_context(other) for other in others]]
        await node.store.put_schedule(
            ScheduleSpec(
                name="beat", cron="* * * * * *", task=b'{"handler": "echo", "payload": {"value": 7}}'
            ),
            datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1),
        )

        async def four() -> list[TaskView]:
            tasks = await made_by(node, "beat")
            return tasks if len(tasks) >= 4 else []

        tasks = await until(four)
        keys = Counter(task.idempotency_key for task in tasks)
        assert set(keys.values()) == {1}
        times = sorted(datetime.fromisoformat(key.removeprefix("schedule:beat:")) for key in keys if key)
        assert [(b - a).total_seconds() for a, b in itertools.pairwise(times)] == [1.0] * (len(times) - 1)
        late = [
            task.created_at - datetime.fromisoformat(task.idempotency_key[14:])
            for task in tasks
            if task.idempotency_key
        ]
        assert timedelta() <= min(late) <= max(late) < timedelta(seconds=5)
        found = await node.store.schedule("default", "beat")
        assert found is not None
        assert found.missed == found.skipped == 0
        shown = "".join([(await asyncio.to_thread(each.service.metrics)).decode() for each in nodes])
        fired = re.findall(r"^noria_schedules_fired_total (\S+)$", shown, re.MULTILINE)
        assert len(fired) == 3
        assert sum(map(float, fired)) >= len(tasks), "whichever nodes fired them"
        assert "noria_schedule_late_seconds_bucket" in shown


async def test_a_task_tells_whence_it_comes(http: Http, node: MemoryNode) -> None:
    await put(http, "beat", {"every_s": 1, "task": ECHO | {"priority": "high", "metadata": {"a": 1}}})
    [task, *_] = await until(lambda: made_by(node, "beat"))
    shown = (await http.get(f"/v1/tasks/{task.id}?wait=10")).json
    assert (shown["state"], shown["result"], shown["priority"]) == ("succeeded", 7, "high")
    assert shown["metadata"]["a"] == 1
    assert shown["metadata"]["schedule"] == "beat"
    assert shown["idempotency_key"].startswith("schedule:beat:")
    one = (await http.get("/v1/schedules/beat")).json
    assert one["last_task"]["state"] is not None
    assert one["fired"] >= 1


async def test_skip_leaves_out_and_cancel_old_cancels(http: Http, node: MemoryNode, gates: Gates) -> None:
    gated = {"every_s": 1, "task": {"handler": "gate", "payload": {"name": "s"}}, "overlap": "skip"}
    await put(http, "s", gated)

    async def skipped() -> bool:
        found = await node.store.schedule("default", "s")
        return found is not None and found.skipped >= 2

    await until(skipped)
    found = await node.store.schedule("default", "s")
    assert found is not None
    assert found.fired == 1
    assert len(found.unended) == 1
    first = found.unended[0]
    await put(http, "s", gated | {"overlap": "cancel_old"})

    async def cancelled() -> bool:
        view = await node.store.get(first)
        return view is not None and view.state.value == "cancelled"

    await until(cancelled)
    await http.call("DELETE", "/v1/schedules/s")


async def test_a_handler_that_is_gone_keeps_its_task_waiting(http: Http, node: MemoryNode) -> None:
    """Its arguments no longer bind, or nobody has it: the fire is stored, and waits."""
    await node.store.publish([HandlerEntry(name="old", digest="d", schema={"type": "object"}, defaults={})])
    await node.store.put_schedule(
        ScheduleSpec(
            name="gone", cron="0 0 1 1 *", task=b'{"handler": "nobody_has_it", "payload": {"x": 1}}'
        ),
        datetime.now(UTC),
    )

    async def stored() -> Any:
        return (await node.store.list(TaskFilter(handler="nobody_has_it"), 10)).tasks

    [task] = await until(stored)
    shown = (await http.get(f"/v1/tasks/{task.id}")).json
    assert (shown["state"], shown["waiting"]["reason"]) == ("ready", "no_handler")
    assert shown["max_attempts"] == 3


# -- pausing, running, deleting ----------------------------------------------------------------------


async def test_pause_resume_run_delete(http: Http, node: MemoryNode) -> None:
    await put(http, "n", NIGHTLY)
    paused = (await http.post("/v1/schedules/n/pause")).json
    assert (paused["paused_at"] is not None, paused["next"]) == (True, [])
    assert (await http.post("/v1/schedules/n/pause")).json["paused_at"] == paused["paused_at"]
    ran = await http.post("/v1/schedules/n/run")
    assert (ran.status, ran.headers["Location"]) == (202, f"/v1/tasks/{ran.json['id']}")
    done = (await http.get(f"/v1/tasks/{ran.json['id']}?wait=10")).json
    assert (done["state"], done["result"], done["idempotency_key"]) == ("succeeded", 7, None)
    one = (await http.get("/v1/schedules/n")).json
    assert (one["last_task"], one["fired"]) == ({"id": done["id"], "state": "succeeded"}, 1)
    resumed = (await http.post("/v1/schedules/n/resume")).json
    assert (resumed["paused_at"], len(resumed["next"])) == (None, 5)
    assert (await http.call("DELETE", "/v1/schedules/n")).json == {"name": "n", "deleted": True}
    assert (await http.get("/v1/schedules/n")).status == 404
    assert (await http.get(f"/v1/tasks/{done['id']}")).status == 200


async def test_what_falls_into_a_pause_is_not_made_up_for(http: Http, node: MemoryNode) -> None:
    spec = ScheduleSpec(name="p", cron="0 * * * *", task=b'{"handler": "echo"}')
    due = datetime.now(UTC) - timedelta(hours=3)
    await node.store.put_schedule(spec, datetime.now(UTC) + timedelta(hours=1))
    found = await node.store.schedule("default", "p")
    assert found is not None
    await node.store.set_schedule_paused("default", "p", found.revision, paused=True, next_fire_at=due)
    resumed = (await http.post("/v1/schedules/p/resume")).json
    assert datetime.fromisoformat(resumed["next"][0]) > datetime.now(UTC)
    assert (resumed["fired"], resumed["missed"]) == (0, 0)
