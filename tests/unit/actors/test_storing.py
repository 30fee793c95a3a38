"""Large results on a whole node in memory, with a store for them that the test holds back, breaks and counts."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from actors import Context, handler
from actors.authoring.registry import Kind, Registry
from actors.collecting import Collecting
from actors.world import Keeping
from node.client import Client, ServerFault, TaskFailed
from runtime.core.objects import Reference, key_of
from runtime.core.task import Codec, State
from tests.support.held_objects import HeldObjects
from tests.support.memory_node import memory_node, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.memory_node import MemoryNode

SIZE = 300_000
STARTS: list[int] = []


@handler(timeout_s=5)
async def blob(ctx: Context, size: int = SIZE) -> bytes:
    STARTS.append(size)
    return b"\xfe" * size


@handler
async def rows(ctx: Context, count: int) -> list[str]:
    return ["x" * 100] * count


REGISTRY = Registry(blob, rows)


@pytest.fixture
def objects() -> HeldObjects:
    STARTS.clear()
    return HeldObjects()


@pytest.fixture
async def node(objects: HeldObjects) -> AsyncIterator[MemoryNode]:
    async with memory_node(REGISTRY, objects=objects, concurrency=8) as running:
        yield running


@pytest.fixture
async def client(node: MemoryNode) -> AsyncIterator[Client]:
    async with Client(node.url, retry_for_s=5) as made:
        yield made


async def seen(node: MemoryNode, task_id: str) -> Any:
    found = await node.store.get(UUID(task_id))
    assert found is not None
    return found


async def test_a_large_result_lies_apart_and_comes_back(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    t = await client.submit("blob")
    assert await t.result(10) == b"\xfe" * SIZE
    view = await seen(node, t.id)
    lies = Reference.from_bytes(view.result)
    assert view.result_codec is Codec.BYTES_APART
    assert lies == Reference(key_of(view.id, 1), SIZE, hashlib.sha256(b"\xfe" * SIZE).hexdigest())
    assert objects.bodies == {lies.key: b"\xfe" * SIZE}
    raw = (await t.status()).raw
    assert raw["result_ref"] == {
        "bytes": SIZE,
        "sha256": lies.sha256,
        "content_type": "application/octet-stream",
    }
    assert "result" not in raw


async def test_json_keeps_its_type(client: Client) -> None:
    t = await client.submit("rows", {"count": 5_000})
    assert await t.result(10) == ["x" * 100] * 5_000
    assert (await t.status()).raw["result_ref"]["content_type"] == "application/json"


async def test_small_ones_stay_in_the_record(client: Client, objects: HeldObjects) -> None:
    assert await (await client.submit("blob", {"size": 256 * 1024})).result(10) == b"\xfe" * 256 * 1024
    assert objects.puts == 0


async def test_beyond_the_limit_it_is_an_error_that_names_the_setting(
    client: Client, node: MemoryNode
) -> None:
    t = await client.submit("blob", {"size": node.world.limits.result_bytes + 1})
    with pytest.raises(TaskFailed, match="ResultTooLarge: .*NORIA_RESULT_MAX_BYTES"):
        await t.result(20)


async def test_without_a_store_it_is_an_error_that_says_what_to_set() -> None:
    async with memory_node(REGISTRY) as node, Client(node.url) as client:
        with pytest.raises(TaskFailed, match=r"at most 262144 fit in the record. Set NORIA_RESULTS_URL"):
            await client.call("blob")


async def test_what_is_keyed_commits_with_its_turn_so_its_results_are_small(
    client: Client, objects: HeldObjects
) -> None:
    with pytest.raises(TaskFailed, match="of tasks without an actor key are kept there"):
        await (await client.submit("blob", {}, actor_key="k")).result(10)
    assert len(await (await client.submit("blob", {"size": 1000}, actor_key="k")).result(10)) == 1000
    assert objects.puts == 0


async def test_nothing_is_committed_before_the_result_is_stored(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    objects.open.clear()
    t = await client.submit("blob")
    await objects.asked.wait()
    assert (await seen(node, t.id)).state is State.RUNNING
    objects.open.set()
    assert len(await t.result(10)) == SIZE


async def test_store_away_the_task_tells_why_it_waits_and_runs_once(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    objects.away = "the bucket does not answer"
    t = await client.submit("blob")
    async with asyncio.timeout(10):
        while "waiting" not in (info := await client.get(t.id)).raw:  # noqa: ASYNC110 - nobody tells of progress
            await asyncio.sleep(0.02)
    assert info.state is State.RUNNING
    assert info.waiting is not None
    assert (info.waiting.reason, info.waiting.detail) == ("result_store", "the bucket does not answer")
    objects.away = ""
    assert len(await t.result(20)) == SIZE
    assert STARTS == [SIZE]
    assert objects.puts > 1
    assert "waiting" not in (await client.get(t.id)).raw


async def test_it_may_be_cancelled_meanwhile(client: Client, node: MemoryNode, objects: HeldObjects) -> None:
    objects.open.clear()
    t = await client.submit("blob")
    await objects.asked.wait()
    await t.cancel()
    assert (await client.get(t.id, wait_s=10)).state is State.CANCELLED
    objects.open.set()
    assert len(await (await client.submit("blob")).result(10)) == SIZE  # its place is free again


async def test_a_drain_that_cannot_store_hands_back(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    objects.away = "away"
    t = await client.submit("blob")
    await objects.asked.wait()
    await node.drain(0.2)
    view = await seen(node, t.id)
    assert (view.state, view.attempt, view.failures) == (State.READY, 1, 0)


async def test_a_drain_waits_for_what_can_be_stored(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    objects.open.clear()
    t = await client.submit("blob")
    await objects.asked.wait()
    draining = asyncio.create_task(node.drain(10))
    await until(lambda: node.world.capacity.closed)
    objects.open.set()
    await draining
    assert (await seen(node, t.id)).state is State.SUCCEEDED


async def test_few_are_stored_at_once_and_the_places_of_their_bodies_are_not_free(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    objects.open.clear()
    handles = await client.submit_many([("blob", {})] * 20)
    await until(lambda: len(STARTS) >= 8)
    await until(lambda: objects.most_at_once == 4)
    assert node.world.capacity.room(Kind.ASYNC) == 0
    objects.open.set()
    assert [len(each) for each in await client.results(handles, 30)] == [SIZE] * 20
    assert objects.most_at_once == 4


async def test_too_much_in_hand_claims_nothing_more(objects: HeldObjects) -> None:
    async with memory_node(REGISTRY, objects=objects, concurrency=8) as node, Client(node.url) as client:
        object.__setattr__(
            node.world, "limits", replace(node.world.limits, results_in_hand_bytes=2 * SIZE - 1)
        )
        objects.open.clear()
        two = await client.submit_many([("blob", {})] * 2)
        await until(lambda: node.world.capacity.closed)
        rest = await client.submit_many([("blob", {})] * 3)
        assert STARTS == [SIZE] * 2
        objects.open.set()
        assert [len(each) for each in await client.results([*two, *rest], 20)] == [SIZE] * 5
        assert not node.world.capacity.closed


# -- on the way out ---------------------------------------------------------------------------------


async def test_a_download_goes_on_where_it_broke(client: Client, objects: HeldObjects, tmp_path: Any) -> None:
    t = await client.submit("rows", {"count": 20_000})
    await client.get(t.id, wait_s=10)
    objects.breaks_after = 1_000_000
    assert await t.result() == ["x" * 100] * 20_000
    objects.breaks_after = 1_000_000
    saved = await client.save_result(t.id, tmp_path / "rows.json")
    [body] = objects.bodies.values()
    assert await asyncio.to_thread((tmp_path / "rows.json").read_bytes) == body
    assert (saved.size, saved.content_type) == (len(body), "application/json")
    assert [entry.name for entry in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))] == [
        "rows.json"
    ]


async def test_the_client_refuses_what_is_not_what_was_stored(
    client: Client, objects: HeldObjects, tmp_path: Any
) -> None:
    t = await client.submit("blob")
    await client.get(t.id, wait_s=10)
    [key] = objects.bodies
    objects.bodies[key] = b"\xff" + objects.bodies[key][1:]
    with pytest.raises(ServerFault, match="another checksum"):
        await t.result(5)
    with pytest.raises(ServerFault, match="another checksum"):
        await client.save_result(t.id, tmp_path / "blob")
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


@pytest.mark.parametrize(
    ("given", "status", "first", "last"),
    [
        ({"Range": "bytes=0-9"}, 206, 0, 9),
        ({"Range": "bytes=299990-"}, 206, 299_990, SIZE - 1),
        ({"Range": "bytes=-5"}, 206, SIZE - 5, SIZE - 1),
        ({"Range": "bytes=10-999999999"}, 206, 10, SIZE - 1),
        ({"Range": "bytes=9-3"}, 200, 0, SIZE - 1),
        ({"Range": "bytes=0-1,4-5"}, 200, 0, SIZE - 1),
        ({"Range": "lines=0-1"}, 200, 0, SIZE - 1),
        ({"Range": "bytes=0-9", "If-Range": '"another"'}, 200, 0, SIZE - 1),
        ({}, 200, 0, SIZE - 1),
    ],
)
async def test_ranges(
    client: Client, node: MemoryNode, given: dict[str, str], status: int, first: int, last: int
) -> None:
    t = await client.submit("blob")
    await client.get(t.id, wait_s=10)
    async with node.client() as http, http.get(f"/v1/tasks/{t.id}/result", headers=given) as answer:
        body = await answer.read()
        assert answer.status == status
        assert len(body) == last - first + 1 == answer.content_length
        if status == 206:
            assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"


async def test_etag_head_and_a_range_beyond_the_end(client: Client, node: MemoryNode) -> None:
    t = await client.submit("blob")
    await client.get(t.id, wait_s=10)
    path = f"/v1/tasks/{t.id}/result"
    async with node.client() as http:
        async with http.head(path) as head:
            assert (head.status, head.content_length, head.content_type) == (
                200,
                SIZE,
                "application/octet-stream",
            )
            etag = head.headers["ETag"]
            assert (
                etag.strip('"')
                == head.headers["X-Noria-SHA256"]
                == hashlib.sha256(b"\xfe" * SIZE).hexdigest()
            )
        async with http.get(path, headers={"If-None-Match": etag}) as same:
            assert (same.status, await same.read()) == (304, b"")
        async with http.get(path, headers={"Range": f"bytes={SIZE}-"}) as beyond:
            assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
            assert (await beyond.json(content_type=None))["type"].endswith(":range-not-satisfiable")


async def test_store_away_or_object_gone_is_told_by_status(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    t = await client.submit("blob")
    await client.get(t.id, wait_s=10)
    path = f"/v1/tasks/{t.id}/result"
    async with node.client() as http:
        objects.away = "the bucket does not answer"
        async with http.get(path) as away:
            assert away.status == 503
            assert "the bucket does not answer" in (await away.json(content_type=None))["detail"]
        objects.away = ""
        objects.bodies.clear()
        async with http.get(path) as gone:
            assert gone.status == 410


async def test_downloads_are_bounded(client: Client, node: MemoryNode) -> None:
    t = await client.submit("blob")
    await client.get(t.id, wait_s=10)
    for _ in range(node.api.options.downloads_max):
        await node.api.downloads.acquire()
    async with node.client() as http, http.get(f"/v1/tasks/{t.id}/result") as full:
        assert (full.status, full.headers["Retry-After"]) == (503, "1")
    reading = asyncio.create_task(t.result())
    node.api.downloads.release()
    assert len(await reading) == SIZE


# -- what nobody refers to --------------------------------------------------------------------------


async def test_only_old_objects_that_nobody_refers_to_are_collected(
    client: Client, node: MemoryNode, objects: HeldObjects
) -> None:
    done = await client.submit("blob")
    await done.result(10)
    objects.open.clear()
    objects.asked.clear()
    running = await client.submit("blob")
    await objects.asked.wait()
    kept = [key_of(UUID(done.id), 1), key_of(UUID(running.id), 1), "0198ab/somebody-elses"]
    orphans = [key_of(UUID(done.id), 2), key_of(UUID(running.id), 7), key_of(UUID(int=1 << 80), 1)]
    young = key_of(UUID(int=2 << 80), 1)
    for key in [*kept, *orphans, young]:
        objects.bodies.setdefault(key, b"x")
        objects.ages_s[key] = 3600.0
    objects.ages_s[young] = 3599.0
    collecting = Collecting(
        replace(node.world, keeping=Keeping(orphans_s=3600.0), jitter=lambda: 0.0), objects
    )
    await collecting.once()
    assert set(objects.bodies) == {*kept, young}
    objects.open.set()
    assert len(await running.result(10)) == SIZE


async def test_others_collect_nothing(node: MemoryNode, objects: HeldObjects) -> None:
    async with memory_node(REGISTRY, objects=objects, name="n2", beside=node) as other:
        await until(lambda: len(other.world.cluster.view.active) == 2)
        objects.bodies[key_of(UUID(int=1 << 80), 1)] = b"x"
        keeping = Keeping(orphans_s=0.0)
        await Collecting(replace(other.world, keeping=keeping, jitter=lambda: 0.0), objects).once()
        assert objects.bodies
        await Collecting(replace(node.world, keeping=keeping, jitter=lambda: 0.0), objects).once()
        assert not objects.bodies
