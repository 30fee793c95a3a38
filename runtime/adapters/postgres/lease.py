"""A connection for nothing but the lease, usable in an event loop of its own thread.

It shares nothing with the store: a busy loop, a full line or a long query must not make a living node look
dead.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runtime.adapters.postgres import members
from runtime.adapters.postgres.connections import ANSWER_S, Session, connect
from runtime.adapters.postgres.translate import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class LeaseConnection:
    """After Unavailable it is of no more use: open another one."""

    def __init__(self, session: Session, answer_s: float) -> None:
        self._session = session
        self._answer_s = answer_s

    async def join(self, node: str, lease_s: float, about: Mapping[str, object]) -> int:
        """As Members.join."""
        with translated():
            async with asyncio.timeout(self._answer_s):
                return await members.join(self._session, node, lease_s, about)

    async def renew(
        self, incarnation: int, lease_s: float, load: Mapping[str, object] | None = None
    ) -> float:
        """As Members.renew: raises IncarnationDead, Unavailable."""
        with translated():
            async with asyncio.timeout(self._answer_s):
                return await members.renew(self._session, incarnation, lease_s, load)


@asynccontextmanager
async def open_lease(dsn: str, answer_s: float = ANSWER_S) -> AsyncIterator[LeaseConnection]:
    """Raises Unavailable, SettingsError."""
    connection = await connect(dsn, "noria lease", {})
    try:
        yield LeaseConnection(Session(connection, "lease"), answer_s)
    finally:
        connection.terminate()
