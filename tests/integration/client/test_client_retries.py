"""What happens when the way to the node breaks: requests are repeated, and nothing is stored twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson
import pytest

from actors import task
from node.client import Client, InvalidTask, Overloaded, ServerFault, Unreachable, WaitTimeout
from tests.support.client_handlers import LATER, REGISTRY, add
from tests.support.faulty_proxy import faulty_proxy
from tests.support.memory_node import memory_node
from tests.support.processes import free_port

if TYPE_CHECKING:
    from tests.support.faulty_proxy import Proxy
    from tests.support.memory_node import MemoryNode

NOW = {"Retry-After": "0"}


async def stored(client: Client) -> int:
    return len([info async for info in client.tasks()])


@pytest.mark.parametrize(
    "fault", ["lose", "lose-answer", (502, {}), (503, NOW), (504, {}), (429, NOW), (408, {})]
)
async def test_a_task_is_stored_once_whatever_breaks(
    shaken: Client, proxy: Proxy, fault: str | tuple[int, dict[str, str]]
) -> None:
    proxy.plan.extend([fault, fault])
    t = await shaken.submit(task(add, a=1, b=2))
    assert not t.duplicate  # it was our own repetition
    assert await t.result(10) == 3
    assert await stored(shaken) == 1
    assert [path for method, path in proxy.seen if method == "POST"] == ["/v1/tasks"] * 3
    assert len(set(proxy.bodies[:3])) == 1  # the same request, key included


async def test_a_batch_is_stored_once_whatever_breaks(shaken: Client, proxy: Proxy) -> None:
    proxy.plan.extend(["lose-answer", "lose", "lose-answer"])
    handles = await shaken.submit_many(task(add, a=n) for n in range(50))
    assert await shaken.results(handles, 10) == list(range(50))
    assert await stored(shaken) == 50
    assert not any(handle.duplicate for handle in handles)


async def test_a_task_without_any_key_is_repeated_only_where_nothing_was_stored(proxy: Proxy) -> None:
    async with Client(proxy.url, retry_for_s=5.0, auto_keys=False) as client:
        proxy.plan.append("lose-answer")
        with pytest.raises(Unreachable):
            await client.submit("add", {"a": 1})
        assert await stored(client) == 1
        proxy.plan.append((429, NOW))
        t = await client.submit("add", {"a": 1})
        assert (await t.status()).idempotency_key is None
        proxy.plan.append("lose-answer")
        with pytest.raises(Unreachable):
            await client.submit_many([("add", {"a": 1}), ("add", {"a": 1}, {"idempotency_key": "k"})])
        proxy.plan.append("lose-answer")
        [kept] = await client.submit_many([("add", {"a": 9}, {"idempotency_key": "own"})])
        assert kept.duplicate  # stored by the try whose answer was lost, and the key was the caller's


async def test_results_survive_broken_polls(shaken: Client, proxy: Proxy) -> None:
    t = await shaken.submit(task(add, a=1))
    proxy.plan.extend(["lose", (503, NOW), "lose-answer", (502, {})])
    assert await t.result(10) == 1


async def test_a_new_run_is_not_opened_twice(shaken: Client, proxy: Proxy) -> None:
    t = await shaken.submit(task(add, a=1).options(run_at=LATER))
    await t.cancel()
    proxy.plan.append("lose-answer")
    with pytest.raises(Unreachable):
        await t.retry()
    assert [path for _, path in proxy.seen].count(f"/v1/tasks/{t.id}/retry") == 1


async def test_refusals_are_not_repeated(shaken: Client, proxy: Proxy) -> None:
    with pytest.raises(InvalidTask):
        await shaken.submit("nobody", {})
    assert len(proxy.seen) == 1


async def test_overload_that_lasts_is_told_with_the_nodes_advice(proxy: Proxy) -> None:
    proxy.plan.extend([(503, {"Retry-After": "30"})] * 100)
    async with Client(proxy.url, retry_for_s=5.0) as client:
        started_s = time.monotonic()
        with pytest.raises(Overloaded) as caught:
            await client.stats()
        assert caught.value.retry_after_s == 30
        assert time.monotonic() - started_s < 4  # waiting 30 s would not fit into 5
    assert len(proxy.seen) == 1


async def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with Client(url, retry_for_s=0.3) as client:
        with pytest.raises(Unreachable, match=f"no node answers at {url}: ") as caught:
            await client.submit("add", {"a": 1})
    assert caught.value.url == url


async def test_a_node_that_comes_while_the_client_tries(node: MemoryNode) -> None:
    """The first tries find nobody; then a node listens on the port."""
    async with faulty_proxy(node.url) as proxy:
        proxy.plan.extend(["lose"] * 4)
        async with Client(proxy.url, retry_for_s=10.0) as client:
            assert await client.call("add", {"a": 7}, timeout_s=10) == 7


async def test_a_node_that_hangs_is_given_up_in_time(proxy: Proxy) -> None:
    proxy.plan.extend(["hang"] * 10)
    async with Client(proxy.url, retry_for_s=0.5, request_timeout_s=0.3) as client:
        with pytest.raises(Unreachable, match="no answer in time"):
            await client.stats()


async def test_result_ends_in_time_though_the_node_hangs(shaken: Client, proxy: Proxy) -> None:
    t = await shaken.submit(task(add, a=1).options(run_at=LATER))
    proxy.plan.extend(["hang"] * 10)
    started_s = time.monotonic()
    with pytest.raises(Unreachable):
        await t.result(timeout_s=0.2)
    assert time.monotonic() - started_s < 10  # the wait and a grace, not the request timeout of 30 s


async def test_a_draining_node_is_not_asked_in_a_busy_loop(
    node: MemoryNode, shaken: Client, proxy: Proxy
) -> None:
    t = await shaken.submit(task(add, a=1).options(run_at=LATER))
    await node.drain()
    proxy.seen.clear()
    with pytest.raises(WaitTimeout):
        await t.result(timeout_s=1.5)
    assert len(proxy.seen) < 12


async def test_an_answer_that_is_not_noria(proxy: Proxy) -> None:
    async with Client(proxy.url, retry_for_s=1.0) as client:
        proxy.plan.append((200, {"Content-Type": "text/html"}))
        with pytest.raises(ServerFault, match="expected JSON, got text/html"):
            await client.submit("add", {"a": 1})
        proxy.plan.append((301, {"Location": "https://elsewhere/"}))
        with pytest.raises(ServerFault, match="redirects to https://elsewhere/"):
            await client.submit("add", {"a": 1})
        proxy.plan.append((500, {}))
        with pytest.raises(ServerFault, match="HTTP 500"):
            await client.submit("add", {"a": 1})


async def test_the_key_goes_into_the_header_and_into_no_error(node: MemoryNode) -> None:
    async with (
        faulty_proxy(node.url) as proxy,
        Client(proxy.url, api_key="secret-key", retry_for_s=0.1) as client,
    ):
        proxy.plan.append((401, {}))
        with pytest.raises(Exception, match="HTTP 401") as caught:
            await client.stats()
        assert "secret-key" not in repr(caught.value)


async def test_a_generated_key_tells_that_it_was_generated(shaken: Client, proxy: Proxy) -> None:
    await shaken.submit("add", {"a": 1})
    assert orjson.loads(proxy.bodies[0])["idempotency_key"].startswith("auto:")


async def test_two_nodes_on_one_port_one_after_the_other() -> None:
    """What a rolling restart looks like from outside: connections break, the next node answers."""
    async with (
        memory_node(REGISTRY) as first,
        memory_node(REGISTRY, name="n2") as second,
        faulty_proxy(first.url) as proxy,
        Client(proxy.url, retry_for_s=5.0) as client,
    ):
        assert await client.call("add", {"a": 1}, timeout_s=10) == 1
        proxy.target = second.url
        proxy.plan.append("lose")
        assert await client.call("add", {"a": 2}, timeout_s=10) == 2
