"""`noria dev`: everything that a developer of handlers needs, in one terminal, from one command.

launcher   the order of things: PostgreSQL, nodes, reload; and back at Ctrl-C
runner     one node process: started, drained, started again when it crashes
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

__all__ = ["DevOptions", "run_dev"]


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
    from node.dev import launcher, screen  # noqa: PLC0415 - as above
    from runtime.errors import SettingsError  # noqa: PLC0415 - as above

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
