"""Limits of handlers, and claims under them.

Law: the row of a limiter is its lock, held from the count to the commit of what it let begin. A claim takes two
statements of one transaction, because the second must see what was committed before the lock was got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from runtime.adapters.postgres.connections import unzipped
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import claim_of, uuid_of
from runtime.core.limits import (
    FRONT_MAX,
    KEYS_MAX,
    HandlerLimit,
    Limit,
    LimitedPull,
    LimitedTake,
    Per,
    Rate,
    Seen,
    afters,
    soonest_s,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    import asyncpg

    from runtime.adapters.postgres.connections import Connections, Session
    from runtime.core.task import Claim

_BUSY_S: Final = 0.02  # somebody else claims under the same limit


class Limits:
    _connections: Connections

    async def limits(self) -> list[HandlerLimit]:
        """Raises Unavailable, Overloaded."""
        return [_limit_of(row) for row in await self._connections.sweep.fetch(SQL.limits)]

    async def declare_limits(self, limits: Mapping[str, Limit]) -> None:
        names = sorted(limits)
        await self._connections.sweep.fetch(SQL.declare_limits, names, [_json_of(limits[n]) for n in names])

    async def set_limit(self, handler: str, limit: Limit, by: str) -> None:
        rate: tuple[int | None, float | None, int | None] = (None, None, None)
        if limit.rate is not None:
            rate = (limit.rate.count, limit.rate.period_s, limit.rate.burst)
        await self._connections.sweep.fetch(SQL.set_limit, handler, *rate, limit.max_running, by)

    async def unset_limit(self, handler: str) -> bool:
        return bool(await self._connections.sweep.fetch(SQL.unset_limit, handler))

    async def forget_limiters(self, older_than_s: float, limit: int) -> int:
        rows = await self._connections.sweep.fetch(SQL.forget_limiters, older_than_s, max(limit, 0))
        return len(rows)

    async def pull_limited(
        self, takes: Sequence[LimitedTake], limit: int, incarnation: int, *, alone: bool = False
    ) -> LimitedPull:
        """Never repeated by itself, as a claim is not. Raises Unavailable, Overloaded."""
        if not takes or limit <= 0:
            return LimitedPull()
        asked = unzipped([(take.band, take.after) for take in takes], 2)
        async with self._connections.claim.session(limit) as session:
            rows = await session.fetch(SQL.limited, *asked, KEYS_MAX, FRONT_MAX)
            seen = [Seen(row[0], uuid_of(row[1]), *row[2:]) for row in rows]
            can_begin = [one for one in seen if one.is_open]
            rest = afters(takes, seen)
            if not can_begin:
                return LimitedPull((), soonest_s(seen), rest)
            claims = await _claim(session, can_begin, limit, incarnation, alone=alone)
        return LimitedPull(tuple(claims), 0.0 if claims else _BUSY_S, rest)


async def _claim(
    session: Session, seen: Sequence[Seen], limit: int, incarnation: int, *, alone: bool
) -> list[Claim]:
    async with session.transaction():
        locked = await _lock(session, sorted({one.limiter for one in seen}, key=lambda each: each.int))
        columns = unzipped([(o.band, o.limiter, o.by_key) for o in seen if o.limiter in locked], 3)
        if not columns[0]:
            return []
        rows = await session.fetch(SQL.claim_limited, *columns, FRONT_MAX, limit, incarnation, alone)
    return [claim_of(row) for row in rows]


async def _lock(session: Session, limiters: list[UUID]) -> set[UUID]:
    """Those whose rows are ours until the end of this transaction."""
    locked = {row[0] for row in await session.fetch(SQL.lock_limiters, limiters)}
    if len(locked) < len(limiters):
        absent = [limiter for limiter in limiters if limiter not in locked]
        locked.update(row[0] for row in await session.fetch(SQL.make_limiters, absent))
    return locked


def _limit_of(row: asyncpg.Record) -> HandlerLimit:
    handler, count, period_s, burst, max_running, per, declared, set_by = row
    rate = None if count is None else Rate(count, period_s, burst)
    said = None if declared is None else _declared(orjson.loads(declared))
    return HandlerLimit(handler, Limit(rate, max_running, Per(per)), said, set_by)


def _declared(values: Mapping[str, Any]) -> Limit:
    rate = None if values["count"] is None else Rate(values["count"], values["period_s"], values["burst"])
    return Limit(rate, values["max_running"], Per(values["per"]))


def _json_of(limit: Limit) -> str | None:
    if limit.is_open:
        return None
    rate = limit.rate
    return orjson.dumps(
        {
            "count": None if rate is None else rate.count,
            "period_s": None if rate is None else float(rate.period_s),
            "burst": None if rate is None else rate.burst,
            "max_running": limit.max_running,
            "per": limit.per.value,
        }
    ).decode()
