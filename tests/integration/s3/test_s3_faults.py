"""S3 that dies, freezes or lies in the midst of an upload or a download, and what is left behind."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from runtime.adapters.objects import Keys, S3Url, open_objects, parse
from runtime.adapters.objects import s3 as adapter
from runtime.adapters.objects.s3 import PART_BYTES, S3Objects
from runtime.adapters.objects.s3_client import open_client
from runtime.errors import SettingsError, Unavailable
from tests.support.s3_server import KEYS
from tests.support.tcp_proxy import tcp_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tests.support.s3_server import S3Server
    from tests.support.tcp_proxy import TcpProxy

BODY = hashlib.sha256(b"x").digest() * (3 * PART_BYTES // 32)


@pytest.fixture
def healed(s3_server: S3Server) -> Iterator[S3Server]:
    """The server, which runs again when the test is over."""
    yield s3_server
    s3_server.kill()
    s3_server.start()


@asynccontextmanager
async def opened(server: S3Server, proxy: TcpProxy | None = None) -> AsyncIterator[S3Objects]:
    where = parse(server.url(port=None if proxy is None else proxy.port))
    assert isinstance(where, S3Url)
    async with open_objects(where, KEYS, "record") as objects:
        assert isinstance(objects, S3Objects)
        yield objects


async def whole(objects: S3Objects, key: str) -> bytes:
    async with objects.read(key) as pieces:
        return b"".join([piece async for piece in pieces])


async def uploads(objects: S3Objects) -> list[Any]:
    """Uploads in parts that have not ended."""
    answer = await objects._client.list_multipart_uploads(
        Bucket=objects._where.bucket, Prefix=objects._prefix
    )
    return list(answer.get("Uploads", ()))


class Halfway:
    """Uploads in parts stop where the server knows of them and has no part yet, until `go` is set."""

    def __init__(self, objects: S3Objects) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self._rest = objects._put_parts
        objects._put_parts = self._put_parts  # type: ignore[method-assign]

    async def _put_parts(self, upload: Mapping[str, str], body: memoryview) -> list[dict[str, Any]]:
        self.reached.set()
        await self.go.wait()
        return await self._rest(upload, body)


async def test_killed_in_the_midst_of_an_upload(healed: S3Server) -> None:
    async with opened(healed) as objects:
        halfway = Halfway(objects)
        putting = asyncio.create_task(objects.put("0198ab/a.1", BODY))
        await halfway.reached.wait()
        assert len(await uploads(objects)) == 1
        await asyncio.to_thread(healed.kill)
        halfway.go.set()
        with pytest.raises(Unavailable, match=r"the bucket results at http://\S+ does not answer"):
            await putting
        healed.start()
        await objects.put("0198ab/a.1", BODY)
        assert await whole(objects, "0198ab/a.1") == BODY
        assert await objects.tidy(3600) == 0
        await objects.tidy(0)
        assert await uploads(objects) == []
        assert await whole(objects, "0198ab/a.1") == BODY


async def test_a_cancelled_upload_leaves_nothing(s3_server: S3Server) -> None:
    async with opened(s3_server) as objects:
        halfway = Halfway(objects)
        putting = asyncio.create_task(objects.put("0198ab/a.1", BODY))
        await halfway.reached.wait()
        assert len(await uploads(objects)) == 1
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await uploads(objects) == []
        assert await objects.list("", 10) == []


async def test_broken_in_the_midst_of_a_download(s3_server: S3Server) -> None:
    async with tcp_proxy(s3_server.port) as proxy, opened(s3_server, proxy) as objects:
        await objects.put("0198ab/a.1", BODY)
        with pytest.raises(Unavailable):
            async with objects.read("0198ab/a.1") as pieces:
                async for _ in pieces:
                    proxy.break_all()
        assert await whole(objects, "0198ab/a.1") == BODY


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
async def test_silence_ends(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("runtime.adapters.objects.s3_client._READ_S", 0.5)
    monkeypatch.setattr(adapter, "_ANSWER_S", 1.0)
    monkeypatch.setattr(adapter, "_ABORT_S", 0.5)
    monkeypatch.setattr(adapter, "_SLOWEST_BYTES_PER_S", 1e9)
    async with tcp_proxy(s3_server.port) as proxy, opened(s3_server, proxy) as objects:
        halfway = Halfway(objects)
        putting = asyncio.create_task(objects.put("0198ab/a.1", b"x" * size))
        if size > PART_BYTES:
            await halfway.reached.wait()
            halfway.go.set()
        proxy.lose_requests = True
        with pytest.raises(Unavailable, match="TimeoutError"):
            await putting
        with pytest.raises(Unavailable, match="TimeoutError"):
            await objects.list("", 10)
        proxy.break_all()


async def test_away_at_the_start_is_no_error(healed: S3Server) -> None:
    await asyncio.to_thread(healed.kill)
    async with open_objects(parse(healed.url()), KEYS, "record") as objects:
        with pytest.raises(Unavailable):
            await objects.put("0198ab/a.1", b"x")
        healed.start()
        await objects.put("0198ab/a.1", b"x")


@pytest.mark.parametrize(
    ("keys", "bucket", "said"),
    [
        (Keys(KEYS.access_key_id, "wrong"), "results", "SignatureDoesNotMatch"),
        (Keys("nobody", "sesame"), "results", "InvalidAccessKeyId"),
        (KEYS, "no-such-bucket", "NoSuchBucket"),
    ],
)
async def test_refused_at_the_start(s3_server: S3Server, keys: Keys, bucket: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        async with open_objects(parse(s3_server.url(bucket=bucket)), keys, "record"):
            pass
    assert keys.secret_access_key not in str(refused.value)


async def test_no_keys_at_all(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY: not set"):
        async with open_objects(parse(s3_server.url()), None, "record"):
            pass


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
async def test_the_server_checks_what_arrives(
    s3_server: S3Server, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checksum that is not the body's it stores nothing."""
    wrong = adapter._checksum(b"something else")
    monkeypatch.setattr(adapter, "_checksum", lambda body: wrong)
    async with open_objects(parse(s3_server.url()), KEYS, "record") as objects:
        with pytest.raises(Unavailable, match="BadDigest|Checksum|InvalidRequest"):
            await objects.put("0198ab/a.1", b"x" * size)
        assert await objects.list("", 10) == []


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
async def test_encrypted_by_the_server(s3_server: S3Server, size: int) -> None:
    where = parse(s3_server.url() + "&sse=AES256")
    assert isinstance(where, S3Url)
    async with open_client(where, KEYS) as client:
        objects = S3Objects(client, where, "record")
        await objects.put("0198ab/a.1", b"x" * size)
        head = await client.head_object(Bucket=where.bucket, Key=f"{where.prefix}record/0198ab/a.1")
        assert head["ServerSideEncryption"] == "AES256"
        assert await whole(objects, "0198ab/a.1") == b"x" * size
        with pytest.raises(ClientError):
            await client.head_object(Bucket=where.bucket, Key=f"{where.prefix}record/none")
