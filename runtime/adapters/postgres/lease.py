"""A connection for nothing but the lease, usable in an event loop of its own thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.adapters.postgres.connections import ANSWER_S, Connection, connect
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.translate import translated
from runtime.errors import IncarnationDead

_STATES = {0: "joining", 1: "active", 2: "draining", 8: "left", 9: "dead"}


class LeaseConnection:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def renew(self, incarnation: int, lease_s: float) -> float:
        """As Members.renew."""
        with translated():
            return await renew(self._connection, incarnation, lease_s)


@asynccontextmanager
async def open_lease(dsn: str) -> AsyncIterator[LeaseConnection]:
    """Raises Unavailable."""
    connection = await connect(dsn, "lease", {}, ANSWER_S)
    try:
        yield LeaseConnection(connection)
    finally:
        connection.terminate()


async def renew(connection: Connection, incarnation: int, lease_s: float) -> float:
    """Raises IncarnationDead."""
    if await connection.fetchval(SQL.renew, incarnation, lease_s) is None:
        raise await not_living(connection, incarnation)
    return lease_s


async def not_living(connection: Connection, incarnation: int) -> IncarnationDead:
    row = await connection.fetchrow(SQL.lease_of, incarnation)
    if row is None:
        return IncarnationDead(f"incarnation {incarnation} is not on record")
    return IncarnationDead(f"incarnation {incarnation} of {row['node']} is {_STATES[row['state']]}")
