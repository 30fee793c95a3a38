"""Who is asked: one gRPC channel per endpoint, tried in turn until one answers.

Law: whoever asks is answered within ANSWER_S or gets Unavailable. What is asked must be safe to repeat: an endpoint
that did not answer may have done it, and the next one is asked the same. A channel per endpoint and no balancing
among them, because a balancer goes on asking a frozen one, and takes no names for several hosts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
import grpc.aio
from etcd3aio import EtcdError, EtcdUnauthenticatedError
from etcd3aio._protobuf import WatchCreateRequest, WatchRequest, WatchStub
from etcd3aio.auth import AuthService
from etcd3aio.kv import KVService

from runtime.errors import SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from runtime.adapters.etcd.url import EtcdUrl

log = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_S: Final = 1.8  # a frozen etcd is away after this: callers promise 2 s
FAILURES: Final = (
    EtcdError,
    grpc.RpcError,
    TimeoutError,
    asyncio.InvalidStateError,
)  # the last: a call is over
_TRIES_MAX: Final = 3  # so that each of them has time to answer
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),  # a cluster's own store is not reached through one
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # by default etcd would be noticed two minutes after it is back
    ("grpc.keepalive_time_ms", 10_000),  # etcd throws out who asks more often than every 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.max_receive_message_length", 64 << 20),  # 10,000 views of a large cluster
)
_LOG_IN_AGAIN: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT)


class Endpoint:
    """One etcd server, as host:port."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        self.channel = (
            grpc.aio.insecure_channel(address, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
        )
        self.kv = KVService(self.channel, max_attempts=1)
        self.auth = AuthService(self.channel, max_attempts=1)
        self._watch = WatchStub(
            self.channel
        )  # its service repairs a watch in silence, and leaves tasks behind
        self._metadata: tuple[tuple[str, str], ...] = ()

    async def close(self) -> None:
        """Forgets the channel too: gRPC ends its thread with the last one, and wants a loop that runs for it."""
        await self.channel.close()
        del self.channel, self.kv, self.auth, self._watch

    def set_token(self, token: str) -> None:
        self.kv.set_token(token)
        self._metadata = (("token", token),)

    async def watch(self, key: str, on_answer: Callable[[], object]) -> None:
        """Until it breaks, `on_answer` is called once the watch stands and whenever the key has changed. Raises FAILURES."""
        call = self._watch.Watch(metadata=self._metadata)
        try:
            await call.write(WatchRequest(create_request=WatchCreateRequest(key=key.encode())))
            while (answer := await call.read()) is not grpc.aio.EOF and not answer.canceled:
                on_answer()
        finally:
            call.cancel()


class Endpoints:
    """All servers of a cluster. `preferred` answered last."""

    def __init__(self, url: EtcdUrl, credentials: grpc.ChannelCredentials | None) -> None:
        self._url = url
        self._all = [Endpoint(address, credentials) for address in url.endpoints]
        self._tries = min(len(self._all), _TRIES_MAX)
        self._logged_in = url.user is None
        self._away = False

    @property
    def preferred(self) -> Endpoint:
        return self._all[0]

    async def ask(self, work: Callable[[KVService], Awaitable[T]]) -> T:
        """What `work` comes to at the first endpoint that answers. Raises Unavailable."""
        failures: list[str] = []
        for endpoint in self._all[: self._tries]:
            try:
                async with asyncio.timeout(ANSWER_S / self._tries):
                    answer = await self._ask_as_user(endpoint, work)
            except FAILURES as error:
                failures.append(f"{endpoint.address}: {_said(error)}")
                self._put_last(endpoint)
            else:
                self._is_back()
                return answer
        raise self._unavailable("; ".join(failures) or "the connections are closed")

    async def close(self) -> None:
        endpoints, self._all = self._all, []
        await asyncio.gather(*(endpoint.close() for endpoint in endpoints))

    async def _ask_as_user(self, endpoint: Endpoint, work: Callable[[KVService], Awaitable[T]]) -> T:
        if not self._logged_in:
            await self._log_in(endpoint)
        try:
            return await work(endpoint.kv)
        except (EtcdUnauthenticatedError, grpc.RpcError) as refused:
            if self._url.user is None or not _wants_log_in(refused):
                raise
        await self._log_in(endpoint)  # tokens expire, and end with the server that gave them
        return await work(endpoint.kv)

    async def _log_in(self, endpoint: Endpoint) -> None:
        """One token is good at all endpoints. Where etcd asks nobody who he is, none is needed."""
        try:
            answer = await endpoint.auth.authenticate(self._url.user or "", self._url.password)
        except grpc.aio.AioRpcError as refused:
            if refused.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
        else:
            for each in self._all:
                each.set_token(answer.token)
        self._logged_in = True

    def _put_last(self, endpoint: Endpoint) -> None:
        if self._all[0] is endpoint:
            self._all.append(self._all.pop(0))

    def _is_back(self) -> None:
        if self._away:
            log.info("etcd is back")
        self._away = False

    def _unavailable(self, why: str) -> Unavailable:
        if not self._away:
            log.warning("etcd is away: %s", why)
        self._away = True
        return Unavailable(f"etcd: {why}")


def credentials_of(url: EtcdUrl) -> grpc.ChannelCredentials | None:
    """Reads files. Raises SettingsError."""
    if not url.secure:
        return None
    ca, cert, key = (
        _file(part, path) for part, path in (("ca", url.ca), ("cert", url.cert), ("key", url.key))
    )
    return grpc.ssl_channel_credentials(ca, key, cert)


def _file(part: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise SettingsError(f"ETCD_URL: {part}: {path} cannot be read: {error.strerror}") from error


def _wants_log_in(refused: Exception) -> bool:
    return isinstance(refused, EtcdUnauthenticatedError) or (
        isinstance(refused, grpc.aio.AioRpcError) and refused.code() in _LOG_IN_AGAIN
    )


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.__cause__ if isinstance(error, EtcdError) else error
    if isinstance(cause, grpc.aio.AioRpcError):
        return f"{cause.code().name.lower()} ({(cause.details() or '').splitlines()[0][:200]})"
    return type(error).__name__
