"""20 MB through a real node, PostgreSQL and a folder or a real S3 server: by HTTP, by the client, by the command."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession

from node.client import Client
from tests.integration.results.results_handlers import content
from tests.support.processes import noria

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.results.conftest import Stand

SIZE = 20_000_000


async def test_by_http(serving: Stand) -> None:
    body = content(SIZE, 1)
    async with ClientSession(serving.url) as http:
        asked = {"handler": "blob", "payload": {"size": SIZE}}
        async with http.post("/v1/tasks?wait=40", json=asked) as submitted:
            task = await submitted.json()
        assert task["state"] == "succeeded", task
        assert task["result_ref"]["bytes"] == SIZE
        assert task["result_ref"]["sha256"] == hashlib.sha256(body).hexdigest()
        path = f"/v1/tasks/{task['id']}/result"
        async with http.get(path) as whole:
            assert (whole.status, whole.content_length) == (200, SIZE)
            assert await whole.read() == body
            etag = whole.headers["ETag"]
        async with http.get(path, headers={"Range": "bytes=8388600-8388615", "If-Range": etag}) as part:
            assert (part.status, await part.read()) == (206, body[8388600:8388616])


async def test_by_the_client(serving: Stand, tmp_path: Path) -> None:
    async with Client(serving.url) as client:
        t = await client.submit("blob", {"size": SIZE, "seed": 2})
        assert await t.result(40) == content(SIZE, 2)
        saved = await client.save_result(t.id, tmp_path / "blob")
        assert saved.sha256 == hashlib.sha256(content(SIZE, 2)).hexdigest()
        assert await asyncio.to_thread((tmp_path / "blob").read_bytes) == content(SIZE, 2)
        assert await client.call("numbers", {"count": 200_000}, timeout_s=40) == list(range(200_000))


async def test_by_the_example(serving: Stand, tmp_path: Path) -> None:
    example = await asyncio.to_thread(importlib.import_module, "examples.08_large_results")
    said = await asyncio.to_thread(example.fetch, serving.url, tmp_path / "export.csv")
    size = (await asyncio.to_thread((tmp_path / "export.csv").stat)).st_size
    assert said == f"20000 sales, {size} bytes in export.csv"
    assert size > 3_000_000


@pytest.mark.allow_blocking("the test itself")
async def test_by_the_command(serving: Stand, tmp_path: Path) -> None:
    async with Client(serving.url) as client:
        t = await client.submit("numbers", {"count": 100_000})
        await client.get(t.id, wait_s=40)
    with noria("result", t.id, "-o", str(tmp_path / "n.json"), env={"NORIA_URL": serving.url}) as command:
        assert command.wait_exit(40) == 0, command.output
    assert json.loads((tmp_path / "n.json").read_text()) == list(range(100_000))
    with noria("result", t.id, env={"NORIA_URL": serving.url}) as command:
        assert command.wait_exit(40) == 0
        assert json.loads(command.output) == list(range(100_000))
