"""Limits on what begins: so many starts per time, so many that run at once. Formulas, and what they are about.

Law: the rate is GCRA, the generic cell rate algorithm (ATM Forum, Traffic Management 4.0, 1996; Brandur Leach, "Rate
limiting, cells, and GCRA", 2015). All that is kept is one instant, the theoretical arrival time (TAT). With the
interval T = period / count, n starts at `now` are allowed while

    max(TAT, now) + n * T - now <= burst * T

and then TAT becomes max(TAT, now) + n * T. So in any window of w seconds at most burst + w / T begin, in whatever
order the clocks of those who asked had stood. An instant cannot leak: nobody has to give anything back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from math import floor
from typing import TYPE_CHECKING, Final
from uuid import UUID

from runtime.core.keyed import actor_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.core.task import Claim

KEYS_MAX: Final = 100  # of one band, in one look
FRONT_MAX: Final = 200  # rows of a band among which a look finds those that should name a key and name none
FIRST_KEY: Final = UUID(int=0)  # before all keys
BURST_MAX: Final = 1_000_000
RUNNING_MAX: Final = 1_000_000
_BURST_S: Final = 0.2  # what comes in this time may begin at once, where nothing else is said
_ROUNDING: Final = 1e-6  # of a start: what binary fractions of T lose
_PERIOD_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?(s|min|h|d)")


class Per(StrEnum):
    """What has a limit of its own: the handler as a whole, each tenant of it, or each key that tasks name."""

    HANDLER = "handler"
    TENANT = "tenant"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` starts per `period_s` seconds; after a pause at most `burst` at once."""

    count: int
    period_s: float
    burst: int

    @classmethod
    def of(cls, count: int, period_s: float, burst: int | None = None) -> Rate:
        """Without a burst: one start, and what comes in a fifth of a second."""
        return cls(count, period_s, 1 + int(count * _BURST_S / period_s) if burst is None else burst)

    @classmethod
    def parse(cls, text: str, burst: int | None = None) -> Rate:
        """`"100/s"`, `"5/min"`, `"1000/10min"`. Raises ValueError."""
        match = _RATE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f"{text!r} is not a count per period, such as '100/s', '5/min', '1000/h' or '10/30s'"
            )
        count, periods, unit = match.groups()
        return cls.of(int(count), int(periods or 1) * _PERIOD_S[unit], burst)

    @property
    def interval_s(self) -> float:
        """T: how far apart starts are when all is used."""
        return self.period_s / self.count

    def __str__(self) -> str:
        for unit, unit_s in reversed(_PERIOD_S.items()):
            periods, rest = divmod(self.period_s, unit_s)
            if not rest:
                return f"{self.count}/{'' if periods == 1 else int(periods)}{unit}"
        return f"{self.count}/{self.period_s:g}s"


@dataclass(frozen=True, slots=True)
class Limit:
    """Both may be set. Each handler, tenant or key (`per`) has all of it for itself, in the whole cluster."""

    rate: Rate | None = None
    max_running: int | None = None
    per: Per = Per.HANDLER

    @property
    def is_open(self) -> bool:
        """Whether it limits nothing."""
        return self.rate is None and self.max_running is None

    def __str__(self) -> str:
        parts = [] if self.rate is None else [f"{self.rate} with bursts of {self.rate.burst}"]
        if self.max_running is not None:
            parts.append(f"{self.max_running} running at once")
        each = "" if self.per is Per.HANDLER else f" for each {self.per}"
        return (" and ".join(parts) or "no limit") + each


@dataclass(frozen=True, slots=True)
class HandlerLimit:
    """The limit of a handler as the record has it: what its code declares, unless somebody `set_by` another one."""

    handler: str
    limit: Limit
    declared: Limit | None = None
    set_by: str | None = None


def in_force(limits: Iterable[HandlerLimit]) -> dict[str, Limit]:
    """By handler, those that limit anything."""
    return {each.handler: each.limit for each in limits if not each.limit.is_open}


@dataclass(frozen=True, slots=True)
class LimitedTake:
    """Look in this band (negative: its suspects) for what may begin; of keys for those after `after`."""

    band: int
    after: UUID = FIRST_KEY


@dataclass(frozen=True, slots=True)
class Seen:
    """Rows of a band wait under one limiter. None: that does not limit them.

    `by_key`: they name the key whose limiter it is. `is_due`: some of them are due.
    """

    band: int
    limiter: UUID
    by_key: bool
    rate_room: int | None
    running_room: int | None
    wait_s: float | None  # until the rate lets one begin
    is_due: bool = True

    @property
    def is_open(self) -> bool:
        """Whether something may begin."""
        return self.is_due and _has_room(self.rate_room) and _has_room(self.running_room)


@dataclass(frozen=True, slots=True)
class LimitedPull:
    """What a pull under limits came to.

    `again_s`: when more may begin, as far as time alone decides; None: not before something else happens. `afters`:
    where the next pull goes on among the keys of each band.
    """

    claims: tuple[Claim, ...] = ()
    again_s: float | None = None
    afters: Mapping[int, UUID] = field(default_factory=dict)


def _has_room(room: int | None) -> bool:
    return room is None or room > 0


def soonest_s(seen: Iterable[Seen]) -> float | None:
    """When time alone lets one of these begin."""
    waits = (
        one.wait_s for one in seen
        if one.is_due and _has_room(one.running_room) and not _has_room(one.rate_room)
    )  # fmt: skip
    return min((wait for wait in waits if wait is not None), default=None)


def afters(takes: Iterable[LimitedTake], seen: Iterable[Seen]) -> dict[int, UUID]:
    """Where to go on in each band: after the last key of a full page, else from the first key on."""
    keys: dict[int, list[UUID]] = {take.band: [] for take in takes}
    for one in seen:
        if one.by_key:
            keys[one.band].append(one.limiter)
    return {band: max(of, key=_number) if len(of) >= KEYS_MAX else FIRST_KEY for band, of in keys.items()}


def _number(one: UUID) -> int:
    return one.int


def limiter_id(handler: str, per: Per, tenant: str = "", key: str | None = None) -> UUID:
    """What counts together under one limit; the same in SQL (`noria.actor_id`)."""
    return actor_id("" if per is Per.HANDLER else tenant, handler, (key or "") if per is Per.KEY else "")


# -- GCRA; instants are seconds on one clock ----------------------------------------------------------


def room(rate: Rate, tat_s: float, now_s: float) -> int:
    """How many may begin now."""
    ahead = max(0.0, tat_s - now_s) / rate.interval_s
    return max(0, floor(rate.burst - ahead + _ROUNDING))


def wait_s(rate: Rate, tat_s: float, now_s: float) -> float:
    """How long until at least one may begin."""
    return max(0.0, tat_s - now_s - (rate.burst - 1) * rate.interval_s)


def after_starts(rate: Rate, tat_s: float, now_s: float, count: int) -> float:
    """The new TAT."""
    return max(tat_s, now_s) + count * rate.interval_s
