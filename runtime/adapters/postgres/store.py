"""The whole record on PostgreSQL: the ports' methods, each on connections of its own duty."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from runtime.adapters.postgres.claiming import Claiming
from runtime.adapters.postgres.connections import ANSWER_S, Connections, Session
from runtime.adapters.postgres.control import Control
from runtime.adapters.postgres.keyed import Keyed
from runtime.adapters.postgres.limits import Limits
from runtime.adapters.postgres.members import Catalog, Members
from runtime.adapters.postgres.migrate import NEWEST_SCHEMA, OLDEST_SCHEMA
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.repairing import Repairing
from runtime.adapters.postgres.rows import uuid_of
from runtime.adapters.postgres.schedules import Schedules
from runtime.adapters.postgres.settling import Settling
from runtime.adapters.postgres.unique import Uniques
from runtime.adapters.postgres.views import PostgresCoordinator
from runtime.adapters.postgres.workflows import Workflows

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from runtime.core.task import TaskView


_PLACED_MAX: Final = 500


class PostgresStore(
    Uniques, Claiming, Settling, Keyed, Limits, Repairing, Control, Members, Catalog, Schedules, Workflows
):
    """Implements runtime.ports.Store on a migrated database. Belongs to the event loop it was opened in."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, *, answer_s: float = ANSWER_S, session: type[Session] = Session
    ) -> AsyncIterator[PostgresStore]:
        """What PostgreSQL does not answer within `answer_s` (a little more for many rows) is Unavailable.

        Raises SettingsError (server too old, transaction pooling, schema too old or too new), Unavailable.
        """
        connections = Connections(dsn, answer_s=answer_s, session=session)
        try:
            await connections.check(OLDEST_SCHEMA, NEWEST_SCHEMA)
            yield cls(connections)
        finally:
            await connections.close()

    async def get_many(self, ids: Sequence[UUID]) -> builtins.list[TaskView]:
        """What SQL enqueued is there for readers, too, from its commit on."""
        views = await super().get_many(ids)
        if len(views) < len(ids):
            await self.place_unbanded(_PLACED_MAX)  # or somebody else did, meanwhile
            views = await super().get_many(ids)
        return views

    @property
    def coordinator(self) -> PostgresCoordinator:
        """Views in the same database, over the same connections."""
        return PostgresCoordinator(self._connections.read)

    async def now(self) -> datetime:
        [row] = await self._connections.read.fetch(SQL.now)
        instant: datetime = row["now"]
        return instant

    async def identity(self) -> UUID:
        [row] = await self._connections.read.fetch(SQL.identity)
        return uuid_of(row[0])
