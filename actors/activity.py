"""What this node has been doing lately: the log of task events, rates per second, recent failures.

All bounded. Readers of the log hold a position in it, not a queue: a slow reader finds a gap, and costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from runtime.core.task import Census, State

EVENTS_KEPT: Final = 10_000
FAILURES_KEPT: Final = 50
RATE_WINDOW_S: Final = 120
_LATENCIES_KEPT: Final = 1_000
_RUN_TIMES_KEPT: Final = 200  # of each handler


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """A task changed its state on this node. `sequence` only grows."""

    sequence: int
    id: UUID
    handler: str
    state: State
    attempt: int
    at: datetime
    error_type: str | None = None
    run_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """The reader was too slow, or asked for events that are no longer kept; `missed` of them."""

    missed: int


@dataclass(frozen=True, slots=True)
class Failure:
    id: UUID
    handler: str
    attempt: int
    final: bool
    error_type: str
    message: str
    at: datetime


News = tuple[
    UUID, str, State, int, str | None, float | None
]  # id, handler, state, attempt, error type, run_s


class EventLog:
    def __init__(self, wall: Callable[[], datetime], keep: int = EVENTS_KEPT) -> None:
        self._wall = wall
        self._kept: deque[tuple[datetime, News]] = deque(maxlen=keep)
        self._next = 1
        self._readers: dict[asyncio.Event, bool] = {}  # and whether it wants to hear of starts

    def publish(
        self,
        task_id: UUID,
        handler: str,
        state: State,
        attempt: int,
        error_type: str | None = None,
        run_s: float | None = None,
    ) -> None:
        self.publish_all([(task_id, handler, state, attempt, error_type, run_s)])

    def publish_all(self, news: Sequence[News]) -> None:
        """Several at the same instant."""
        at = self._wall()
        self._kept.extend([(at, one) for one in news])
        self._next += len(news)
        for reader in self._readers:
            reader.set()

    @property
    def wants_starts(self) -> bool:
        """Whether anybody follows the log who wants to hear of starts."""
        return any(self._readers.values())

    @property
    def newest(self) -> int:
        """The last sequence number; 0 before the first."""
        return self._next - 1

    @contextmanager
    def subscribe(self, after: int | None = None) -> Iterator[AsyncIterator[TaskEvent | Gap]]:
        """Events after that sequence number (None: from now on), then live ones, without end."""
        with self.subscribe_batches(after) as batches:
            yield (event async for batch in batches for event in batch)

    @contextmanager
    def subscribe_batches(
        self, after: int | None = None, *, starts: bool = True
    ) -> Iterator[AsyncIterator[Sequence[TaskEvent | Gap]]]:
        """The same, as many at once as there are (500 at most); a gap comes alone."""
        news = asyncio.Event()
        self._readers[news] = starts
        try:  # a greater number is of an earlier start of this node
            yield self._read(self.newest if after is None else min(after, self.newest), news)
        finally:
            del self._readers[news]

    async def _read(self, position: int, news: asyncio.Event) -> AsyncIterator[Sequence[TaskEvent | Gap]]:
        while True:
            news.clear()
            oldest = self._next - len(self._kept)
            if position + 1 < oldest:
                yield [Gap(oldest - 1 - position)]
                position = oldest - 1
            if batch := self.since(position):
                yield batch
                position = batch[-1].sequence
            if position == self.newest:
                await news.wait()

    def since(self, sequence: int, limit: int = 500) -> list[TaskEvent]:
        """Those after it that are still kept, the oldest first, as many as that."""
        oldest = self._next - len(self._kept)
        first = max(0, sequence + 1 - oldest)
        last = min(len(self._kept), first + limit)
        return [
            TaskEvent(
                sequence=oldest + index, id=id_, handler=handler, state=state, attempt=attempt, at=at,
                error_type=error_type, run_s=run_s,
            )
            for index in range(first, last)
            for at, (id_, handler, state, attempt, error_type, run_s) in (self._kept[index],)
        ]  # fmt: skip


class Rates:
    """Counts per second over the last RATE_WINDOW_S seconds, by name."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._names: dict[str, deque[tuple[int, int]]] = {}

    def add(self, name: str, count: int = 1) -> None:
        second = int(self._now_s())
        series = self._names.setdefault(name, deque(maxlen=RATE_WINDOW_S + 1))
        if series and series[-1][0] == second:
            series[-1] = (second, series[-1][1] + count)
        else:
            series.append((second, count))

    def series(self, name: str) -> list[int]:
        """Counts of the last RATE_WINDOW_S whole seconds, oldest first."""
        now = int(self._now_s())
        found = dict(self._names.get(name, ()))
        return [found.get(second, 0) for second in range(now - RATE_WINDOW_S, now)]

    def per_s(self, name: str, over_s: int = 10) -> float:
        """Mean of the last whole seconds."""
        now, total = int(self._now_s()), 0
        for second, count in reversed(self._names.get(name, ())):
            if second < now - over_s:
                break
            total += count if second < now else 0
        return total / over_s


