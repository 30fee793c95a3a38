"""One consumer of one session: what arrives goes up at once, what was acknowledged goes back in its own time.

Law: an ack never fails, never blocks, counts once, and means nothing after its session has ended (the server
gives the message to the next one, and a second claim of it finds nothing).
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from runtime.adapters.rabbitmq.errors import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.abc import AbstractChannel, DeliveredMessage

    # Body and ack of what arrived; False when it cannot be read.
    Take = Callable[[bytes, Callable[[], None]], bool]


class Inbox:
    """A consumer with `prefetch` deliveries to acknowledge at most; 0: they are acknowledged as they are sent."""

    def __init__(self, channel: AbstractChannel, prefetch: int, take: Take) -> None:
        self._channel: Final = channel
        self._prefetch: Final = prefetch
        self._take = take
        self._unsettled: set[int] = set()  # delivery tags
        self._settled: deque[tuple[int, bool]] = deque()  # and whether they were read
        self._wake = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._arrived_s = float("-inf")
        self._open = True

    @property
    def alive_s(self) -> float:
        """When something arrived last; now, if nothing can arrive because all deliveries wait for their acks."""
        return self._clock() if self._prefetch and len(self._unsettled) >= self._prefetch else self._arrived_s

    async def consume(self, queue: str) -> str:
        """The consumer's tag."""
        if self._prefetch:
            await self._channel.basic_qos(prefetch_count=self._prefetch)  # of this consumer, not global
        consuming = await self._channel.basic_consume(queue, self._on_delivery, no_ack=not self._prefetch)
        return consuming.consumer_tag or ""

    async def settle(self) -> None:
        """Send acks for ever. Raises Unavailable when that is over."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._settled:
                tag, good = self._settled.popleft()
                with unavailable("acknowledge"):
                    if good:
                        await self._channel.basic_ack(tag, wait=False)
                    else:
                        await self._channel.basic_reject(tag, requeue=False, wait=False)

    def close(self) -> None:
        """Nothing arrives and no ack counts from now on."""
        self._open = False
        self._unsettled.clear()
        self._settled.clear()

    async def _on_delivery(self, message: DeliveredMessage) -> None:
        tag = message.delivery_tag
        if not self._open or tag is None:
            return
        self._arrived_s = self._clock()
        if not self._prefetch:
            self._take(message.body, _nothing)
            return
        self._unsettled.add(tag)
        if not self._take(message.body, partial(self._done, tag, True)):
            self._done(tag, False)

    def _done(self, tag: int, good: bool) -> None:
        if tag in self._unsettled:
            self._unsettled.discard(tag)
            self._settled.append((tag, good))
            self._wake.set()


def _nothing() -> None:
    """What was acknowledged as it was sent needs no more."""
