"""Settling: how attempts ended, and the repair of what was lost.

The fence is the DELETE of the running row; only what it returns is written. Plain outcomes and requeues are one statement
each; an outcome with children is a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from runtime.adapters.postgres.accepting import accept_on
from runtime.adapters.postgres.connections import Connection, Connections
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.translate import ContentRefused, TryAgain
from runtime.core.task import (
    ErrorInfo,
    Finish,
    KeyReused,
    Orphan,
    Progress,
    Requeue,
    Settlement,
    Undone,
    Verdict,
)

_TRIES: Final = 5
Identity = tuple[UUID, int, int]  # id, attempt, incarnation


class Settling:
    _connections: Connections

    async def settle(self, settlements: Sequence[Settlement]) -> list[Verdict]:
        verdicts: dict[int, Verdict] = {}
        seen: set[Identity] = set()
        first: list[int] = []
        for place, one in enumerate(settlements):
            if (identity := (one.id, one.attempt, one.incarnation)) not in seen:
                seen.add(identity)
                first.append(place)
        first.sort(key=lambda place: settlements[place].id)
        await self._settle_some(settlements, first, verdicts)
        late = [place for place in range(len(settlements)) if place not in verdicts]
        if late:
            verdicts |= await self._look_back(settlements, late)
        return [verdicts[place] for place in range(len(settlements))]

    async def _settle_some(
        self, settlements: Sequence[Settlement], places: list[int], verdicts: dict[int, Verdict]
    ) -> None:
        """Where PostgreSQL refuses the content of some row, halves go alone until the guilty one stands alone."""
        if not places:
            return
        try:
            done = await self._settle_repeatedly([settlements[place] for place in places])
        except ContentRefused:
            if len(places) == 1:
                verdicts[places[0]] = Verdict.REFUSED
                return
            half = len(places) // 2
            await self._settle_some(settlements, places[:half], verdicts)
            await self._settle_some(settlements, places[half:], verdicts)
            return
        for place in places:
            one = settlements[place]
            if (one.id, one.attempt, one.incarnation) in done:
                verdicts[place] = Verdict.COMMITTED

    async def _settle_repeatedly(self, settlements: Sequence[Settlement]) -> set[Identity]:
        for attempt in range(_TRIES):
            try:
                async with self._connections.settle.connection() as connection:
                    return await _settle_on(connection, settlements)
            except TryAgain:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def _look_back(
        self, settlements: Sequence[Settlement], places: Sequence[int]
    ) -> dict[int, Verdict]:
        """Of those that did not match: a repeat of what was committed before, or late."""
        async with self._connections.settle.connection() as connection:
            rows = await connection.fetch(SQL.settled_before, [settlements[place].id for place in places])
        ends = {tuple(row) for row in rows}
        return {
            place: Verdict.COMMITTED if _end_of(settlements[place]) in ends else Verdict.FENCED
            for place in places
        }

    async def orphans(self, limit: int) -> list[Orphan]:
        async with self._connections.read.connection() as connection:
            return [Orphan(**row) for row in await connection.fetch(SQL.orphans, max(limit, 0))]

    async def held(self, incarnation: int) -> list[Orphan]:
        async with self._connections.read.connection() as connection:
            return [Orphan(**row) for row in await connection.fetch(SQL.held, incarnation)]

    async def expire(self, limit: int) -> list[UUID]:
        async with self._connections.read.connection() as connection:
            return [row["id"] for row in await connection.fetch(SQL.expire, max(limit, 0))]

    async def report_progress(self, incarnation: int, reports: Mapping[tuple[UUID, int], Progress]) -> None:
        ordered = sorted(reports.items(), key=lambda item: item[0])
        async with self._connections.read.connection() as connection:
            await connection.execute(
                SQL.report_progress,
                [key[0] for key, _ in ordered],
                [key[1] for key, _ in ordered],
                [orjson.dumps([p.done, p.total, p.message]).decode() for _, p in ordered],
                incarnation,
            )

    async def cancel_requests(self, incarnation: int) -> list[tuple[UUID, int]]:
        async with self._connections.read.connection() as connection:
            return [(row[0], row[1]) for row in await connection.fetch(SQL.cancel_requests, incarnation)]


async def _settle_on(connection: Connection, settlements: Sequence[Settlement]) -> set[Identity]:
    """Identities of those that were committed."""
    finishes: list[tuple[Settlement, Finish]] = []
    parents: list[tuple[Settlement, Finish]] = []
    requeues: list[tuple[Settlement, Requeue]] = []
    for one in settlements:
        if isinstance(one.move, Requeue):
            requeues.append((one, one.move))
        else:
            (parents if one.move.children else finishes).append((one, one.move))
    if parents:
        return await _with_parents(connection, finishes, requeues, parents)
    if finishes and requeues:
        async with connection.transaction():
            return await _finish(connection, finishes) | await _requeue(connection, requeues)
    return await _finish(connection, finishes) if finishes else await _requeue(connection, requeues)


async def _with_parents(
    connection: Connection,
    finishes: list[tuple[Settlement, Finish]],
    requeues: list[tuple[Settlement, Requeue]],
    parents: list[tuple[Settlement, Finish]],
) -> set[Identity]:
    async with connection.transaction():
        done = await _finish(connection, finishes) if finishes else set()
        if requeues:
            done |= await _requeue(connection, requeues)
        done |= (born := await _finish(connection, parents))
        families = [
            list(move.children) for one, move in parents if (one.id, one.attempt, one.incarnation) in born
        ]
        for answer in await accept_on(connection, families) if families else ():
            if any(isinstance(child, KeyReused | Undone) for child in answer):
                raise ContentRefused("a child's idempotency key was used for a different request")
    return done


async def _finish(connection: Connection, items: Sequence[tuple[Settlement, Finish]]) -> set[Identity]:
    moves = [move for _, move in items]
    results = [move.result for move in moves]
    codecs = [int(move.result_codec) for move in moves]
    errors = [_json(move.error) for move in moves]
    rows = await connection.fetch(
        SQL.finish,
        *_identities(items),
        [int(move.status) for move in moves],
        results,
        codecs if any(codecs) else None,
        errors if any(errors) else None,
        [move.failures for move in moves],
        [move.crashes for move in moves],
    )
    return {(row[0], row[1], row[2]) for row in rows}


async def _requeue(connection: Connection, items: Sequence[tuple[Settlement, Requeue]]) -> set[Identity]:
    moves = [move for _, move in items]
    rows = await connection.fetch(
        SQL.requeue,
        *_identities(items),
        [int(move.kind) for move in moves],
        [move.delay_s for move in moves],
        [int(move.reason) for move in moves],
        [move.failures for move in moves],
        [move.crashes for move in moves],
        [move.suspect for move in moves],
        [_json(move.error) for move in moves],
    )
    return {(row[0], row[1], row[2]) for row in rows}


def _identities(items: Sequence[tuple[Settlement, Any]]) -> tuple[list[UUID], list[int], list[int]]:
    return [s.id for s, _ in items], [s.attempt for s, _ in items], [s.incarnation for s, _ in items]


def _end_of(one: Settlement) -> tuple[UUID, int, int, int | None, int | None]:
    if isinstance(one.move, Finish):
        return one.id, one.attempt, one.incarnation, int(one.move.status), None
    return one.id, one.attempt, one.incarnation, None, int(one.move.kind)


def _json(error: ErrorInfo | None) -> str | None:
    if error is None:
        return None
    try:
        return orjson.dumps(
            {"type": error.type, "message": error.message, "traceback": error.traceback}
        ).decode()
    except TypeError as surrogate:
        raise ContentRefused(f"an error's text cannot be stored: {surrogate}") from surrogate
