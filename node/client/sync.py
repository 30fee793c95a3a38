"""The same client for code without an event loop: Django and Flask views, scripts, notebooks.

Thin: a background thread runs an event loop with one `Client`, and every method here waits for the method of the
same name there. One SyncClient serves all threads of a process; it may be made at import and survives a fork
(a child starts its own thread on first use).
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, cast, overload

from node.client.client import Client
from node.client.errors import ClientError
from node.client.sync_scheduling import SyncSchedules
from node.client.sync_workflows import SyncWorkflows

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path
    from ssl import SSLContext
    from types import TracebackType

    from actors.authoring.options import Priority
    from actors.authoring.task import Task, TaskOptions
    from node.client.client import Named
    from node.client.downloading import Downloaded
    from node.client.filters import Filter
    from node.client.handle import TaskHandle
    from node.client.models import AttemptInfo, Changed, TaskEvent, TaskInfo
    from node.client.operations import TaskPage
    from node.client.submitting import Batches

R = TypeVar("R")
T = TypeVar("T")

CLOSE_TIMEOUT_S = 5.0
_END: Any = object()


class SyncTaskHandle(Generic[R]):
    """One task; see TaskHandle, whose methods these are."""

    __slots__ = ("_handle", "_owner")

    def __init__(self, owner: SyncClient, handle: TaskHandle[R]) -> None:
        self._owner = owner
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def duplicate(self) -> bool:
        return self._handle.duplicate

    @property
    def seen(self) -> Mapping[str, Any] | None:
        return self._handle.seen

    @property
    def ended(self) -> bool:
        return self._handle.ended

    def result(self, timeout_s: float | None = None) -> R:
        return self._owner._run(self._handle.result(timeout_s))  # noqa: SLF001 - a part of its client

    def status(self) -> TaskInfo:
        return self._owner._run(self._handle.status())  # noqa: SLF001 - a part of its client

    def attempts(self) -> list[AttemptInfo]:
        return self._owner._run(self._handle.attempts())  # noqa: SLF001 - a part of its client

    def cancel(self) -> TaskInfo:
        return self._owner._run(self._handle.cancel())  # noqa: SLF001 - a part of its client

    def retry(self) -> TaskInfo:
        return self._owner._run(self._handle.retry())  # noqa: SLF001 - a part of its client

    def __repr__(self) -> str:
        return f"<Sync{repr(self._handle)[1:]}"


class SyncClient(SyncSchedules, SyncWorkflows):
    """See Client, whose arguments and methods these are. Use it as a context manager, or `close()` it, or neither."""

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
        self._client = Client(
            url,
            api_key,
            retry_for_s=retry_for_s,
            request_timeout_s=request_timeout_s,
            max_connections=max_connections,
            auto_keys=auto_keys,
            ssl=ssl,
        )
        self._thread = _LoopThread()
        self._finalizer = weakref.finalize(self, _shut, self._thread, self._client)

    @property
    def url(self) -> str:
        return self._client.url

    def close(self) -> None:
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- submitting and waiting

    @overload
    def submit(self, work: Task[R], /) -> SyncTaskHandle[R]: ...
    @overload
    def submit(
        self, work: str, payload: Mapping[str, Any] | None = None, /, **options: Unpack[TaskOptions]
    ) -> SyncTaskHandle[Any]: ...
    def submit(
        self,
        work: Task[Any] | str,
        payload: Mapping[str, Any] | None = None,
        /,
        **options: Unpack[TaskOptions],
    ) -> SyncTaskHandle[Any]:
        return SyncTaskHandle(self, self._run(self._client._submit(work, payload, options)))  # noqa: SLF001 - its twin

    @overload
    def call(self, work: Task[R], /, *, timeout_s: float | None = None) -> R: ...
    @overload
    def call(
        self, work: str, payload: Mapping[str, Any] | None = None, /, *, timeout_s: float | None = None
    ) -> Any: ...
    def call(
        self,
        work: Task[Any] | str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        return self._run(self._client._call(work, payload, timeout_s))  # noqa: SLF001 - its twin

    @overload
    def submit_many(self, work: Iterable[Task[R]], /) -> list[SyncTaskHandle[R]]: ...
    @overload
    def submit_many(self, work: Iterable[Task[Any] | Named], /) -> list[SyncTaskHandle[Any]]: ...
    def submit_many(self, work: Iterable[Task[Any] | Named], /) -> list[SyncTaskHandle[Any]]:
        """As Client.submit_many; `work` is iterated in this thread, so it may be a cursor or a queryset."""
        batches = self._client._batches(work)  # noqa: SLF001 - its twin
        try:
            batches.send_from_thread(self._thread.start)
        except ClientError as exc:
            exc.handles = self._outer(batches)
            raise
        return [handle for handle in self._outer(batches) if handle is not None]

    def _outer(self, batches: Batches) -> list[SyncTaskHandle[Any] | None]:
        handles = self._client._handles(batches)  # noqa: SLF001 - its twin
        return [None if handle is None else SyncTaskHandle(self, handle) for handle in handles]

    def handle(self, task_id: str, *, like: Task[R] | None = None) -> SyncTaskHandle[R]:
        return SyncTaskHandle(self, self._client.handle(task_id, like=like))

    @overload
    def results(
        self,
        handles: Sequence[SyncTaskHandle[R]],
        timeout_s: float | None = None,
        *,
        return_errors: Literal[False] = False,
    ) -> list[R]: ...
    @overload
    def results(
        self,
        handles: Sequence[SyncTaskHandle[R]],
        timeout_s: float | None = None,
        *,
        return_errors: Literal[True],
    ) -> list[R | ClientError]: ...
    def results(
        self,
        handles: Sequence[SyncTaskHandle[R]],
        timeout_s: float | None = None,
        *,
        return_errors: bool = False,
    ) -> list[Any]:
        inner = [handle._handle for handle in handles]  # noqa: SLF001 - own part
        if return_errors:
            return self._run(self._client.results(inner, timeout_s, return_errors=True))
        return self._run(self._client.results(inner, timeout_s))

    def as_ended(
        self, handles: Sequence[SyncTaskHandle[R]], timeout_s: float | None = None
    ) -> Iterator[SyncTaskHandle[R]]:
        outer = {id(handle._handle): handle for handle in handles}  # noqa: SLF001 - own part
        inner = [handle._handle for handle in handles]  # noqa: SLF001 - own part
        for handle in self._iterate(lambda: self._client.as_ended(inner, timeout_s)):
            yield outer[id(handle)]

    # -- looking and acting

    def get(self, task_id: str, *, wait_s: float = 0.0) -> TaskInfo:
        return self._run(self._client.get(task_id, wait_s=wait_s))

    def attempts(self, task_id: str) -> list[AttemptInfo]:
        return self._run(self._client.attempts(task_id))

    def cancel(self, task_id: str) -> TaskInfo:
        return self._run(self._client.cancel(task_id))

    def retry(self, task_id: str) -> TaskInfo:
        return self._run(self._client.retry(task_id))

    def prioritize(self, task_id: str, priority: Priority) -> TaskInfo:
        return self._run(self._client.prioritize(task_id, priority))

    def prioritize_matching(
        self, priority: Priority, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]
    ) -> Changed:
        return self._run(
            self._client.prioritize_matching(priority, everything=everything, dry_run=dry_run, **which)
        )

    def raw_result(self, task_id: str) -> tuple[bytes, str]:
        return self._run(self._client.raw_result(task_id))

    def save_result(self, task_id: str, path: str | Path) -> Downloaded:
        return self._run(self._client.save_result(task_id, path))

    def page(
        self, *, limit: int = 50, cursor: str | None = None, dead: bool = False, **which: Unpack[Filter]
    ) -> TaskPage:
        return self._run(self._client.page(limit=limit, cursor=cursor, dead=dead, **which))

    def tasks(self, *, limit: int | None = None, **which: Unpack[Filter]) -> Iterator[TaskInfo]:
        return self._iterate(lambda: self._client.tasks(limit=limit, **which))

    def dead(self, *, limit: int | None = None, **which: Unpack[Filter]) -> Iterator[TaskInfo]:
        return self._iterate(lambda: self._client.dead(limit=limit, **which))

    def cancel_matching(
        self, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]
    ) -> Changed:
        return self._run(self._client.cancel_matching(everything=everything, dry_run=dry_run, **which))

    def replay(self, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]) -> Changed:
        return self._run(self._client.replay(everything=everything, dry_run=dry_run, **which))

    def purge(self, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]) -> Changed:
        return self._run(self._client.purge(everything=everything, dry_run=dry_run, **which))

    def handlers(self) -> list[Mapping[str, Any]]:
        return self._run(self._client.handlers())

    def handler(self, name: str) -> Mapping[str, Any]:
        return self._run(self._client.handler(name))

    def pause(self, handler: str) -> Mapping[str, Any]:
        return self._run(self._client.pause(handler))

    def resume(self, handler: str) -> Mapping[str, Any]:
        return self._run(self._client.resume(handler))

    def cluster(self) -> Mapping[str, Any]:
        return self._run(self._client.cluster())

    def ring(self) -> Mapping[str, Any]:
        return self._run(self._client.ring())

    def locate(self, key: str, *, handler: str | None = None) -> Mapping[str, Any]:
        return self._run(self._client.locate(key, handler=handler))

    def views(self, *, limit: int = 20) -> list[Mapping[str, Any]]:
        return self._run(self._client.views(limit=limit))

    def drain(self, node: str) -> Mapping[str, Any]:
        return self._run(self._client.drain(node))

    def stats(self) -> Mapping[str, Any]:
        return self._run(self._client.stats())

    def limits(self) -> list[Mapping[str, Any]]:
        return self._run(self._client.limits())

    def set_limit(
        self,
        handler: str,
        *,
        rate_limit: str | None = None,
        burst: int | None = None,
        max_running: int | None = None,
    ) -> Mapping[str, Any]:
        limit = self._client.set_limit(handler, rate_limit=rate_limit, burst=burst, max_running=max_running)
        return self._run(limit)

    def unset_limit(self, handler: str) -> Mapping[str, Any]:
        return self._run(self._client.unset_limit(handler))

    def tenants(self) -> list[Mapping[str, Any]]:
        return self._run(self._client.tenants())

    def pause_tenant(self, tenant: str) -> Mapping[str, Any]:
        return self._run(self._client.pause_tenant(tenant))

    def resume_tenant(self, tenant: str) -> Mapping[str, Any]:
        return self._run(self._client.resume_tenant(tenant))

    def weigh_tenant(self, tenant: str, weight: int) -> Mapping[str, Any]:
        return self._run(self._client.weigh_tenant(tenant, weight))

    def ready(self) -> bool:
        return self._run(self._client.ready())

    def events(
        self, *, last_event_id: str | None = None, state: Sequence[str] = (), handler: Sequence[str] = ()
    ) -> Iterator[TaskEvent]:
        return self._iterate(
            lambda: self._client.events(last_event_id=last_event_id, state=state, handler=handler)
        )

    def _task_handle(self, handle: TaskHandle[R]) -> SyncTaskHandle[R]:
        return SyncTaskHandle(self, handle)

    # -- crossing the threads

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(work)

    def _iterate(self, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        stream = cast("AsyncGenerator[T, None]", make())

        async def step() -> T:
            return await anext(stream, _END)

        try:
            while (item := self._run(step())) is not _END:
                yield item
        finally:
            self._run(_closing(stream))


async def _closing(stream: AsyncGenerator[Any, None]) -> None:
    await stream.aclose()


class _LoopThread:
    """An event loop in a daemon thread, started on first use, once per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._started())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self.start(work)
        try:
            return future.result()
        except BaseException:  # also KeyboardInterrupt, while the work goes on
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():  # never used, or this is the child of a fork: no thread lives here
            self._lock = threading.Lock()  # the parent's may be held for ever
            self._loop, self._pid = None, os.getpid()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="noria-client", daemon=True
                )
                self._thread.start()
            return self._loop

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None or self._pid != os.getpid():
            return
        with suppress(TimeoutError, CancelledError):
            asyncio.run_coroutine_threadsafe(_end(last), loop).result(CLOSE_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_TIMEOUT_S)
        if not thread.is_alive():
            loop.close()


async def _end(last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """What was interrupted may not have heard of it yet: nothing is left when the loop stops."""
    await last()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.sleep(0)  # connections close in the loop's next turn


def _shut(thread: _LoopThread, client: Client) -> None:
    thread.stop(client.close)
