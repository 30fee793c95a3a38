"""Claims: waiting rows turned into running rows of an incarnation.

Law: never repeated by itself. A claim whose answer was lost shows in `held`, where the node finds what it
does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.adapters.postgres.connections import unzipped
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import claim_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from runtime.adapters.postgres.connections import Connections
    from runtime.core.task import Claim, Take


class Claiming:
    _connections: Connections

    async def claim(self, offers: Sequence[tuple[UUID, int]], incarnation: int) -> list[Claim]:
        """Raises Unavailable, Overloaded."""
        if not offers:
            return []
        async with self._connections.claim.session(len(offers)) as session:
            rows = await session.fetch(SQL.claim, *unzipped(offers, 2), incarnation)
        return [claim_of(row) for row in rows]

    async def pull(self, takes: Sequence[Take], incarnation: int, *, alone: bool = False) -> list[Claim]:
        """Raises Unavailable, Overloaded."""
        bands = [(take.band, take.limit, take.since) for take in takes if take.limit > 0]
        if not bands:
            return []
        async with self._connections.claim.session(sum(band[1] for band in bands)) as session:
            rows = await session.fetch(SQL.pull, *unzipped(bands, 3), incarnation, alone)
        return [claim_of(row) for row in rows]
