"""The asynchronous client: submit tasks, wait for their typed results.

    async with Client() as client:
        t = await client.submit(task(scrape, url=url).options(priority="high"))
        page = await t.result(timeout_s=30)

Requests that may be repeated are, after broken connections and refusals for load, for `retry_for_s`; see
`node.client.retry` for which and `node.client.submitting` for why that never stores a task twice.
Depends on aiohttp and orjson alone: neither a broker's nor a database's library is imported.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import orjson

from node.client.config import resolve_api_key, resolve_url
from node.client.encode import encode, fresh_key, request_of
from node.client.errors import ClientError, ServerFault
from node.client.handle import Decoder, TaskHandle, raise_if_unsuccessful
from node.client.operations import Operations
from node.client.retry import RetryPolicy
from node.client.submitting import Batches, Request
from node.client.transport import Repeat, Transport, read_json
from node.client.waiting import GRACE_S, LONG_POLL_S, POLLS_AT_ONCE, as_ended, bounded, seconds, wait_final
from runtime.core.task import Codec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from ssl import SSLContext
    from types import TracebackType

    from actors.authoring.task import Task, TaskOptions

    Named = tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], TaskOptions]

R = TypeVar("R")


class Client(Operations):
    """Use it in one event loop, as a context manager or with `close()`."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_for_s: float = 15.0,
        request_timeout_s: float = 30.0,
        max_connections: int = 100,
        auto_keys: bool = True,
        ssl: SSLContext | None = None,
    ) -> None:
        """Left out, `url` and `api_key` come from NORIA_URL (default http://127.0.0.1:8080) and NORIA_API_KEY(_FILE).

        With `auto_keys=False` tasks without an idempotency key are stored without one; a request with such a task
        is then repeated only if the first one certainly stored nothing. Raises SettingsError.
        """
        self._transport = Transport(
            resolve_url(url),
            resolve_api_key(api_key),
            policy=RetryPolicy(total_s=retry_for_s),
            request_timeout_s=request_timeout_s,
            max_connections=max_connections,
            ssl=ssl,
        )
        self._auto_keys = auto_keys

    @property
    def url(self) -> str:
        return self._transport.url

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- submitting

    @overload
    async def submit(self, work: Task[R], /) -> TaskHandle[R]: ...
    @overload
    async def submit(
        self, work: str, payload: Mapping[str, Any] | None = None, /, **options: Unpack[TaskOptions]
    ) -> TaskHandle[Any]: ...
    async def submit(
        self,
        work: Task[Any] | str,
        payload: Mapping[str, Any] | None = None,
        /,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[Any]:
        """Store one task. When this returns, it is as durable as the record, and it will be done.

        Raises InvalidTask, KeyReused, NotUnique, TooLarge, Refused, Overloaded, Unreachable.
        """
        return await self._submit(work, payload, options)

    @overload
    async def call(self, work: Task[R], /, *, timeout_s: float | None = None) -> R: ...
    @overload
    async def call(
        self, work: str, payload: Mapping[str, Any] | None = None, /, *, timeout_s: float | None = None
    ) -> Any: ...
    async def call(
        self,
        work: Task[Any] | str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """Store one task and wait for its result, in one round trip where it ends soon.

        After WaitTimeout the task goes on (`exc.task_id`). Otherwise raises as `submit` and `TaskHandle.result` do.
        """
        return await self._call(work, payload, timeout_s)

    @overload
    async def submit_many(self, work: Iterable[Task[R]], /) -> list[TaskHandle[R]]: ...
    @overload
    async def submit_many(self, work: Iterable[Task[Any] | Named], /) -> list[TaskHandle[Any]]: ...
    async def submit_many(self, work: Iterable[Task[Any] | Named], /) -> list[TaskHandle[Any]]:
        """Store many tasks in few requests; handles in order. `work` is read as it is sent.

        Batches of at most 2,500 tasks or 16 MiB, a few at a time; a node that is full slows them down. Each batch
        is stored whole or not at all. The first error ends the call after what is under way; its `handles` says
        what is stored.
        """
        batches = self._batches(work)
        try:
            await batches.send()
        except ClientError as exc:
            exc.handles = self._handles(batches)
            raise
        return [handle for handle in self._handles(batches) if handle is not None]

    def handle(self, task_id: str, *, like: Task[R] | None = None) -> TaskHandle[R]:
        """A task by its id. `like` is a Task of the same handler, whose result type is used; else plain JSON values."""
        return TaskHandle(self, task_id, None if like is None else like.decode_result)

    # -- waiting for many

    @overload
    async def results(
        self,
        handles: Sequence[TaskHandle[R]],
        timeout_s: float | None = None,
        *,
        return_errors: Literal[False] = False,
    ) -> list[R]: ...
    @overload
    async def results(
        self,
        handles: Sequence[TaskHandle[R]],
        timeout_s: float | None = None,
        *,
        return_errors: Literal[True],
    ) -> list[R | ClientError]: ...
    async def results(
        self, handles: Sequence[TaskHandle[R]], timeout_s: float | None = None, *, return_errors: bool = False
    ) -> list[Any]:
        """The results of all, in order. One `timeout_s` for the whole; the first error is raised, or returned in place.

        A handle costs one request once its task has ended, with a bounded number of long polls at a time.
        """
        clock = asyncio.get_running_loop().time
        deadline_s = None if timeout_s is None else clock() + timeout_s

        async def one(handle: TaskHandle[R]) -> R | ClientError:
            try:
                return await handle.result(None if deadline_s is None else max(deadline_s - clock(), 0.0))
            except ClientError as exc:
                if return_errors:
                    return exc
                raise

        return await bounded(handles, one, POLLS_AT_ONCE)

    async def as_ended(
        self, handles: Sequence[TaskHandle[R]], timeout_s: float | None = None
    ) -> AsyncGenerator[TaskHandle[R]]:
        """Each handle once its task has ended, in about the order in which they end; `result()` is then at hand.

        Raises WaitTimeout when the time is over before all have ended.
        """
        open_handles = [handle for handle in handles if not handle.ended]
        for handle in handles:
            if handle.ended:
                yield handle
        async with aclosing(
            as_ended(self._transport, [handle.id for handle in open_handles], timeout_s)
        ) as stream:
            async for index, raw in stream:
                open_handles[index].seen = raw
                yield open_handles[index]

    # -- untyped, for the methods above and the synchronous twin

    async def _submit(
        self, work: Task[Any] | str, payload: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> TaskHandle[Any]:
        return await self._post(request_of(work, payload, options))

    async def _call(
        self, work: Task[Any] | str, payload: Mapping[str, Any] | None, timeout_s: float | None
    ) -> Any:
        clock = asyncio.get_running_loop().time
        deadline_s = None if timeout_s is None else clock() + timeout_s
        wait_s = LONG_POLL_S if timeout_s is None else max(min(timeout_s, LONG_POLL_S), 0.0)
        within_s = None if timeout_s is None else timeout_s + GRACE_S
        handle = await self._post(request_of(work, payload), wait_s=wait_s, within_s=within_s)
        return await handle.result(None if deadline_s is None else max(deadline_s - clock(), 0.0))

    async def _post(
        self, request: Request, *, wait_s: float = 0.0, within_s: float | None = None
    ) -> TaskHandle[Any]:
        fields, decode = request
        own_key = "idempotency_key" in fields
        tells = own_key or fields.get("unique") is not None
        if not own_key and self._auto_keys:
            fields["idempotency_key"] = fresh_key()
        answer = await self._transport.call(
            "POST",
            "/v1/tasks",
            params={"wait": seconds(wait_s)} if wait_s > 0 else None,
            body=encode(fields),
            wait_s=wait_s,
            within_s=within_s,
            repeat=Repeat.ALWAYS if "idempotency_key" in fields else Repeat.IF_UNDONE,
        )
        raw = answer.json()
        if not (isinstance(raw, dict) and "id" in raw and "state" in raw):
            raise ServerFault(f"expected a task, got {answer.body[:80]!r}", status=answer.status)
        handle = TaskHandle[Any](self, raw["id"], decode, duplicate=tells and bool(raw.get("duplicate")))
        handle.seen = raw
        return handle

    def _batches(self, work: Iterable[Task[Any] | Named]) -> Batches:
        return Batches(self._transport, (_of_item(item) for item in work), auto_keys=self._auto_keys)

    def _handles(self, batches: Batches) -> list[TaskHandle[Any] | None]:
        handles: list[TaskHandle[Any] | None] = [None] * len(batches.decoders)
        for first, answers in batches.stored.items():
            for index, answer in enumerate(answers, first):
                tells = index in batches.own_keys or index in batches.unique
                duplicate = answer["duplicate"] and tells
                handles[index] = TaskHandle(self, answer["id"], batches.decoders[index], duplicate=duplicate)
        return handles

    async def _wait_raw(self, task_id: str, timeout_s: float | None) -> Mapping[str, Any]:
        return await wait_final(self._transport, task_id, timeout_s)

    async def _value(self, raw: Mapping[str, Any], decode: Decoder[R] | None) -> R | Any:
        """The result of a final task. Raises TaskFailed, TaskCancelled, ResultExpired."""
        raise_if_unsuccessful(raw)
        if "result" in raw:
            if decode is None:
                return raw["result"]
            return decode(_as_json(raw["result"]), Codec.JSON)
        data, content_type = await self.raw_result(raw["id"])
        codec = Codec.JSON if content_type == "application/json" else Codec.BYTES
        if decode is not None:
            return decode(data, codec)
        return read_json(data) if codec is Codec.JSON else data


def _of_item(item: Task[Any] | Named) -> Request:
    if isinstance(item, tuple):
        return request_of(item[0], item[1], item[2] if len(item) == 3 else None)
    return request_of(item)


def _as_json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer above 64 bits
        return json.dumps(value).encode()
