"""One node process, kept alive: drained and started anew on request, started again with back-off when it ends
by itself (a handler that calls os._exit must not end the session). Only where it ends with 0 it stays away: it
was asked to leave."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from node.dev.screen import complain, ended, say
from runtime.adapters.embedded.child import Child, exited

if TYPE_CHECKING:
    from collections.abc import Callable

LEFT: Final = 0
REFUSED: Final = 2  # exit code of a node that cannot work with its settings
DECLARED_DEAD: Final = 75  # it did the right thing; the next incarnation may start at once
_SIGNALLED: Final = 128
_FIRST_S: Final = 0.5
_MOST_S: Final = 10.0
_STEADY_S: Final = 10.0  # one that ran this long is no crash loop
_BEYOND_DRAIN_S: Final = 5.0
_ASK_S: Final = 0.05


class NodeRunner:
    """`run` in a task of its own; the other methods from anywhere in the same loop."""

    def __init__(self, name: str, url: str, start: Callable[[], Child], drain_s: float) -> None:
        self.name = name
        self.url = url
        self._start = start
        self._drain_s = drain_s
        self._child: Child | None = None
        self._born = asyncio.Event()
        self._awake = asyncio.Event()
        self._restarting = False
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._left = False

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def code(self) -> int:
        """The exit code of its last process, as a shell has it; 0 while there has been none."""
        code = (self._child.poll() if self._child is not None else None) or 0
        return code if code >= 0 else _SIGNALLED - code

    async def run(self) -> int:
        """Until `stop`, or the node leaves because it was asked to: 0; or until it refuses its settings at the
        start: its exit code."""
        loop = asyncio.get_running_loop()
        crashes = 0
        while not self._stopping.is_set():
            started_s = loop.time()
            self._awake.clear()
            self._child = self._start()
            self._born.set()
            code = await exited(self._child)
            self._born.clear()
            if self._stopping.is_set():
                break
            if self._restarting:
                self._restarting, crashes = False, 0
                continue
            if code == REFUSED and not self._was_ready:
                return REFUSED
            if code == LEFT:
                say(f"node {self.name} has left; it is not started again")
                self._left = True
                self._born.set()  # nobody waits for another
                break
            crashes = 1 if loop.time() - started_s > _STEADY_S else crashes + 1
            await self._back_off(-1 if code is None else code, crashes)
        return 0

    async def ready(self) -> bool:
        """Wait until the node answers /readyz with 200; False when its process ends before that.

        While there is no process (back-off), it waits for the next one. True for one that has left.
        """
        await self._born.wait()
        if self._left:
            return True
        child = self._child
        while child is not None and child.poll() is None:
            if await _answers(self.url):
                self._was_ready = True
                return True
            await asyncio.sleep(_ASK_S)
        await asyncio.sleep(0)  # lets `run` notice the end too, before the next call
        return False

    async def restart(self) -> bool:
        """Drain the process, start another, wait until it answers; as `ready`. Ends a back-off at once, and leaves
        alone what has left."""
        child = self._child
        self._awake.set()
        if child is not None and child.poll() is None:
            self._restarting = True
            self._born.clear()
            await self._end(child, asyncio.Event())
        return await self.ready()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Drain the process and stay stopped. Once `hurry` is set, it is killed."""
        self._stopping.set()
        self._awake.set()
        if self._child is not None:
            await self._end(self._child, hurry)

    async def _end(self, child: Child, hurry: asyncio.Event) -> None:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            over = asyncio.create_task(exited(child, self._drain_s + _BEYOND_DRAIN_S))
            pressed = asyncio.create_task(hurry.wait())
            try:
                await asyncio.wait({over, pressed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                over.cancel()
                pressed.cancel()
                await asyncio.gather(over, pressed, return_exceptions=True)
                if child.poll() is None:
                    complain(f"node {self.name} does not end: killed")
                    child.kill()
        await exited(child)

    async def _back_off(self, code: int, crashes: int) -> None:
        delay_s = 0.0 if code == DECLARED_DEAD else min(_MOST_S, _FIRST_S * 2 ** (crashes - 1))
        complain(f"node {self.name} {ended(code)}; it starts again in {delay_s:g} s")
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._awake.wait()


async def _answers(url: str) -> bool:
    parts = urlsplit(url)
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(
                    f"GET /readyz HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
                )
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    return False
