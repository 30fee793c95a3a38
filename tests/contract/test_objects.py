"""The contract of Objects, in memory, in a folder and on a real S3 server."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from runtime.adapters.memory.objects import MemoryObjects
from runtime.adapters.objects import FolderUrl, open_objects, parse
from runtime.core.objects import key_of
from runtime.errors import ObjectNotFound
from tests.support.s3_server import KEYS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runtime.adapters.objects import S3Url
    from runtime.ports import Objects
    from tests.support.s3_server import S3Server

PART = 8 << 20  # from here on an upload to S3 goes in parts


@pytest.fixture
def folder(tmp_path: Path) -> FolderUrl:
    return FolderUrl(tmp_path / "results")


@pytest.fixture
def bucket(s3_server: S3Server) -> FolderUrl | S3Url:
    return parse(s3_server.url())


@pytest.fixture(params=["memory", "folder", "bucket"])
async def objects(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    if request.param == "memory":
        yield MemoryObjects(lambda: datetime.now(UTC))
        return
    async with open_objects(request.getfixturevalue(request.param), KEYS, "record") as opened:
        yield opened


async def read(objects: Objects, key: str, start: int = 0, end: int | None = None) -> bytes:
    async with objects.read(key, start, end) as pieces:
        return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize("size", [0, 1, 300_000, PART, PART + 1, 3 * PART + 17])
async def test_what_was_put_is_read(objects: Objects, size: int) -> None:
    body = random.Random(size).randbytes(size)
    await objects.put("0198ab/whole.1", body)
    assert await read(objects, "0198ab/whole.1") == body


async def test_pieces_are_small(objects: Objects) -> None:
    await objects.put("0198ab/a.1", bytes(5 << 20))
    async with objects.read("0198ab/a.1") as pieces:
        sizes = [len(piece) async for piece in pieces]
    assert sum(sizes) == 5 << 20
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize(("start", "end"), [(0, 1), (3, 7), (0, 10), (9, 10), (4, None), (0, None)])
async def test_a_range(objects: Objects, start: int, end: int | None) -> None:
    await objects.put("0198ab/a.1", b"0123456789")
    assert await read(objects, "0198ab/a.1", start, end) == b"0123456789"[start:end]


async def test_a_range_across_parts(objects: Objects) -> None:
    body = random.Random(1).randbytes(2 * PART + 5)
    await objects.put("0198ab/a.1", body)
    assert await read(objects, "0198ab/a.1", PART - 3, PART + 4) == body[PART - 3 : PART + 4]


async def test_the_same_key_again_replaces(objects: Objects) -> None:
    await objects.put("0198ab/a.1", b"first")
    await objects.put("0198ab/a.1", b"second one")
    assert await read(objects, "0198ab/a.1") == b"second one"
    assert len(await objects.list("", 10)) == 1


async def test_nothing_lies_there(objects: Objects) -> None:
    with pytest.raises(ObjectNotFound):
        await read(objects, "0198ab/none.1")


async def test_delete(objects: Objects) -> None:
    for number in range(3):
        await objects.put(f"0198ab/a.{number}", b"x")
    await objects.delete(["0198ab/a.0", "0198ab/a.2", "0198ab/never.1", "0198ff/never.1"])
    assert [entry.key for entry in await objects.list("", 10)] == ["0198ab/a.1"]
    with pytest.raises(ObjectNotFound):
        await read(objects, "0198ab/a.0")
    await objects.delete([])


async def test_list_is_in_order_of_keys_and_goes_on(objects: Objects) -> None:
    ids = [UUID(int=(n << 100) + uuid4().int % (1 << 60)) for n in (5, 1, 7, 3)]
    keys = sorted(key_of(task_id, attempt) for task_id in ids for attempt in (1, 2))
    for key in random.Random(2).sample(keys, len(keys)):
        await objects.put(key, key.encode())
    first = await objects.list("", 3)
    rest = await objects.list(first[-1].key, 100)
    assert [entry.key for entry in first + rest] == keys
    assert [entry.size for entry in first + rest] == [len(key) for key in keys]
    assert all(0 <= entry.age_s < 60 for entry in first + rest)
    assert await objects.list(keys[-1], 10) == []


@pytest.mark.parametrize("place", ["folder", "bucket"])
async def test_others_in_the_same_place_are_not_seen(request: pytest.FixtureRequest, place: str) -> None:
    where = request.getfixturevalue(place)
    async with open_objects(where, KEYS, "record") as objects, open_objects(where, KEYS, "another") as other:
        await objects.put("0198ab/a.1", b"ours")
        assert await other.list("", 10) == []
        await other.put("0198ab/a.1", b"theirs")
        await other.delete(["0198ab/a.1"])
        assert await read(objects, "0198ab/a.1") == b"ours"


async def test_a_put_that_was_cancelled_leaves_nothing_to_see(objects: Objects) -> None:
    putting = asyncio.create_task(objects.put("0198ab/a.1", os.urandom(3 * PART)))
    await asyncio.sleep(0.01)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    if putting.cancelled():  # a file may have been quicker
        listed = await objects.list("", 10)
        assert [entry.size for entry in listed] in ([], [3 * PART])
    await objects.tidy(0)
    assert await objects.tidy(0) == 0


async def test_many_at_once(objects: Objects) -> None:
    bodies = {f"0198ab/a.{n}": bytes([n]) * 400_000 for n in range(20)}
    await asyncio.gather(*(objects.put(key, body) for key, body in bodies.items()))
    assert (
        dict(zip(bodies, await asyncio.gather(*(read(objects, key) for key in bodies)), strict=True))
        == bodies
    )
