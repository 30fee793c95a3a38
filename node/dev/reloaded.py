"""`noria node --reload`: a node with the settings that were given, restarted on save. For containers, and for a
PostgreSQL of one's own.

The process that was started only watches; the node is its child. SIGTERM drains the child and ends with its
exit code. If the watching process is killed, the child gets SIGHUP and drains as well.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Final

from node.dev.asked import until_asked
from node.dev.ports import free_ports, url_of
from node.dev.reloading import Reloader
from node.dev.runner import REFUSED, NodeRunner
from node.dev.screen import announced, say
from runtime.adapters.embedded.child import Child, spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.settings import Settings

_COMMAND: Final = (sys.executable, "-m", "node")


class Reloaded:
    """One run of `noria node --reload`. The child reads its settings from `environment`."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        host = settings.http_host
        port = (
            settings.http_port or free_ports(host, 0, 1)[0]
        )  # known beforehand: we ask it whether it is ready
        self._environment = {**environment, "NORIA_HTTP_PORT": str(port)}
        self._reloader = Reloader(settings.handlers, environment, own=True)
        self._runner = NodeRunner(settings.node_name, url_of(host, port), self._start, settings.drain_s)
        self._tasks: list[asyncio.Task[int]] = []

    async def run(self) -> int:
        code = await until_asked(self._body(), self._shut_down)
        return self._runner.code if code is None else code

    async def _body(self) -> int:
        async with announced("importing the handlers"):
            first = await self._reloader.check()
        checked = await self._reloader.loadable(first)
        if checked is None:
            return REFUSED
        loaded = self._reloader.loaded(checked)
        say(f"node {self._runner.name} reloads on save")
        work = (self._runner.run(), self._reloader.run(checked, loaded, [self._runner]))
        self._tasks = [asyncio.create_task(one) for one in work]
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return max(task.result() for task in done)

    async def _shut_down(self, hurry: asyncio.Event) -> None:
        await self._runner.stop(hurry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> Child:
        return spawn(_COMMAND, end_signal=signal.SIGHUP, env=self._environment, errors=None)
