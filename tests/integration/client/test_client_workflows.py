"""Workflows through both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors import Task, Workflow, chain, chord, group, task
from node.client import Client, InvalidTask, NotFound, SyncClient, TaskFailed, WaitTimeout
from tests.support.client_handlers import GATES, REGISTRY, add, echo, fail, gate
from tests.support.threaded_node import threaded_node

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with threaded_node(REGISTRY) as found:
        yield found


async def test_a_chord_is_submitted_awaited_and_looked_at(url: str) -> None:
    async with Client(url) as client:
        flow = chord([task(add, a=n) for n in range(3)], then=task(echo, value="joined"))
        handle = await client.submit_workflow(flow)
        assert await handle.result(timeout_s=10) == "joined"
        assert await handle["add_2"].result(timeout_s=10) == 1
        info = await handle.wait(timeout_s=10)
        assert (info.state, info.total, info.ended, dict(info.counts)) == (
            "succeeded",
            4,
            4,
            {"succeeded": 4},
        )
        assert info.tasks[3].depends_on == tuple(each.id for each in info.tasks[:3])
        assert (await client.workflows(limit=1))[0].id == handle.id
        again = await client.submit_workflow(flow, idempotency_key="once")
        assert (await client.submit_workflow(flow, idempotency_key="once")).id == again.id
        with pytest.raises(NotFound):
            await client.workflow("01890000-0000-7000-8000-000000000000")


async def test_what_is_refused_names_the_task(url: str) -> None:
    async with Client(url) as client:
        with pytest.raises(InvalidTask) as refused:
            await client.submit_workflow(chain(task(add, a=1), Task(handler="nobody")))
        assert refused.value.errors[0][0] == "#/tasks/nobody/handler"
        with pytest.raises(InvalidTask) as missing:
            await client.submit(task(add, a=1).options(depends_on=["01890000-0000-7000-8000-000000000000"]))
        assert missing.value.errors[0][0] == "#/depends_on/0"


def test_the_synchronous_client_does_the_same(url: str) -> None:
    with SyncClient(url) as client:
        first = client.submit(task(add, a=1))
        after = client.submit(task(add, a=2).options(depends_on=[first.id]))
        assert after.result(10) == 2
        flow = Workflow()
        flow.add(task(gate, name="sync"), name="held")
        flow.add(task(add, a=3), name="last", after=["held"])
        handle = client.submit_workflow(flow)
        assert handle.ends == ("last",)
        with pytest.raises(WaitTimeout):
            handle.wait(0.2)
        GATES.opened["sync"].set()
        assert handle.wait(10).state == "succeeded"
        assert (handle.result(10), handle.tasks["last"].id) == (3, handle["last"].id)
        broken = client.submit_workflow(chain(task(fail), task(add, a=4)))
        with pytest.raises(TaskFailed, match="parent_failed: task fail"):
            broken.result(10)
        both = client.submit_workflow(group(task(gate, name="never"), task(gate, name="never")))
        with pytest.raises(ValueError, match="ends with 2 tasks"):
            both.result(1)
        client.cancel_workflow(both.id)
        assert both.wait(10).state == "cancelled"
        assert client.workflow(both.id).ended == 2
        assert [each.state for each in client.workflows(limit=2)] == ["cancelled", "failed"]