class HandlerWork:
    """How attempts of each handler ended on this node, and how long they took. As many as there are handlers."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._succeeded = Rates(now_s)
        self._failed = Rates(now_s)
        self._run_s: dict[str, deque[float]] = {}

    def succeeded(self, handler: str, count: int) -> None:
        self._succeeded.add(handler, count)

    def failed(self, handler: str) -> None:
        """An attempt, whether it is tried again or not."""
        self._failed.add(handler)

    def took(self, handler: str, run_s: Sequence[float]) -> None:
        """A few samples of how long bodies ran."""
        self._run_s.setdefault(handler, deque(maxlen=_RUN_TIMES_KEPT)).extend(run_s)

    def per_s(self, handler: str) -> tuple[float, float]:
        """Attempts that succeeded and that failed, means of the last 10 s."""
        return self._succeeded.per_s(handler), self._failed.per_s(handler)

    def run_times(self, handler: str) -> tuple[float, float] | None:
        """p50 and p95 in seconds, of the last samples; None before the first."""
        samples = self._run_s.get(handler)
        if not samples:
            return None
        ordered = sorted(samples)
        return ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key of an actor that was among the busiest of late."""

    actor: str
    key: str
    per_s: float


@dataclass(frozen=True, slots=True)
class NextFire:
    """A schedule that fires next."""

    tenant: str
    name: str
    at: datetime


class Activity:
    def __init__(self, now_s: Callable[[], float], wall: Callable[[], datetime]) -> None:
        self._wall = wall
        self._now_s = now_s
        self.events = EventLog(wall)
        self.rates = Rates(now_s)
        self.failures: deque[Failure] = deque(maxlen=FAILURES_KEPT)
        self.census: Census | None = None  # the last one; None before the first
        self.handlers = HandlerWork(now_s)
        self.hot_keys: tuple[HotKey, ...] = ()  # the hottest first
        self.next_fires: tuple[NextFire, ...] = ()  # the earliest first
        self.load: Mapping[str, object] | None = None  # of this node, about a second old (actors.load)
        self._counted_s = 0.0
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    def counted(self, census: Census) -> None:
        self.census, self._counted_s = census, self._now_s()

    @property
    def census_age_s(self) -> float:
        return self._now_s() - self._counted_s

    def failed(
        self, task_id: UUID, handler: str, attempt: int, *, final: bool, error_type: str, message: str
    ) -> None:
        self.handlers.failed(handler)
        self.failures.append(
            Failure(task_id, handler, attempt, final, error_type, message[:300], self._wall())
        )

    def latency(self, seconds: float) -> None:
        """From due to outcome."""
        self._latencies_s.append(seconds)

    def latency_percentiles(self) -> dict[str, float] | None:
        if not self._latencies_s:
            return None
        ordered = sorted(self._latencies_s)
        return {f"p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (50, 90, 99)}
