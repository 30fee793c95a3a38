"""Time for the kernel: monotonic seconds, timers and sleep behind one small protocol.

Law: whatever must wait under a test's control (timers, ask deadlines, restart back-off) asks a `Clock`, never
`time`. Wall time is for display and storage only; no decision is made by it.
"""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

QUIET_TURNS: Final = 50  # loop turns without a change after which ManualClock takes the loop to be settled
BUSY_POLL_S: Final = 0.001  # real seconds between two looks at `busy`
BUSY_LIMIT_S: Final = 1.0  # real seconds that one settling waits for `busy` work, e.g. in threads

T = TypeVar("T")


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run."""
        ...


class Clock(Protocol):
    """What the kernel may know about time."""

    def now_s(self) -> float:
        """Monotonic seconds since an arbitrary moment."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` in the loop's thread after `delay_s` seconds (at the next turn when <= 0)."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait `delay_s` seconds."""
        ...

    def wall(self) -> datetime:
        """UTC now, for display only: it may jump."""
        ...


def settle(future: asyncio.Future[T], value: T) -> None:
    """Give `future` its result unless it has one: a callback for timers."""
    if not future.done():
        future.set_result(value)


class SystemClock:
    """The running loop's time, so under a virtual-time loop it is virtual; or a given monotonic clock's."""

    def __init__(self, now_s: Callable[[], float] | None = None) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        return asyncio.get_running_loop().time() if self._now_s is None else self._now_s()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def wall(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """Time that moves only when `advance` is awaited; the loop below it is a real one.

    `busy` says whether work that the loop cannot see (threads, processes) is under way.
    """

    def __init__(self, start: datetime | None = None, *, busy: Callable[[], bool] = lambda: False) -> None:
        self._start = start or datetime(2030, 1, 1, tzinfo=UTC)
        self._busy = busy
        self._now_s = 0.0
        self._timers: list[_ManualTimer] = []
        self._set = 0  # timers so far

    def now_s(self) -> float:
        return self._now_s

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        self._set += 1
        timer = _ManualTimer(self._now_s + max(0.0, delay_s), self._set, callback)
        heapq.heappush(self._timers, timer)
        return timer

    async def sleep(self, delay_s: float) -> None:
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay_s, partial(settle, woken, None))
        try:
            await woken
        finally:
            timer.cancel()

    def wall(self) -> datetime:
        return self._start + timedelta(seconds=self._now_s)

    async def advance(self, seconds: float) -> None:
        """Move time forward, firing due timers one by one in order, and let the loop settle around each.

        Raises ValueError for a negative or infinite step.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"advance({seconds!r}): must be a finite number of seconds, 0 or more")
        until_s = self._now_s + seconds
        await self.settle()
        while self._timers and self._timers[0].due_s <= until_s:
            timer = heapq.heappop(self._timers)
            if timer.callback is None:
                continue
            self._now_s = max(self._now_s, timer.due_s)
            timer.callback()
            await self.settle()
        self._now_s = until_s

    def skip(self, seconds: float) -> None:
        """Move time forward at once, as for a process that was stopped: the next `advance` fires what has come due
        meanwhile, late. For long times in which nothing happens but ticking.

        Raises ValueError for a negative or infinite step.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"skip({seconds!r}): must be a finite number of seconds, 0 or more")
        self._now_s += seconds

    async def settle(self) -> None:
        """Yield until the loop has nothing left to run but this, or nothing has moved for QUIET_TURNS loop turns.

        Moving means: a timer was set, or a task began or ended. So a chain of more than QUIET_TURNS plain
        awaits without either is cut short, and I/O is not waited for. While `busy()`, real time passes, at
        most BUSY_LIMIT_S per call.
        """
        loop = asyncio.get_running_loop()
        patience_s = loop.time() + BUSY_LIMIT_S
        seen, quiet = self._progress(), 0
        while quiet < QUIET_TURNS:
            waits = self._busy() and loop.time() < patience_s
            await asyncio.sleep(BUSY_POLL_S if waits else 0)
            if not waits and _is_idle(loop):
                return
            now = self._progress()
            quiet = 0 if waits or now != seen else quiet + 1
            seen = now

    def _progress(self) -> tuple[int, set[asyncio.Task[object]]]:
        return self._set, asyncio.all_tasks()


def _is_idle(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether only the caller runs and nothing is to run after it; False where a loop does not tell (uvloop).

    asyncio's own attribute is read, not called: turns have to be counted without it, and that is a hundred times slower.
    """
    ready: Sized | None = getattr(loop, "_ready", None)
    return ready is not None and not ready


class _ManualTimer:
    __slots__ = ("callback", "due_s", "order")

    def __init__(self, due_s: float, order: int, callback: Callable[[], object]) -> None:
        self.due_s = due_s
        self.order = order
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: _ManualTimer) -> bool:
        return (self.due_s, self.order) < (other.due_s, other.order)
