"""Keeps this node's lease alive, in a thread of its own with a connection of its own.

A busy event loop must not look dead, so renewal does not depend on it; a loop that has stopped for good is the
watchdog's business (node.wiring ends the process then). A node that reads itself dead has lost everything it runs:
`lost` is called at once, from this thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from actors.keyed.fence import boottime_s
from runtime.errors import IncarnationDead, Unavailable

log = logging.getLogger(__name__)

_RENEWALS_PER_LEASE: Final = 3
_RETRY_S: Final = 0.3


class Renewing(Protocol):
    async def renew(
        self, incarnation: int, lease_s: float, load: Mapping[str, object] | None = None
    ) -> float: ...


class LeaseKeeper:
    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Renewing]],
        incarnation: int,
        lease_s: float,
        lost: Callable[[IncarnationDead], None],
        renewed: Callable[[float, float], None],
        load: Callable[[], Mapping[str, object] | None] = lambda: None,
    ) -> None:
        """`renewed` is told when each renewal was asked for (boottime) and for how long it was granted. `load` is asked
        from this thread, so it only hands over what the event loop has made, and never changes it again."""
        self._connect = connect
        self._incarnation = incarnation
        self._lease_s = lease_s
        self._lost = lost
        self._renewed = renewed
        self._load = load
        self._leaving = False
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="noria-lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """The node leaves in good order: reading that it has left is no surprise from now on."""
        self._leaving = True

    def close(self, timeout_s: float = 3.0) -> None:
        """End the thread; blocks for at most `timeout_s`."""
        self.leave()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout_s)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._keep())

    async def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                async with self._connect() as members:
                    await self._renew_until_stopped(members)
            except Unavailable as away:
                log.warning("renewing the lease: the record is away: %s", away)
                await self._wait(_RETRY_S)
            except IncarnationDead as dead:
                if not self._leaving:
                    self._lost(dead)
                return
            except Exception:  # a node that forgot its lease would be deaf and never know
                log.exception("renewing the lease failed; it is tried again")
                await self._wait(_RETRY_S)

    async def _renew_until_stopped(self, members: Renewing) -> None:
        while not self._stop.is_set():
            asked_s = boottime_s()
            granted_s = await members.renew(self._incarnation, self._lease_s, self._load())
            self._renewed(asked_s, granted_s)
            await self._wait(self._lease_s / _RENEWALS_PER_LEASE)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass
