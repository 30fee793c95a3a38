"""Results as they go out: those of the record at once, large ones in pieces from where they lie.

Large ones have an ETag (their SHA-256) and take ranges, so that a download that broke goes on where it stopped. How
many go out at the same time is bounded, and who stops reading is cut off. What breaks after the first byte breaks the
connection: the length was told, so nobody takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from aiohttp import web

from node.http.problems import Problem
from runtime.core.objects import Reference
from runtime.core.task import Codec, TaskView
from runtime.errors import ObjectNotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from node.http.route import Call

log = logging.getLogger(__name__)

DIGEST_HEADER: Final = "X-Noria-SHA256"  # of the whole, in hexadecimal, also with a range
_STALL_S: Final = 60.0  # a reader that takes no piece for so long has gone
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


async def answer(call: Call, view: TaskView) -> web.StreamResponse:
    """The result of a task that succeeded. Raises Problem, Unavailable."""
    if view.result is None:
        raise _expired(view)
    if not view.result_codec.is_apart:
        return web.Response(body=view.result, headers=_headers(view.result_codec))
    return await _large(call, view, Reference.from_bytes(view.result))


async def _large(call: Call, view: TaskView, lies: Reference) -> web.StreamResponse:
    request, etag = call.request, f'"{lies.sha256}"'
    headers = {
        **_headers(view.result_codec.inner),
        "ETag": etag,
        "Accept-Ranges": "bytes",
        DIGEST_HEADER: lies.sha256,
    }
    if etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    start, end = 0, lies.size
    if request.headers.get("If-Range", etag) == etag:
        start, end = _range(request.headers.get("Range", ""), lies.size)
    part = (start, end) != (0, lies.size)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{lies.size}"
    response = web.StreamResponse(status=206 if part else 200, headers=headers)
    response.content_length = end - start
    if request.method == "HEAD":
        return response
    return await _send(call, view, response, lies.key, start, end)


async def _send(
    call: Call, view: TaskView, response: web.StreamResponse, key: str, start: int, end: int
) -> web.StreamResponse:
    objects, downloads = call.service.objects, call.api.downloads
    if objects is None:
        raise Unavailable(
            "large results lie apart from the record, and this node was not told where (RESULTS_URL)"
        )
    if downloads.locked():
        raise Problem("overloaded", "as many large results go out as may at once", retry_after_s=1)
    async with downloads, AsyncExitStack() as stack:
        try:
            pieces = await stack.enter_async_context(objects.read(key, start, end))
        except ObjectNotFound as missing:
            raise _expired(view) from missing
        await response.prepare(call.request)
        try:
            await _write(response, pieces)
        except (Unavailable, TimeoutError) as broken:
            log.warning("sending the result of %s broke off: %r", view.id, broken)
            if call.request.transport is not None:
                call.request.transport.abort()
    return response


async def _write(response: web.StreamResponse, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        async with asyncio.timeout(_STALL_S):
            await response.write(piece)
    await response.write_eof()


def _range(header: str, size: int) -> tuple[int, int]:
    """(start, end) of what to send: the whole where the header is none that we read. Raises Problem."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return 0, size
    if not found[1]:  # the last so many bytes
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
        if found[2] and int(found[2]) < int(found[1]):
            return 0, size
    if start >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Problem("range-not-satisfiable", f"the result has {size} bytes", headers=headers)
    return start, end


def _headers(codec: Codec) -> Mapping[str, str]:
    return {
        "Content-Type": "application/json" if codec is Codec.JSON else "application/octet-stream",
        "X-Content-Type-Options": "nosniff",  # it is somebody's data: never a page of this origin
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }


def _expired(view: TaskView) -> Problem:
    return Problem("result-expired", f"the result of task {view.id} was deleted")
