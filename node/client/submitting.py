"""Storing tasks: one by one, and many in batches that are sent side by side.

A task without an idempotency key gets a fresh one before the first try, so a request that is repeated after a
broken connection can never store it twice. Each batch is one transaction on the node; a call of several batches is
not, therefore an error says what is stored (`handles`).
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

import orjson

from node.client.encode import Chunk, chunks, encode, fresh_key
from node.client.errors import InvalidTask, ServerFault
from node.client.handle import Decoder
from node.client.transport import Repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from node.client.transport import Answer, Transport

BATCHES_AT_ONCE = 4
PATIENCE_S = 60.0  # a producer that is faster than the node is slowed down, not refused
_BATCH_POINTER = re.compile(r"#/tasks/(\d+)")

Request = tuple[dict[str, Any], Decoder[Any] | None]


class Batches:
    """One call of submit_many: reads the requests as they are needed and keeps what each batch came to."""

    def __init__(self, transport: Transport, requests: Iterable[Request], *, auto_keys: bool) -> None:
        self._transport = transport
        self._requests = requests
        self._auto_keys = auto_keys
        self.decoders: list[Decoder[Any] | None] = []
        self.stored: dict[int, list[dict[str, Any]]] = {}  # first index of a batch -> its answers
        self.own_keys: set[int] = set()
        self.unique: set[int] = set()

    async def send(self) -> None:
        """Raises the first error, after the batches under way have ended; no further batch is sent then."""
        queue = chunks(self._encoded())
        failures: list[BaseException] = []

        async def sender() -> None:
            try:
                while not failures and (chunk := next(queue, None)) is not None:
                    await self._send(chunk)
            except BaseException as exc:
                failures.append(exc)
                raise

        senders = [asyncio.ensure_future(sender()) for _ in range(BATCHES_AT_ONCE)]
        try:
            await asyncio.wait(senders)
        except asyncio.CancelledError:
            for s in senders:
                s.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            raise
        await asyncio.gather(*senders, return_exceptions=True)
        if failures:
            raise failures[0]

    def send_from_thread(self, start: Callable[[Coroutine[Any, Any, None]], Future[None]]) -> None:
        """As `send`, for a thread without a loop: the requests are read and encoded here, `start` runs what waits.

        They may come from a database cursor of this very thread.
        """
        under_way: set[Future[None]] = set()
        try:
            for chunk in chunks(self._encoded()):
                under_way.add(start(self._send(chunk)))
                if len(under_way) >= BATCHES_AT_ONCE:
                    ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
        finally:
            wait(under_way)
        for future in under_way:
            future.result()

    def _encoded(self) -> Iterator[bytes]:
        prefix = fresh_key()
        for index, (request, decode) in enumerate(self._requests):
            if request.get("unique") is not None:
                self.unique.add(index)
            if "idempotency_key" in request:
                self.own_keys.add(index)
            elif self._auto_keys:
                request["idempotency_key"] = f"{prefix}:{index}"
            self.decoders.append(decode)
            yield encode(request, f"#/tasks/{index}")

    async def _send(self, chunk: Chunk) -> None:
        keyed = self._auto_keys or all(
            i in self.own_keys for i in range(chunk.first, chunk.first + chunk.count)
        )
        try:
            answer = await self._transport.call(
                "POST",
                "/v1/tasks/batch",
                body=chunk.body,
                patience_s=PATIENCE_S,
                repeat=Repeat.ALWAYS if keyed else Repeat.IF_UNDONE,
            )
        except InvalidTask as exc:
            if chunk.first == 0:
                raise
            raise InvalidTask(
                exc.detail,
                [(_shift(p, chunk.first), d) for p, d in exc.errors],
                status=exc.status,
                slug=exc.slug,
            ) from exc
        self.stored[chunk.first] = _batch_answer(answer, chunk.count)


def _batch_answer(answer: Answer, count: int) -> list[dict[str, Any]]:
    try:
        tasks = orjson.loads(answer.body)["tasks"]
        if len(tasks) == count:
            return list(tasks)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    raise ServerFault(f"expected {count} tasks in the answer, got {answer.body[:80]!r}", status=answer.status)


def _shift(pointer: str, first: int) -> str:
    """A pointer into one batch as a pointer into the whole call."""
    return _BATCH_POINTER.sub(lambda m: f"#/tasks/{int(m[1]) + first}", pointer, count=1)
