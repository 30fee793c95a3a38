"""The whole record on PostgreSQL: the ports' methods, each on connections of its own duty."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from runtime.adapters.postgres.accepting import Accepting
from runtime.adapters.postgres.claiming import Claiming
from runtime.adapters.postgres.connections import Connections
from runtime.adapters.postgres.control import Control
from runtime.adapters.postgres.members import Catalog, Members
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.reading import Reading
from runtime.adapters.postgres.settling import Settling


class PostgresStore(Accepting, Claiming, Settling, Control, Reading, Members, Catalog):
    """Implements runtime.ports.Store on a migrated database."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator[PostgresStore]:
        """Raises SettingsError (server too old, transaction pooling), Unavailable."""
        connections = Connections(dsn)
        try:
            await connections.check()
            yield cls(connections)
        finally:
            connections.close()

    async def now(self) -> datetime:
        async with self._connections.read.connection() as connection:
            instant: datetime = await connection.fetchval(SQL.now)
            return instant
