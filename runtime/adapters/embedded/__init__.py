"""An own PostgreSQL for `noria dev`, the tests and the demo: no service to install, nothing left behind.

binaries   where the programs of the installed wheel lie (its package code is never imported)
identity   as whom the server runs (PostgreSQL refuses root)
child      child processes that end with their parent, even when that is killed with -9
folder     the data folder: marker, lock, version, socket directory
orphans    servers that still run on the folder from an earlier life are ended first
server     EmbeddedPostgres: start() -> DSN, stop()
"""

from __future__ import annotations

from runtime.adapters.embedded.binaries import Binaries, find_binaries
from runtime.adapters.embedded.server import EmbeddedPostgres

__all__ = ["Binaries", "EmbeddedPostgres", "find_binaries"]
