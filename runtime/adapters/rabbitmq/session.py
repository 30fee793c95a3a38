"""One connection, from its opening until something ends it; nothing of it outlives it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, cast

import aio_pika
from aiormq import spec

from runtime.adapters.rabbitmq.echo import Echo
from runtime.adapters.rabbitmq.errors import unavailable
from runtime.adapters.rabbitmq.inbox import Inbox
from runtime.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractChannel, AbstractConnection
    from aiormq import Channel as WireChannel
    from yarl import URL

    from runtime.adapters.rabbitmq.inbox import Take

OPEN_S: Final = 5.0
SEND_S: Final = 2.0
_LEAVE_S: Final = 1.0
_CLOSE_S: Final = (
    4.0  # the library itself waits 2 s for a frozen server, and leaves its tasks behind if disturbed
)
_HEARTBEAT_S: Final = 6  # below 5 s RabbitMQ itself calls false alarms likely
_OUTSTANDING_MAX: Final = 128  # publishes that wait for their confirm


class Session:
    """Made by `open_session`. `lost` tells why it ended; who made it closes it then."""

    def __init__(self, connection: AbstractConnection, queue: str) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.echo = Echo()
        self._connection = connection
        self._queue = queue
        self._room = asyncio.Semaphore(_OUTSTANDING_MAX)
        self._numbers = count(1)
        self._channels: list[AbstractChannel] = []  # the library itself holds them weakly
        self._publishing: WireChannel
        self._consuming: WireChannel
        self._inbox: Inbox | None = None
        self._settler: asyncio.Task[None] | None = None
        self._consumer = ""

    async def start(self, prefetch: int, take: Take) -> None:
        """Open channels and consume."""
        self._connection.close_callbacks.add(
            lambda _, error: self.lose(f"the connection was closed: {error}")
        )
        self._publishing = await self._channel()
        self._consuming = await self._channel()
        self._consuming.on_consumer_cancel_callbacks.add(self._on_cancelled)
        self._inbox = Inbox(self._consuming, prefetch, take)
        self._consumer = await self._inbox.consume(self._queue)
        self._settler = asyncio.create_task(self._settle(self._inbox))

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ has told us not to publish (an alarm)."""
        transport = self._connection.transport
        if transport is None:
            return False
        waiting: Any = transport.connection.ready()
        try:
            waiting.send(None)
        except StopIteration:
            return False
        waiting.close()
        return True

    @property
    def alive_s(self) -> float:
        """When its consumer last showed that it lives (see Inbox)."""
        return self._inbox.alive_s if self._inbox else float("-inf")

    def lose(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)

    async def publish(
        self,
        what: str,
        body: bytes,
        routing_key: str,
        *,
        exchange: str = "",
        mandatory: bool = True,
        properties: spec.Basic.Properties | None = None,
    ) -> None:
        """Return once RabbitMQ has confirmed it. Raises Unavailable, saying `what`, after SEND_S at the latest."""
        if self.blocked:
            raise Unavailable(f"{what}: RabbitMQ takes nothing now (memory or disk alarm)")
        sent = properties or spec.Basic.Properties(delivery_mode=1, message_id=str(next(self._numbers)))
        with unavailable(what):
            async with asyncio.timeout(SEND_S), self._room:
                await self._publishing.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=routing_key,
                    properties=sent,
                    mandatory=mandatory,
                    wait=False,
                )

    async def close(self, *, leave: bool = False) -> None:
        """Takes a few seconds at most, never raises. With `leave` the queue is deleted: nobody comes back."""
        self.lose("closed")
        if self._inbox is not None:
            self._inbox.close()
        if self._settler is not None:
            self._settler.cancel()
        if leave:
            with suppress(Unavailable), unavailable("leave"):
                async with asyncio.timeout(_LEAVE_S):
                    await self._consuming.basic_cancel(self._consumer)
                    await self._consuming.queue_delete(self._queue)
        with suppress(Unavailable), unavailable("close"):
            async with asyncio.timeout(_CLOSE_S):
                await self._connection.close()

    async def _channel(self) -> WireChannel:
        channel = await self._connection.channel(on_return_raises=True)
        channel.close_callbacks.add(lambda _, error: self.lose(f"a channel was closed: {error}"))
        self._channels.append(channel)
        return cast("WireChannel", await channel.get_underlay_channel())

    async def _settle(self, inbox: Inbox) -> None:
        try:
            await inbox.settle()
        except Unavailable as error:
            self.lose(str(error))

    def _on_cancelled(self, _: object) -> None:
        self.lose(f"the consumer of {self._queue} was cancelled, as when the queue is deleted")


async def open_session(
    url: URL,
    queue: str,
    prefetch: int,
    take: Take,
    declare: Callable[[AbstractConnection], Awaitable[None]],
) -> Session:
    """Connect; declare and consume. Raises Unavailable after OPEN_S for each of the two at the latest."""
    with unavailable("connect"):
        async with asyncio.timeout(OPEN_S):
            connection = await aio_pika.connect(url.update_query(heartbeat=_HEARTBEAT_S, name=queue))
    session = Session(connection, queue)
    try:
        with unavailable("declare and consume"):
            async with asyncio.timeout(OPEN_S):
                await declare(connection)
                await session.start(prefetch, take)
    except BaseException:
        await session.close()
        raise
    return session
