"""Many tasks in few requests, and many results with few polls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from actors import task
from node.client import Client, InvalidTask, TaskFailed, TooLarge, Unreachable, WaitTimeout
from node.client.encode import BATCH_BYTES_MAX, BATCH_TASKS_MAX
from tests.support.client_handlers import GATES, LATER, add, fail, gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.client import TaskHandle
    from tests.support.faulty_proxy import Proxy


async def test_handles_come_back_in_order_over_several_batches(shaken: Client, proxy: Proxy) -> None:
    handles = await shaken.submit_many([("add", {"a": n}, {"run_at": LATER}) for n in range(6_000)])
    posts = [orjson.loads(body)["tasks"] for body in proxy.bodies]
    assert sorted(len(tasks) for tasks in posts) == [1_000, 2_500, 2_500]
    assert len({handle.id for handle in handles}) == 6_000
    one = posts[0][7]
    [found] = [info async for info in shaken.tasks(idempotency_key=one["idempotency_key"])]
    assert found.id == handles[one["payload"]["a"]].id


async def test_a_batch_is_cut_where_the_node_would_refuse_its_size(shaken: Client, proxy: Proxy) -> None:
    blob = "x" * 1_000_000
    handles = await shaken.submit_many([("echo", {"value": blob}, {"run_at": LATER}) for _ in range(20)])
    assert len(handles) == 20
    assert len(proxy.bodies) == 2
    assert max(map(len, proxy.bodies)) <= BATCH_BYTES_MAX


async def test_the_work_is_read_as_it_is_sent(shaken: Client, proxy: Proxy) -> None:
    """Memory is bounded by the batches under way, not by the length of the work."""
    ahead: list[int] = []

    def work() -> Iterator[tuple[str, dict[str, Any], Any]]:
        for n in range(8 * BATCH_TASKS_MAX):
            if n % BATCH_TASKS_MAX == 0:
                ahead.append(n // BATCH_TASKS_MAX - len(proxy.seen))
            yield "add", {"a": n}, {"run_at": LATER}

    await shaken.submit_many(work())
    assert len(ahead) == 8
    assert max(ahead) <= 4


async def test_nothing_to_do(client: Client) -> None:
    assert await client.submit_many([]) == []
    assert await client.results([]) == []
    nothing: list[TaskHandle[Any]] = []
    assert [t async for t in client.as_ended(nothing)] == []


async def test_a_wrong_task_is_named_by_its_place_in_the_call(client: Client) -> None:
    work: list[tuple[str, dict[str, Any]]] = [("add", {"a": n}) for n in range(4_000)]
    work[3_321] = ("add", {"a": "x"})
    with pytest.raises(InvalidTask) as caught:
        await client.submit_many(work)
    assert [pointer for pointer, _ in caught.value.errors] == ["#/tasks/3321/payload/a"]
    handles = caught.value.handles
    assert len(handles) == 4_000
    assert all(handles[:2_500]), "the first batch is stored, and the error says so"
    assert not any(handles[2_500:])


async def test_a_batch_with_a_wrong_task_stores_nothing(client: Client) -> None:
    with pytest.raises(InvalidTask):
        await client.submit_many([task(add, a=1), ("add", {})])
    assert [info async for info in client.tasks()] == []


async def test_what_cannot_be_written_as_json_is_found_before_anything_is_sent(
    shaken: Client, proxy: Proxy
) -> None:
    with pytest.raises(InvalidTask) as caught:
        await shaken.submit_many([("echo", {"value": 1}), ("echo", {"value": [0.5, float("nan")]})])
    assert caught.value.errors == (("#/tasks/1/payload/value/1", "nan is not a JSON number"),)
    assert proxy.seen == []


async def test_an_error_of_the_callers_iterable_passes_through(client: Client) -> None:
    def work() -> Iterator[tuple[str, dict[str, Any]]]:
        yield "add", {"a": 1}
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await client.submit_many(work())


async def test_one_task_beyond_a_request_is_refused_here(client: Client) -> None:
    with pytest.raises(TooLarge, match="task 0 of the batch has"):
        await client.submit_many([("echo", {"value": "x" * (BATCH_BYTES_MAX + 1)})])
    with pytest.raises(TooLarge):  # the node's own limit of one payload
        await client.submit("echo", {"value": "x" * 1_500_000})


async def test_an_unreachable_node_leaves_the_handles_of_what_is_stored(shaken: Client, proxy: Proxy) -> None:
    proxy.plan.extend(["pass", *["lose"] * 1000])
    with pytest.raises(Unreachable) as caught:
        await shaken.submit_many([("add", {"a": n}, {"run_at": LATER}) for n in range(5_000)])
    kept = [handle for handle in caught.value.handles if handle is not None]
    assert len(kept) == 2_500
    proxy.plan.clear()
    assert (await kept[0].status()).state == "scheduled"


# -- results ----------------------------------------------------------------------------------------


async def test_results_of_all_in_order_with_one_request_each(shaken: Client, proxy: Proxy) -> None:
    handles = await shaken.submit_many(task(add, a=n) for n in range(500))
    proxy.seen.clear()
    assert await shaken.results(handles, 20) == list(range(500))
    assert len(proxy.seen) == 500
    assert await shaken.results(handles, 0) == list(range(500))  # known now
    assert len(proxy.seen) == 500


async def test_the_first_failure_is_raised_or_all_are_returned(client: Client) -> None:
    handles: list[TaskHandle[Any]] = [
        await client.submit(task(add, a=1)),
        await client.submit(task(fail)),
        await client.submit(task(gate)),
    ]
    with pytest.raises(TaskFailed):
        await client.results(handles, 10)
    first, second, third = await client.results(handles, 0.2, return_errors=True)
    assert first == 1
    assert isinstance(second, TaskFailed)
    assert isinstance(third, WaitTimeout)


async def test_one_timeout_for_all(client: Client) -> None:
    handles = await client.submit_many([("add", {"a": n}, {"run_at": LATER}) for n in range(100)])
    started_s = time.monotonic()
    with pytest.raises(WaitTimeout):
        await client.results(handles, 0.3)
    assert time.monotonic() - started_s < 3


async def test_tasks_are_told_as_they_end(client: Client) -> None:
    slow = await client.submit(task(gate, name="slow"))
    quick = await client.submit(task(gate, name="quick"))
    GATES.opened["quick"].set()
    told = []
    async for t in client.as_ended([slow, quick], timeout_s=10):
        told.append(await t.result(0))
        GATES.opened["slow"].set()
    assert told == ["quick", "slow"]


async def test_ended_tasks_are_told_though_many_others_hang(shaken: Client, proxy: Proxy) -> None:
    hanging = await shaken.submit_many([("add", {"a": n}, {"run_at": LATER}) for n in range(60)])
    done = await shaken.submit_many([("add", {"a": n}) for n in range(60)])
    told = set()

    async def follow() -> None:
        async for t in shaken.as_ended([*hanging, *done], timeout_s=2.0):
            told.add(t.id)

    with pytest.raises(WaitTimeout):
        await follow()
    assert told == {t.id for t in done}
    assert len(proxy.seen) < 600  # polls take turns; nobody is asked in a busy loop


async def test_a_full_node_slows_a_producer_down(proxy: Proxy) -> None:
    proxy.plan.extend([(503, {"Retry-After": "0.3"})] * 4)
    async with Client(proxy.url, retry_for_s=0.1) as client:  # longer than it would try to reach a node
        assert len(await client.submit_many([("add", {"a": n}) for n in range(10)])) == 10
