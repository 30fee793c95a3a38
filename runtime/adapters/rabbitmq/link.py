"""A connection that is kept: opened, watched, and replaced as a whole by the next generation whatever ended it.

One way to recover from everything (server gone, queue deleted, channel closed, deaf) is one that gets tested.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from runtime import codec
from runtime.adapters.rabbitmq.session import Session, open_session
from runtime.core.backoff import Backoff, delay_s
from runtime.core.messages import Canary
from runtime.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq import spec
    from yarl import URL

    from runtime.adapters.rabbitmq.inbox import Take
    from runtime.adapters.rabbitmq.topology import InboxKind

_LOOK_S: Final = 0.5
_BACKOFF: Final = Backoff(first_s=0.2, max_s=5.0)
_LOG_EVERY: Final = 20  # failures in a row between two lines
_LEAVE_S: Final = 5.0
_log = logging.getLogger(__name__)


class Link:
    """Runs from `start` to `close`. `on_change` is called when `sound` changes."""

    def __init__(
        self,
        url: URL,
        incarnation: int,
        kind: InboxKind,
        take: Take,
        jitter: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self.sound = False  # connected, not blocked, and what it sends to itself arrives
        self.generation = 0
        self._url = url
        self._incarnation = incarnation
        self._kind = kind
        self._queue = kind.queue(incarnation)
        self._take = take
        self._jitter = jitter
        self._on_change = on_change
        self._session: Session | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._run: asyncio.Task[None] | None = None
        self._canary: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._run = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Delete the queue, as far as that is possible now, and disconnect. Takes a few seconds at most."""
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait([self._run])
        if self._session is not None:
            await self._session.close(leave=True)
            self._session = None
        self._show()
        left = self._closing | ({self._canary} if self._canary else set())
        if left:
            await asyncio.wait(left, timeout=_LEAVE_S)

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
        """See Session.publish."""
        if self._session is None:
            raise Unavailable(f"{what}: not connected to RabbitMQ")
        await self._session.publish(
            what, body, routing_key, exchange=exchange, mandatory=mandatory, properties=properties
        )

    def returned(self, canary: Canary) -> None:
        """A canary arrived on this link."""
        if self._session is not None and canary.incarnation == self._incarnation:
            self._session.echo.returned(canary.sequence)
            self._show()

    async def _keep(self) -> None:
        failures = 0
        while True:
            failures += 1
            try:
                session = await self._open()
            except Unavailable as error:
                if failures % _LOG_EVERY == 1:
                    _log.warning("RabbitMQ: %s: %s; trying on", self._queue, error)
            else:
                why = await self._watch(session)
                if session.echo.heard:
                    failures = 1
                _log.warning("RabbitMQ: %s, connection %d ended: %s", self._queue, self.generation, why)
                self._retire(session)
            await asyncio.sleep(delay_s(_BACKOFF, failures, self._jitter()))

    async def _open(self) -> Session:
        session = await open_session(
            self._url,
            self._queue,
            self._kind.prefetch,
            self._take,
            lambda connection: self._kind.declare(connection, self._incarnation),
        )
        self.generation += 1
        self._session = session
        _log.info("RabbitMQ: %s, connection %d is up", self._queue, self.generation)
        return session

    async def _watch(self, session: Session) -> str:
        """Why it was lost, once it is."""
        while not session.lost.done():
            self._look(session)
            await asyncio.wait([session.lost], timeout=_LOOK_S)
        return session.lost.result()

    def _look(self, session: Session) -> None:
        now_s = asyncio.get_running_loop().time()
        session.echo.alive(session.alive_s)
        if session.blocked:
            session.echo.forget()
        elif session.echo.deaf(now_s):
            session.lose("it is deaf: what was sent to it did not arrive")
        elif session.echo.due(now_s):
            canary = Canary(self._incarnation, session.echo.send(now_s))
            self._canary = asyncio.create_task(
                self._send_canary(session, canary)
            )  # may take longer than a look
        self._show()

    async def _send_canary(self, session: Session, canary: Canary) -> None:
        try:
            await session.publish("canary", codec.encode(canary), self._queue, exchange=self._kind.through)
        except Unavailable:
            session.echo.failed()

    def _retire(self, session: Session) -> None:
        """Close it without waiting for that: the other side may be frozen."""
        self._session = None
        self._show()
        closing = asyncio.create_task(session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _show(self) -> None:
        session = self._session
        sound = session is not None and session.echo.heard and not session.lost.done()
        if sound != self.sound:
            self.sound = sound
            self._on_change()
