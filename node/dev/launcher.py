"""The order of things in `noria dev`: PostgreSQL and a look at the handlers, then the nodes, reload on save.

At Ctrl-C (or SIGTERM, or when the terminal closes) the nodes are drained first, then PostgreSQL stops.
However this process ends, its children end with it.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from node.dev.asked import until_asked
from node.dev.ports import free_ports, url_of
from node.dev.reloading import Reloader
from node.dev.runner import NodeRunner
from node.dev.screen import announced, complain, ended, opening, say
from runtime.adapters.embedded import EmbeddedPostgres
from runtime.adapters.embedded.child import Child, spawn
from runtime.adapters.objects.url import folder_url
from runtime.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from node.dev import DevOptions
    from node.dev.importing import Checked
    from node.settings import Settings

T = TypeVar("T")

USAGE: Final = 2
_POSTGRES_AGAIN_S: Final = 1.0
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
        self._results = Path(settings.data_dir) / "results"
        self._runners: list[NodeRunner] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reloader = Reloader(settings.handlers, environment)

    async def run(self) -> int:
        return await until_asked(self._body(), self._shut_down) or 0

    async def _body(self) -> int:
        urls = self._urls()
        checking = self._own(self._reloader.check())
        await self._start_postgres()
        async with announced("importing the handlers"):
            first = await checking
        checked = await self._reloader.loadable(first, wait=self._options.reload)
        if checked is None:
            return USAGE
        loaded = self._reloader.loaded(checked)
        self._runners = [self._runner(name, url) for name, url in urls.items()]
        guards = [
            self._own(self._run_nodes()),
            self._own(self._guard_postgres()),
            self._own(self._bound_log()),
        ]
        self._own(self._open(urls, checked))
        if self._options.reload:
            guards.append(self._own(self._reloader.run(checked, loaded, self._runners)))
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
            if self._options.fresh:  # they belong to the record that is gone
                await asyncio.to_thread(shutil.rmtree, self._results, ignore_errors=True)
        say(f"PostgreSQL: ready in {loop.time() - started_s:.1f} s")

    async def _open(self, urls: dict[str, str], checked: Checked) -> None:
        async with announced("starting the node"):
            for runner in self._runners:
                while not await runner.ready():
                    pass  # it crashed; ready() waits for the next process
        say(opening(urls, checked.handlers, self._options.reload))

    def _urls(self) -> dict[str, str]:
        """Where the nodes will listen, by their names. Raises EmbeddedError where somebody else listens already."""
        host, count = self._settings.http_host, self._options.nodes
        name = self._settings.node_name
        if count == 1:
            names = [name]
        else:
            stem = name if self._environment.get("NORIA_NODE_NAME") else "node"
            names = [f"{stem}-{number}" for number in range(1, count + 1)]
        ports = free_ports(host, self._settings.http_port, count)
        return {name: url_of(host, port) for name, port in zip(names, ports, strict=True)}

    def _runner(self, name: str, url: str) -> NodeRunner:
        return NodeRunner(name, url, self._node_starter(name, url), self._settings.drain_s)

    def _node_starter(self, name: str, url: str) -> Callable[[], Child]:
        environment = {
            **self._environment,
            "NORIA_POSTGRES_DSN": self._postgres.dsn,
            "NORIA_HANDLERS": ",".join(self._settings.handlers),
            "NORIA_RESULTS_URL": self._settings.results_url or folder_url(self._results),
            "NORIA_NODE_NAME": name,
            "NORIA_HTTP_PORT": url.rpartition(":")[2],
        }

        def start() -> Child:
            # SIGKILL: PostgreSQL ends at the same moment, so there is nothing a drain could write to
            return spawn(self._options.node_command, end_signal=signal.SIGKILL, env=environment, errors=None)

        return start

    # -- while it runs --------------------------------------------------------------------------------

    async def _run_nodes(self) -> int:
        """Until one refuses its settings: its exit code; or until all have left: 0."""
        running = {self._own(runner.run()) for runner in self._runners}
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if code := max(task.result() for task in done):
                return code
        return 0

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

    async def _shut_down(self, hurry: asyncio.Event) -> None:
        if self._runners:
            say("\nstopping: the node finishes what it runs (Ctrl-C again: at once)")
        async with announced("stopping"):
            await asyncio.gather(*(runner.stop(hurry) for runner in self._runners))
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
