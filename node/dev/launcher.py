"""The order of things in `noria dev`: PostgreSQL and a look at the handlers, then the nodes, reload on save.

At Ctrl-C (or SIGTERM, or when the terminal closes) the nodes are drained first, then PostgreSQL stops.
However this process ends, its children end with it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from node.dev.check import check
from node.dev.runner import NodeRunner
from node.dev.screen import announced, complain, ended, opening, say
from node.dev.source import Look, as_of, contents, look_around, wakes
from runtime.adapters.embedded import EmbeddedPostgres
from runtime.adapters.embedded.child import Child, spawn
from runtime.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from node.dev import DevOptions
    from node.dev.importing import Checked
    from node.settings import Settings

T = TypeVar("T")

USAGE: Final = 2
_POSTGRES_AGAIN_S: Final = 1.0
_CHECKS: Final = 3
_LOG_LOOK_S: Final = 60.0


def launch(options: DevOptions, settings: Settings, environment: Mapping[str, str]) -> int:
    """Run until stopped; the exit code."""
    try:
        return asyncio.run(Launcher(options, settings, environment).run())
    except EmbeddedError as exc:
        complain(f"Error: {exc}")
        return USAGE


class Launcher:
    """One run of `noria dev`."""

    def __init__(self, options: DevOptions, settings: Settings, environment: Mapping[str, str]) -> None:
        self._options = options
        self._settings = settings
        self._environment = environment
        self._postgres = EmbeddedPostgres(Path(settings.data_dir))
        self._runners: list[NodeRunner] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._seen: Look = {}  # what the last check saw
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        body = asyncio.create_task(self._body())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop, body)
        try:
            await asyncio.wait({body})
        finally:
            await self._shut_down()
        return 0 if body.cancelled() else body.result()

    def _asked_to_stop(self, body: asyncio.Task[int]) -> None:
        if body.cancelling() or body.done():
            self._hurry.set()
        else:
            body.cancel()

    async def _body(self) -> int:
        urls = self._urls()
        checking = self._own(self._check())
        await self._start_postgres()
        async with announced("importing the handlers"):
            checked = await checking
        while checked.error:
            complain(checked.error)
            if not checked.files or not self._options.reload:
                return USAGE  # there is nothing to wait for
            say("waiting for you to save a change ...")
            checked = await self._changed(checked)
        loaded = contents(checked.files)
        guards = self._start_nodes(urls)
        self._own(self._open(urls, checked))
        guards.append(self._own(self._guard_postgres()))
        guards.append(self._own(self._bound_log()))
        if self._options.reload:
            guards.append(self._own(self._reload(checked, loaded)))
        done, _ = await asyncio.wait(guards, return_when=asyncio.FIRST_COMPLETED)
        return max(task.result() or 0 for task in done)

    # -- start ----------------------------------------------------------------------------------------

    async def _start_postgres(self) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        folder = self._postgres.folder
        known = folder.cluster.exists() and not self._options.fresh
        say(f"PostgreSQL: {'starting' if known else 'making a new database'} in {self._settings.data_dir}")
        async with announced(f"starting PostgreSQL (its log: {folder.log})"):
            await self._postgres.start(fresh=self._options.fresh)
        say(f"PostgreSQL: ready in {loop.time() - started_s:.1f} s")

    async def _open(self, urls: list[str], checked: Checked) -> None:
        async with announced("starting the node"):
            for runner in self._runners:
                while not await runner.ready():
                    pass  # it crashed; ready() waits for the next process
        say(opening(urls, checked.handlers, self._options.reload))

    def _urls(self) -> list[str]:
        """Where the nodes will listen. Raises EmbeddedError where somebody else listens already."""
        host, base = self._settings.http_host, self._settings.http_port
        shown = f"[{host}]" if ":" in host else host
        return [f"http://{shown}:{_free_port(host, base and base + i)}" for i in range(self._options.nodes)]

    def _start_nodes(self, urls: list[str]) -> list[asyncio.Task[Any]]:
        for number, url in enumerate(urls, 1):
            name = self._settings.node_name if len(urls) == 1 else f"{self._settings.node_name}-{number}"
            runner = NodeRunner(name, url, self._node_starter(name, url), self._settings.drain_s)
            self._runners.append(runner)
        return [self._own(runner.run()) for runner in self._runners]

    def _node_starter(self, name: str, url: str) -> Callable[[], Child]:
        environment = {
            **self._environment,
            "NORIA_POSTGRES_DSN": self._postgres.dsn,
            "NORIA_HANDLERS": ",".join(self._settings.handlers),
            "NORIA_NODE_NAME": name,
            "NORIA_HTTP_PORT": url.rpartition(":")[2],
        }

        def start() -> Child:
            # SIGKILL: PostgreSQL ends at the same moment, so there is nothing a drain could write to
            return spawn(self._options.node_command, end_signal=signal.SIGKILL, env=environment, errors=None)

        return start

    # -- while it runs --------------------------------------------------------------------------------

    async def _reload(self, checked: Checked, loaded: dict[str, bytes]) -> int:
        """Restart the nodes, one after the other, whenever what they would load has changed and loads."""
        while checked.files:
            checked = await self._changed(checked)
            if checked.error:
                complain(f"{checked.error}\nnot reloaded: the node goes on with the code it has")
                continue
            now = contents(checked.files)
            if now == loaded:
                continue
            loaded = now
            started_s = asyncio.get_running_loop().time()
            async with announced("reloading: the node finishes what it runs"):
                answers = [await runner.restart() for runner in self._runners]
            if all(answers):
                took_s = asyncio.get_running_loop().time() - started_s
                names = ", ".join(handler.name for handler in checked.handlers)
                say(f"reloaded in {took_s:.1f} s: {names or 'no handlers'}")
        await asyncio.Event().wait()  # nothing to watch: for ever
        return 0

    async def _changed(self, checked: Checked) -> Checked:
        """Wait for a change around these files and check again."""
        if look_around(checked.files) == self._seen:
            async for _ in wakes(checked.files):
                if look_around(checked.files) != self._seen:
                    break
        return await self._check(checked.files)

    async def _check(self, known: tuple[str, ...] = ()) -> Checked:
        """Check what stands in the files now; again where one was written meanwhile, but not for ever (some
        code writes Python files when it is imported)."""
        for _ in range(_CHECKS):
            began_ns = time.time_ns()
            checked = await check(self._settings.handlers, self._environment)
            if not checked.files:
                checked = replace(checked, files=known)
            self._seen = look_around(checked.files)
            if as_of(self._seen, began_ns) == self._seen:
                break
        return checked

    async def _guard_postgres(self) -> int:
        while True:
            code = await self._postgres.wait()
            complain(f"PostgreSQL {ended(code)}; it starts again (its log: {self._postgres.folder.log})")
            await self._postgres.stop()  # leaves the folder
            try:
                await self._postgres.start()
                say("PostgreSQL: ready again")
            except EmbeddedError as exc:
                complain(str(exc))
                await asyncio.sleep(_POSTGRES_AGAIN_S)

    async def _bound_log(self) -> int:
        while True:
            await asyncio.sleep(_LOG_LOOK_S)
            self._postgres.bound_log()

    # -- end ------------------------------------------------------------------------------------------

    async def _shut_down(self) -> None:
        if self._runners:
            say("\nstopping: the node finishes what it runs (Ctrl-C again: at once)")
        async with announced("stopping"):
            await asyncio.gather(*(runner.stop(self._hurry) for runner in self._runners))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._postgres.stop()
        if self._runners:
            say("stopped")

    def _own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise EmbeddedError(
                f"cannot listen on {host}:{port} ({exc.strerror}): choose another port with NORIA_HTTP_PORT"
            ) from exc
        return int(probe.getsockname()[1])
