"""Limits of handlers, and claims under them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final
from uuid import UUID

from runtime.adapters.memory.working import start
from runtime.core.limits import (
    FRONT_MAX,
    KEYS_MAX,
    HandlerLimit,
    Limit,
    LimitedPull,
    LimitedTake,
    Per,
    Seen,
    after_starts,
    afters,
    limiter_id,
    room,
    soonest_s,
    wait_s,
)
from runtime.core.task import Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.adapters.memory.names import Names
    from runtime.adapters.memory.tables import Due, Tables

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STRIDES: Final = {Lane.HIGH: 1, Lane.MEDIUM: 2, Lane.LOW: 8}


class Limits:
    def __init__(self, tables: Tables, names: Names) -> None:
        self._tables = tables
        self._names = names
        self._rows: dict[str, HandlerLimit] = {}
        self._tats_s: dict[UUID, float] = {}
        self._random = random.Random(0)  # noqa: S311 - turns, the same in every run

    # -- what counts --------------------------------------------------------------------------------

    def all(self) -> list[HandlerLimit]:
        return [row for _, row in sorted(self._rows.items())]

    def declare(self, limits: Mapping[str, Limit]) -> None:
        for handler, limit in limits.items():
            known = self._rows.get(handler)
            declared = None if limit.is_open else limit
            if known is None and declared is not None:
                self._rows[handler] = HandlerLimit(handler, limit, declared)
            elif known is not None:
                counts = replace(known.limit, per=limit.per) if known.set_by is not None else limit
                self._rows[handler] = replace(known, limit=counts, declared=declared)

    def set(self, handler: str, limit: Limit, by: str) -> None:
        known = self._rows.get(handler)
        counts = replace(limit, per=Per.HANDLER if known is None else known.limit.per)
        self._rows[handler] = HandlerLimit(handler, counts, None if known is None else known.declared, by)

    def unset(self, handler: str) -> bool:
        known = self._rows.get(handler)
        if known is None or known.set_by is None:
            return False
        self._rows[handler] = replace(known, limit=known.declared or Limit(), set_by=None)
        return True

    def forget(self, older_than_s: float, limit: int, now: datetime) -> int:
        before_s = _seconds(now) - older_than_s
        old = [limiter for limiter, tat_s in self._tats_s.items() if tat_s < before_s][: max(limit, 0)]
        for limiter in old:
            del self._tats_s[limiter]
        return len(old)

    # -- claims -------------------------------------------------------------------------------------

    def pull(
        self, takes: Sequence[LimitedTake], limit: int, incarnation: int, now: datetime, *, alone: bool
    ) -> LimitedPull:
        if limit <= 0:
            return LimitedPull()
        seen = [one for take in takes for one in self._look(take, now)]
        picked = self._drawn([one for one in seen if one.is_open], now)[:limit]
        claims = tuple(
            start(self._tables, self._tables.waiting[task_id], incarnation, now, alone=alone, limiter=limiter)
            for task_id, limiter, _ in picked
        )
        for _, limiter, limit_now in picked:
            if limit_now.rate is not None:
                tat_s = self._tats_s.get(limiter, 0.0)
                self._tats_s[limiter] = after_starts(limit_now.rate, tat_s, _seconds(now), 1)
        return LimitedPull(claims, 0.0 if claims else soonest_s(seen), afters(takes, seen))

    def _look(self, take: LimitedTake, now: datetime) -> list[Seen]:
        band = self._names.band(take.band)
        row = self._rows.get(band.handler)
        if row is None:
            return []
        per = row.limit.per
        found = []
        if next(self._rows_of(take.band, None, per, now), None) is not None:
            found.append(
                self._seen(
                    take.band, limiter_id(band.handler, per, band.tenant), row.limit, now, by_key=False
                )
            )
        if per is Per.KEY:
            keys = sorted(
                (
                    key
                    for number, key in self._tables.limited
                    if number == take.band and key.int > take.after.int
                ),
                key=lambda key: key.int,
            )
            found += [self._seen(take.band, key, row.limit, now, by_key=True) for key in keys[:KEYS_MAX]]
        return found

    def _seen(self, band: int, limiter: UUID, limit: Limit, now: datetime, *, by_key: bool) -> Seen:
        tat_s, now_s, rate = self._tats_s.get(limiter, 0.0), _seconds(now), limit.rate
        most = limit.max_running
        due = self._rows_of(band, limiter, Per.KEY, now) if by_key else iter(((now, 0, limiter),))
        return Seen(
            band,
            limiter,
            by_key,
            None if rate is None else room(rate, tat_s, now_s),
            None if most is None else most - self._tables.running_under[limiter],
            None if rate is None else wait_s(rate, tat_s, now_s),
            next(due, None) is not None,
        )

    def _rows_of(self, band: int, key: UUID | None, per: Per, now: datetime) -> Iterator[Due]:
        """What is due in a band: of this key, or what has no key where there should be one."""
        queue = self._tables.bands.get(band) if key is None else self._tables.limited.get((band, key))
        if queue is None:
            return iter(())
        due = takewhile(lambda place: place[0] <= now, queue.ascending())
        if key is not None:
            return due
        waiting = self._tables.waiting
        plain = (place for place in due if waiting[place[2]].actor is None)
        if per is not Per.KEY:
            return plain
        return (place for place in islice(plain, FRONT_MAX) if waiting[place[2]].limiter is None)

    def _drawn(self, seen: Sequence[Seen], now: datetime) -> list[tuple[UUID, UUID, Limit]]:
        """Ids that may begin, with limiter and limit: of each limiter its bands by chance, limiters row by row."""
        drawn: dict[UUID, list[tuple[float, UUID, Limit]]] = {}
        rooms: dict[UUID, int] = {}
        for one in seen:
            band = self._names.band(one.band)
            limit = self._rows[band.handler].limit
            rooms[one.limiter] = _smaller(one.rate_room, one.running_room)
            place, weight = 0.0, self._names.tenant_weight(band.tenant)
            key = one.limiter if one.by_key else None
            for _, _, task_id in islice(self._rows_of(one.band, key, limit.per, now), rooms[one.limiter]):
                place += self._random.expovariate(1.0) * _STRIDES[band.lane] / weight
                drawn.setdefault(one.limiter, []).append((place, task_id, limit))
        turns = [
            (nth, place, task_id, limiter, limit)
            for limiter, rows in drawn.items()
            for nth, (place, task_id, limit) in enumerate(
                sorted(rows, key=lambda row: row[0])[: rooms[limiter]]
            )
        ]
        turns.sort(key=lambda turn: turn[:2])
        return [(task_id, limiter, limit) for _, _, task_id, limiter, limit in turns]


def _smaller(rate_room: int | None, running_room: int | None) -> int:
    return min(_UNLIMITED if room is None else room for room in (rate_room, running_room))


_UNLIMITED: Final = 10_000  # more than anybody asks for at once


def _seconds(instant: datetime) -> float:
    return (instant - _EPOCH) / timedelta(seconds=1)
