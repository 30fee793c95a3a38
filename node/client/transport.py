"""One HTTP request to a node, repeated while that is safe and useful; the only module here that knows aiohttp.

Everything above deals in bytes and in the exceptions of `node.client.errors`. Bodies are encoded once, before the
first try, so every try sends the same request.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from node.client.errors import ClientError, Overloaded, ServerFault, Unreachable, from_problem
from node.client.retry import RetryPolicy, parse_retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from ssl import SSLContext

CONNECT_TIMEOUT_S = 5.0
LARGE_BODY_BYTES = 512 * 1024  # from here on written in pieces, so that the loop goes on meanwhile
NOTHING_STORED = frozenset({"overloaded", "not-ready"})  # 503s after which a task is certainly not stored
_LONG_NUMBER = re.compile(rb"\d{19}")
_JSON_HEADERS = {"Content-Type": "application/json"}


class Repeat(Enum):
    """What may be done with a request that was not answered, or refused for load."""

    ALWAYS = "always"  # a second arrival changes nothing
    IF_UNDONE = "if undone"  # only where the first one certainly changed nothing
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer."""

    status: int
    body: bytes
    content_type: str

    def json(self) -> Any:
        """Raises ServerFault where the body is no JSON: something else than a node answers there."""
        try:
            return read_json(self.body)
        except ValueError as exc:
            raise ServerFault(
                f"expected JSON, got {self.content_type or 'no content type'}: {self.body[:80]!r}",
                status=self.status,
            ) from exc


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the body of an answer; empty where the node does not tell."""

    status: int
    content_type: str
    etag: str
    sha256: str

    @classmethod
    def of(cls, response: aiohttp.ClientResponse) -> Head:
        headers = response.headers
        return cls(
            response.status, response.content_type, headers.get("ETag", ""), headers.get("X-Noria-SHA256", "")
        )


def read_json(body: bytes) -> Any:
    """Exactly: orjson would read integers above 64 bits as floats. Raises ValueError."""
    return json.loads(body) if _LONG_NUMBER.search(body) else orjson.loads(body)


class Transport:
    """A pool of connections to one base URL, in the event loop that uses it."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        policy: RetryPolicy,
        request_timeout_s: float,
        max_connections: int,
        ssl: SSLContext | None = None,
    ) -> None:
        self.url = url
        self.request_timeout_s = request_timeout_s
        self.policy = policy
        self._headers = {"Accept": "application/json", "User-Agent": "noria-client"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._max_connections = max_connections
        self._ssl: SSLContext | bool = True if ssl is None else ssl
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._abandoned: list[aiohttp.ClientSession] = []
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_s, sock_connect=CONNECT_TIMEOUT_S)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        wait_s: float = 0.0,
        within_s: float | None = None,
        patience_s: float = 0.0,
        repeat: Repeat = Repeat.ALWAYS,
    ) -> Answer:
        """The 2xx answer. `wait_s` is how long the node may hold the request on purpose.

        `within_s` bounds all tries together (default: the retry policy, and the request timeout for each);
        refusals for load are waited out for `patience_s` at least.
        Raises ClientError as errors.from_problem says; Unreachable or Overloaded once the retries are used up.
        """
        started_s = time.monotonic()
        tries = 0
        while True:
            tries += 1
            elapsed_s = time.monotonic() - started_s
            try:
                return await self._once(
                    method, path, params, body, self._timeout_for(wait_s, within_s, elapsed_s)
                )
            except (Unreachable, Overloaded) as exc:
                if not _worth_repeating(exc, repeat):
                    raise
                advice_s = exc.retry_after_s if isinstance(exc, Overloaded) else None
                elapsed_s = time.monotonic() - started_s
                pause_s = self.policy.pause_s(tries, elapsed_s, random.random(), advice_s, patience_s)  # noqa: S311 - jitter
                if pause_s is None or (within_s is not None and elapsed_s + pause_s >= within_s):
                    raise
            await asyncio.sleep(pause_s)

    def _timeout_for(self, wait_s: float, within_s: float | None, elapsed_s: float) -> aiohttp.ClientTimeout:
        if not wait_s and within_s is None:
            return self._timeout
        total_s = self.request_timeout_s + wait_s
        if within_s is not None:
            total_s = min(total_s, max(within_s - elapsed_s, 0.001))
        return aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S)

    async def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
    ) -> Answer:
        try:
            async with self._open_session().request(
                method,
                self.url + path,
                params=params,
                data=body if body is None or len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
                headers=_JSON_HEADERS if body is not None else None,
                timeout=timeout,
                allow_redirects=False,  # a redirected POST would become a GET
                ssl=self._ssl,
            ) as response:
                data = await response.read()
                if response.status < 300:
                    return Answer(response.status, data, response.content_type)
                raise self._refusal(response, data)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._translate(exc) from exc

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, str], headers: Mapping[str, str], silence_s: float
    ) -> AsyncGenerator[aiohttp.StreamReader]:
        """The lines of an endless answer; Unreachable when nothing came for `silence_s`. Not repeated here."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        try:
            async with self._open_session().get(
                self.url + path,
                params=params,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                ssl=self._ssl,
            ) as response:
                if response.status != 200:
                    raise self._refusal(response, await response.read())
                yield response.content
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._translate(exc) from exc

    async def pieces(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[tuple[Head, bytes]]:
        """A 2xx answer as it arrives, at least one piece (perhaps an empty one). Not repeated here.

        However long it takes, as long as something arrives within each `request_timeout_s`.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self.request_timeout_s
        )
        try:
            async with self._open_session().get(
                self.url + path, headers=headers, timeout=timeout, allow_redirects=False, ssl=self._ssl
            ) as response:
                if response.status >= 300:
                    raise self._refusal(response, await response.read())
                head = Head.of(response)
                yield head, b""
                async for piece in response.content.iter_any():
                    yield head, piece
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._translate(exc) from exc

    @staticmethod
    def worth_repeating(error: Unreachable | Overloaded) -> bool:
        """Of a request that changes nothing."""
        return _worth_repeating(error, Repeat.ALWAYS)

    def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is not loop:
            # after a fork, or in the next asyncio.run: what belonged to the other loop cannot be closed from here
            self._abandoned.append(self._session)
            self._session = None
        if self._session is None:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _refusal(self, response: aiohttp.ClientResponse, data: bytes) -> ClientError:
        status = response.status
        if status in {502, 504}:
            return Unreachable(f"the proxy at {self.url} reaches no node (HTTP {status})", url=self.url)
        if status == 408:
            return Unreachable(f"{self.url} gave up reading the request (HTTP 408)", url=self.url)
        if status < 400:
            where = response.headers.get("Location", "nowhere")
            return ServerFault(f"{self.url} redirects to {where}: use that as the URL", status=status)
        problem = None
        if "json" in response.content_type:
            with suppress(orjson.JSONDecodeError):
                problem = orjson.loads(data)
        retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
        return from_problem(
            status, problem if isinstance(problem, dict) else None, retry_after_s=retry_after_s
        )

    def _translate(self, exc: BaseException) -> ClientError:
        if isinstance(exc, aiohttp.ClientResponseError):
            return ServerFault(f"what answers at {self.url} does not speak HTTP: {exc.message}")
        if isinstance(exc, aiohttp.ClientConnectorError):
            reason = _words(exc.os_error)
        elif isinstance(exc, TimeoutError):
            reason = "no answer in time"
        else:
            reason = str(exc) or type(exc).__name__
        error = Unreachable(f"no node answers at {self.url}: {reason}", url=self.url)
        error.__cause__ = exc
        return error


def _words(error: OSError) -> str:
    """'Connection refused' rather than asyncio's list of addresses that were tried."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _worth_repeating(error: Unreachable | Overloaded, repeat: Repeat) -> bool:
    if repeat is Repeat.NEVER or isinstance(error.__cause__, aiohttp.ClientSSLError):
        return False  # a certificate does not become right by asking again
    if repeat is Repeat.ALWAYS:
        return True
    if isinstance(error, Overloaded):
        return error.status == 429 or error.slug in NOTHING_STORED
    return isinstance(error.__cause__, aiohttp.ClientConnectorError)  # never sent
