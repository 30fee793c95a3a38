"""When a schedule fires: rules, their next times, and what is done about those that were missed.

Law: fire times are instants, and follow from the rule alone: every node that computes them gets the same ones.
A cron rule goes by the wall clock of its zone. Where clocks change, a time that does not exist fires at the change
and one that exists twice fires the first time only; a rule for every hour (`*`) goes on by elapsed time, so that
`*/5 * * * *` never pauses for an hour. An interval is elapsed time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from cronsim import CronSim, CronSimError

from runtime.core.task import DEFAULT_TENANT, NewTask

if TYPE_CHECKING:
    from collections.abc import Iterator

CRON_CHARS_MAX: Final = 255
EVERY_S_MIN: Final = 1.0
EVERY_S_MAX: Final = 366 * 86_400.0
CATCH_UP_MAX: Final = 1_000
MISSED_AFTER_S: Final = 10.0  # late by more, a fire time counts as missed
OPEN_MAX: Final = 100  # unended tasks that an overlap policy looks at
_HOURS: Final = frozenset(range(24))
_SECOND: Final = timedelta(seconds=1)


class CatchUp(StrEnum):
    """What is done about fire times that nobody was there for."""

    SKIP = "skip"
    LAST = "last"  # the newest of them
    ALL = "all"  # the newest `catch_up_max` of them


class Overlap(StrEnum):
    """What is done when a task of the schedule has not ended at the next fire time."""

    ALLOW = "allow"
    SKIP = "skip"
    CANCEL_OLD = "cancel_old"


class Rule(Protocol):
    """Both ways are strict: neither yields the instant given. Instants are aware, in UTC."""

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Fire times, ascending; ends where there is none within fifty years."""
        ...

    def before(self, instant: datetime) -> Iterator[datetime]:
        """Fire times, descending."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Fires each `every_s` seconds, counted from `origin`, which is a fire time itself."""

    every_s: float
    origin: datetime

    def after(self, instant: datetime) -> Iterator[datetime]:
        return self._on(instant, 1)

    def before(self, instant: datetime) -> Iterator[datetime]:
        return self._on(instant, -1)

    def _on(self, instant: datetime, step: int) -> Iterator[datetime]:
        every = timedelta(seconds=self.every_s)
        count = (instant - self.origin) // every
        at = self.origin + count * every
        if step > 0 or at == instant:
            at += step * every
        while True:
            yield at
            at += step * every


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields, or six with the seconds first, on the wall clock of `zone`. Raises ValueError."""

    expression: str
    zone: tzinfo

    def __post_init__(self) -> None:
        if len(self.expression) > CRON_CHARS_MAX:
            raise ValueError(f"{len(self.expression)} characters; at most {CRON_CHARS_MAX} are allowed")
        try:
            CronSim(self.expression, datetime(2000, 1, 1))  # noqa: DTZ001 - wall clock
        except CronSimError as wrong:
            raise ValueError(
                f"{str(wrong).lower()} in {self.expression!r}; allowed are five fields (minute hour day month "
                "weekday), or six with the second first"
            ) from None

    def after(self, instant: datetime) -> Iterator[datetime]:
        return self._on(instant, back=False)

    def before(self, instant: datetime) -> Iterator[datetime]:
        return self._on(instant, back=True)

    def _on(self, instant: datetime, *, back: bool) -> Iterator[datetime]:
        hourly = _HOURS.issubset(CronSim(self.expression, _wall(instant, timedelta())).hours)
        return self._elapsed(instant, back) if hourly else self._by_wall(instant, back)

    def _elapsed(self, last: datetime, back: bool) -> Iterator[datetime]:
        """All instants whose wall clock matches. Until clocks change, wall clock and UTC differ by one offset; what
        is found under it but lies behind a change is looked for again, under the offset behind that."""
        here = self._offset(last)
        while True:
            there = here
            for match in self._matches(_wall(last, here), back):
                at = _instant(match, here)
                if (there := self._offset(at)) != here:
                    break
                yield (last := at)
            else:
                return
            found = (_instant(match, there) for match in self._matches(_wall(last, there), back))
            behind = next((at for at in found if self._offset(at) == there), None)
            if behind is None:
                return
            yield (last := behind)
            here = there

    def _by_wall(self, last: datetime, back: bool) -> Iterator[datetime]:
        """The instants that matching times of the wall clock stand for."""
        start = _wall(last, self._offset(last))
        if back:  # after clocks went back, earlier instants have later times
            start = _wall(last, max(self._offset(last), self._offset(last - timedelta(days=1)))) + _SECOND
        for match in self._matches(start, back):
            at = self._resolve(match)
            if (at < last) if back else (at > last):
                yield (last := at)

    def _matches(self, start: datetime, back: bool) -> Iterator[datetime]:
        return CronSim(self.expression, start, reverse=back)

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self.zone).utcoffset() or timedelta()

    def _resolve(self, wall: datetime) -> datetime:
        """The first instant at which clocks show this time; the change of clocks where they never do."""
        at = wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if at.astimezone(self.zone).replace(tzinfo=None) == wall:
            return at
        low = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)  # before the change, as `at` is after it
        before = self._offset(low)
        while at - low > _SECOND:
            middle = low + (at - low) // _SECOND // 2 * _SECOND
            if self._offset(middle) == before:
                low = middle
            else:
                at = middle
        return at


def _wall(instant: datetime, offset: timedelta) -> datetime:
    return instant.replace(tzinfo=None) + offset


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)


# -- schedules ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """What somebody asked for: either `cron` or `every_s`. `task` is a JSON object, the fields of a task of the HTTP
    contract, without key and times."""

    name: str
    task: bytes
    tenant: str = DEFAULT_TENANT
    cron: str | None = None
    every_s: float | None = None
    time_zone: str = "UTC"
    catch_up: CatchUp = CatchUp.LAST
    catch_up_max: int = 10
    overlap: Overlap = Overlap.ALLOW
    created_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule as the record has it. `revision` grows with every change, also with every fire."""

    spec: ScheduleSpec
    revision: int
    created_at: datetime
    changed_at: datetime
    next_fire_at: datetime | None  # None: it will never fire
    paused_at: datetime | None = None
    last_fire_at: datetime | None = None
    last_task_id: UUID | None = None
    fired: int = 0  # tasks so far
    missed: int = 0  # fire times left out by `catch_up`
    skipped: int = 0  # fire times left out by `overlap`
    unended: tuple[
        UUID, ...
    ] = ()  # tasks of it that wait or run; of all but the newest only where `overlap` asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """Store these tasks and move the schedule on, in one transaction, if it still has this revision."""

    tenant: str
    name: str
    revision: int
    next_fire_at: datetime | None
    tasks: tuple[NewTask, ...] = ()
    fired_at: datetime | None = None  # the newest fire time of the tasks
    missed: int = 0
    skipped: int = 0
    keep: tuple[UUID, ...] = ()  # older tasks that `overlap` goes on to look at

    @property
    def open(self) -> tuple[UUID, ...]:
        """What may not have ended from now on."""
        return (*self.keep, *(task.id for task in self.tasks))[-OPEN_MAX:]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now: a task for each of `fires` (ascending), and when to look again."""

    fires: tuple[datetime, ...]
    next_fire_at: datetime | None
    missed: int
    skipped: int


def rule_of(spec: ScheduleSpec, zone: tzinfo, origin: datetime) -> Rule:
    """`origin` is a fire time of an interval. Raises ValueError."""
    if spec.cron is not None:
        return Cron(spec.cron, zone)
    assert spec.every_s is not None, "either cron or every_s"
    return Every(spec.every_s, origin)


def plan(schedule: Schedule, rule: Rule, now: datetime) -> Plan:
    """Of a schedule that is due. At most CATCH_UP_MAX and what is due within MISSED_AFTER_S are counted: of a
    longer absence `missed` is a lower bound."""
    spec, first = schedule.spec, schedule.next_fire_at
    assert first is not None, "it is due"
    assert first <= now, "it is due"
    newest_first = [
        *_while_after(first, rule.before(now + timedelta(microseconds=1)), _LOOKED_AT_MAX),
        first,
    ]
    due = newest_first[::-1]
    fresh_from = now - timedelta(seconds=MISSED_AFTER_S)
    fresh = [at for at in due if at >= fresh_from]
    old = [at for at in due if at < fresh_from]
    if spec.catch_up is CatchUp.ALL:
        fires = old[-spec.catch_up_max :] + fresh
    elif spec.catch_up is CatchUp.LAST:
        fires = fresh or old[-1:]
    else:
        fires = fresh
    missed = len(due) - len(fires)
    kept = fires
    if spec.overlap is Overlap.SKIP and schedule.unended:
        kept = []
    elif spec.overlap is not Overlap.ALLOW:
        kept = fires[-1:]
    return Plan(tuple(kept), next(rule.after(now), None), missed, len(fires) - len(kept))


_LOOKED_AT_MAX: Final = CATCH_UP_MAX + round(MISSED_AFTER_S)


def _while_after(first: datetime, descending: Iterator[datetime], limit: int) -> Iterator[datetime]:
    for at in islice(descending, limit):
        if at <= first:
            return
        yield at


def fire_key(name: str, at: datetime) -> str:
    """The idempotency key of the task of a fire time."""
    return f"schedule:{name}:{at.astimezone(UTC).isoformat(timespec='microseconds').removesuffix('+00:00')}Z"
