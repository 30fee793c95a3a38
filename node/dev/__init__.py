"""`noria dev`: everything that a developer of handlers needs, in one terminal, from one command; and its part that
goes with a PostgreSQL of one's own, `noria node --reload`.

launcher   the order of things in `noria dev`: PostgreSQL, nodes, reload; and back at Ctrl-C
reloaded   the same for `noria node --reload`: one node, nothing else
reloading  what has changed is checked, then every node is restarted in turn
runner     one node process: started, drained, started again when it crashes
asked      signals: the first one ends the work in order, a further one hurries
ports      where the nodes will listen
check      what a node would load, found out by `importing` in a process of its own: a mistake kills nothing
source     the files that the handlers came from, and whether they have changed
screen     what a person reads
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.settings import Settings

__all__ = ["DevOptions", "run_dev", "run_reloaded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """`handlers`: files and modules (empty: NORIA_HANDLERS). `environment`: where settings are read from, and
    what nodes inherit (None: this process's own). `node_command` starts a node; the environment tells it all.
    """

    handlers: tuple[str, ...] = ()
    nodes: int = 1
    fresh: bool = False
    reload: bool = True
    environment: Mapping[str, str] | None = None
    node_command: tuple[str, ...] = (sys.executable, "-m", "node")


def run_dev(options: DevOptions) -> int:
    """Run until stopped; the exit code. Call it in the main thread. Raises SettingsError before it starts."""
    from node import settings  # noqa: PLC0415 - `node.dev.importing` has to be quick
    from runtime.errors import SettingsError  # noqa: PLC0415 - as above

    _need_watchfiles()
    from node.dev import launcher, screen  # noqa: PLC0415 - as above

    environment = dict(os.environ if options.environment is None else options.environment)
    if not 1 <= options.nodes <= 16:
        raise SettingsError(f"--nodes: {options.nodes} is not a whole number from 1 to 16")
    own = {**environment, "NORIA_POSTGRES_DSN": "postgresql://"}  # ours is known only when it runs
    found = settings.read(own, {"handlers": ",".join(options.handlers) or None})
    if environment.get("NORIA_POSTGRES_DSN"):
        screen.say(
            "NORIA_POSTGRES_DSN is set, but `noria dev` has its own PostgreSQL (`noria node` uses that)"
        )
    return launcher.launch(options, found, environment)


def run_reloaded(settings: Settings, environment: Mapping[str, str]) -> int:
    """A node that reloads on save, until stopped; its exit code. `environment` says what `settings` say, as the
    node reads it there. Call it in the main thread. Raises SettingsError before it starts.
    """
    _need_watchfiles()
    import asyncio  # noqa: PLC0415 - `node.dev.importing` has to be quick

    from node.dev.reloaded import Reloaded  # noqa: PLC0415 - as above

    return asyncio.run(Reloaded(settings, environment).run())


def _need_watchfiles() -> None:
    from importlib.util import find_spec  # noqa: PLC0415 - `node.dev.importing` has to be quick

    from runtime.errors import SettingsError  # noqa: PLC0415 - as above

    if find_spec("watchfiles") is None:
        raise SettingsError("reload on save needs the package watchfiles: pip install 'noria[dev]'")
