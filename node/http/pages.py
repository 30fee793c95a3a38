"""The console: one page and its files, under a policy that lets it talk to this node only."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Final

from aiohttp import web

from node.http.auth import Scope
from node.http.route import Answer, Call, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "draw.js": "text/javascript; charset=utf-8",
    "node.js": "text/javascript; charset=utf-8",
    "parts.js": "text/javascript; charset=utf-8",
    "task.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class File:
    """A file of the package, read once."""

    def __init__(self, name: str) -> None:
        self.body = resources.files("node.console").joinpath(name).read_bytes()
        self.etag = f'"{sha256(self.body).hexdigest()[:16]}"'
        self.headers: Mapping[str, str] = {
            "Content-Type": _TYPES[name],
            "Cache-Control": "no-cache",
            "ETag": self.etag,
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }


FILES: Final = web.AppKey("console_files", dict[str, File])


@cache
def read_files() -> dict[str, File]:
    return {name: File(name) for name in _TYPES}


async def get_page(call: Call) -> web.Response:
    return _file(call, "index.html")


async def get_page_file(call: Call) -> web.Response:
    return _file(call, call.request.match_info["file"])


def _file(call: Call, name: str) -> web.Response:
    file = call.request.app[FILES].get(name)
    if file is None:
        raise web.HTTPNotFound
    if call.request.headers.get("If-None-Match") == file.etag:
        return web.Response(status=304, headers={"ETag": file.etag})
    return web.Response(body=file.body, headers=file.headers)


ROUTES: Final = (
    Route(
        method="GET",
        path="/",
        scope=Scope.PUBLIC,
        tag="console",
        handle=get_page,
        summary="The console.",
        answers={200: Answer("A page.", content_type="text/html")},
    ),
    Route(
        method="GET",
        path="/console/{file}",
        scope=Scope.PUBLIC,
        tag="console",
        handle=get_page_file,
        summary="Files of the console.",
        answers={200: Answer("A file.", content_type="*/*")},
        problems=("not-found",),
    ),
)
