"""Objects in a bucket, through aiobotocore.

Every body goes with its SHA-256, which the server checks before it says yes. What is larger than a part goes in
parts, a few at a time; parts of an upload that did not end are removed at once, or by `tidy` after a crash.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from contextlib import asynccontextmanager, contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from runtime.errors import ObjectNotFound, SettingsError, Unavailable
from runtime.ports import ObjectEntry

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from datetime import datetime

    from runtime.adapters.objects.url import S3Url

log = logging.getLogger(__name__)

PART_BYTES: Final = 8 << 20
_PARTS_AT_ONCE: Final = 3
_PIECE_BYTES: Final = 1 << 18
_CHECK_S: Final = 5.0
_ANSWER_S: Final = 20.0
_SLOWEST_BYTES_PER_S: Final = 200_000  # slower than this, a body is given up and sent again
_ABORT_S: Final = 5.0
_LISTED_MAX: Final = 1_000  # what one request lists or deletes
_LATER: Final = frozenset({408, 425, 429})  # of the 4xx: the same request may succeed later


class S3Objects:
    """Implements runtime.ports.Objects. `client` is aiobotocore's; it belongs to who opened it."""

    def __init__(self, client: Any, where: S3Url, name: str) -> None:
        self._client = client
        self._where = where
        self._prefix = f"{where.prefix}{name}/"
        self._encryption: dict[str, str] = {}
        if where.sse is not None:
            self._encryption["ServerSideEncryption"] = where.sse
        if where.kms_key is not None:
            self._encryption["SSEKMSKeyId"] = where.kms_key

    async def check(self) -> None:
        """Raises SettingsError where the server refuses us, Unavailable where it does not answer."""
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._client.list_objects_v2(Bucket=self._where.bucket, Prefix=self._prefix, MaxKeys=1)
        except ClientError as refused:
            status = _status(refused)
            if 300 <= status < 500 and status not in _LATER:
                raise SettingsError(f"RESULTS_URL: {self._said(refused)}") from refused
            raise Unavailable(self._said(refused)) from refused
        except (NoCredentialsError, PartialCredentialsError) as missing:
            raise SettingsError(
                "S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY: not set, and nothing else says who this node is to "
                f"{self._place}"
            ) from missing
        except _AWAY as away:
            raise Unavailable(self._silent(away)) from away

    # -- one object ---------------------------------------------------------------------------------

    async def put(self, key: str, body: bytes) -> None:
        target = {"Bucket": self._where.bucket, "Key": self._prefix + key}
        with self._translated():
            if len(body) > PART_BYTES:
                await self._put_in_parts(target, body)
                return
            checksum = await asyncio.to_thread(_checksum, body)
            async with _deadline(len(body)):
                await self._client.put_object(
                    **target, Body=body, ContentLength=len(body), ChecksumSHA256=checksum, **self._encryption
                )

    async def _put_in_parts(self, target: Mapping[str, str], body: bytes) -> None:
        begun = await self._client.create_multipart_upload(
            **target, ChecksumAlgorithm="SHA256", **self._encryption
        )
        upload = {**target, "UploadId": begun["UploadId"]}
        try:
            parts = await self._put_parts(upload, memoryview(body))
            await self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            await self._abort(upload)
            raise

    async def _put_parts(self, upload: Mapping[str, str], body: memoryview) -> builtins.list[dict[str, Any]]:
        places = iter(enumerate(range(0, len(body), PART_BYTES), start=1))
        done: list[dict[str, Any]] = []

        async def work() -> None:
            for number, start in places:
                part = bytes(body[start : start + PART_BYTES])
                checksum = await asyncio.to_thread(_checksum, part)
                async with _deadline(len(part)):
                    answer = await self._client.upload_part(
                        **upload,
                        PartNumber=number,
                        Body=part,
                        ContentLength=len(part),
                        ChecksumSHA256=checksum,
                    )
                done.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})

        await _all([work() for _ in range(_PARTS_AT_ONCE)])
        return sorted(done, key=lambda part: part["PartNumber"])

    async def _abort(self, upload: Mapping[str, str]) -> None:
        """At best: what it leaves behind, `tidy` finds."""
        with suppress(ClientError, *_AWAY):
            async with asyncio.timeout(_ABORT_S):
                await self._client.abort_multipart_upload(**upload)

    @asynccontextmanager
    async def read(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        wanted = {} if not start and end is None else {"Range": _range(start, end)}
        with self._translated(key):
            answer = await self._client.get_object(
                Bucket=self._where.bucket, Key=self._prefix + key, **wanted
            )
        async with answer["Body"] as body:
            yield self._pieces(body)

    async def _pieces(self, body: Any) -> AsyncIterator[bytes]:
        with self._translated():
            while piece := await body.read(_PIECE_BYTES):
                yield piece

    # -- many ---------------------------------------------------------------------------------------

    async def delete(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), _LISTED_MAX):
            named = [{"Key": self._prefix + key} for key in keys[first : first + _LISTED_MAX]]
            with self._translated():
                answer = await self._client.delete_objects(
                    Bucket=self._where.bucket, Delete={"Objects": named, "Quiet": True}
                )
            if refused := answer.get("Errors"):
                raise Unavailable(
                    f"{self._place} did not delete {len(refused)} objects: {refused[0].get('Code')}"
                )

    async def list(self, after: str, limit: int) -> builtins.list[ObjectEntry]:
        found: list[ObjectEntry] = []
        while len(found) < limit:
            with self._translated():
                answer = await self._client.list_objects_v2(
                    Bucket=self._where.bucket,
                    Prefix=self._prefix,
                    StartAfter=self._prefix + after,
                    MaxKeys=min(limit - len(found), _LISTED_MAX),
                )
            now = _now_of(answer)
            for entry in answer.get("Contents", ()):
                after = entry["Key"].removeprefix(self._prefix)
                found.append(ObjectEntry(after, entry["Size"], _age_s(now, entry["LastModified"])))
            if not answer.get("IsTruncated"):
                break
        return found

    async def tidy(self, older_than_s: float) -> int:
        with self._translated():
            answer = await self._client.list_multipart_uploads(
                Bucket=self._where.bucket, Prefix=self._prefix, MaxUploads=_LISTED_MAX
            )
        now = _now_of(answer)
        old = [one for one in answer.get("Uploads", ()) if _age_s(now, one["Initiated"]) >= older_than_s]
        for upload in old:
            with self._translated():
                await self._client.abort_multipart_upload(
                    Bucket=self._where.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
        return len(old)

    # -- errors -------------------------------------------------------------------------------------

    @contextmanager
    def _translated(self, key: str | None = None) -> Iterator[None]:
        """Whatever the server says is Unavailable, and repeated: keys and policies are mended while nodes run."""
        try:
            yield
        except ClientError as refused:
            if key is not None and refused.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
                raise ObjectNotFound(key) from refused
            raise Unavailable(self._said(refused)) from refused
        except _AWAY as away:
            raise Unavailable(self._silent(away)) from away

    @property
    def _place(self) -> str:
        return f"the bucket {self._where.bucket} at {self._where.endpoint or 'Amazon'}"

    def _said(self, refused: ClientError) -> str:
        error = refused.response.get("Error", {})
        return f"{self._place} says {error.get('Code', _status(refused))}: {error.get('Message', '')}".rstrip(
            ": "
        )

    def _silent(self, away: BaseException) -> str:
        return f"{self._place} does not answer: {type(away).__name__}"


_AWAY: Final = (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)


async def _all(works: Sequence[Any]) -> None:
    """All of them; the first error ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _deadline(size: int) -> asyncio.Timeout:
    """The library ends a wait for an answer, but not one for leave to send, nor for a server that takes nothing."""
    return asyncio.timeout(_ANSWER_S + size / _SLOWEST_BYTES_PER_S)


def _checksum(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def _range(start: int, end: int | None) -> str:
    return f"bytes={start}-{'' if end is None else end - 1}"


def _status(refused: ClientError) -> int:
    return int(refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _now_of(answer: Mapping[str, Any]) -> datetime:
    """The server's clock: it dates its objects by that one too."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _age_s(now: datetime, then: datetime) -> float:
    return max(0.0, (now - then).total_seconds())
