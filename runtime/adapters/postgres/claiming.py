"""Claims: waiting rows turned into running rows of an incarnation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from runtime.adapters.postgres.connections import Connections
from runtime.adapters.postgres.queries import SQL
from runtime.core.task import Claim, Codec, Take

_CODECS: Final = {int(codec): codec for codec in Codec}


class Claiming:
    """Never repeated by itself: an answer that is lost shows in `held`."""

    _connections: Connections

    async def claim(self, offers: Sequence[tuple[UUID, int]], incarnation: int) -> list[Claim]:
        ordered = sorted(offers)
        ids, attempts = [offer[0] for offer in ordered], [offer[1] for offer in ordered]
        async with self._connections.claim.connection() as connection:
            return [_claim(row) for row in await connection.fetch(SQL.claim, ids, attempts, incarnation)]

    async def pull(self, takes: Sequence[Take], incarnation: int, *, alone: bool = False) -> list[Claim]:
        going = [take for take in takes if take.limit > 0]
        columns = ([t.band for t in going], [t.limit for t in going], [t.since for t in going])
        async with self._connections.claim.connection() as connection:
            return [_claim(row) for row in await connection.fetch(SQL.pull, *columns, incarnation, alone)]


def _claim(row: asyncpg.Record) -> Claim:
    (
        id_, attempt, band, slot, seq, failures, crashes, payload, codec, max_attempts, timeout_s, started_at, waited_s,
        created_at, idempotency_key, actor_key, metadata, trace_context, created_by, expired, alone,
    ) = row  # fmt: skip
    return Claim(
        id=id_,
        attempt=attempt,
        band=band,
        slot=slot,
        seq=seq,
        failures=failures,
        crashes=crashes,
        payload=payload,
        payload_codec=_CODECS[codec],
        max_attempts=max_attempts,
        timeout_s=timeout_s,
        started_at=started_at,
        waited_s=waited_s,
        created_at=created_at,
        idempotency_key=idempotency_key,
        actor_key=actor_key,
        metadata=None if metadata is None else metadata.encode(),
        trace_context=trace_context,
        created_by=created_by or "",
        expired=bool(expired),
        alone=alone,
    )
