"""Notices from outside that the event loop does not move, and says who holds it.

Law: the loop leaves a mark every TICK_S; a thread of its own looks at it, so it works while the loop cannot.
A process that was frozen as a whole (SIGSTOP, a paused machine) is not blamed on the loop: the thread sees
that it was itself not run and that no CPU time was used.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

TICK_S: Final = 0.05
FRAMES_MAX: Final = 8  # innermost frames in the log
REPORT_S: Final = 1.0  # how often the lag is reported

_log = logging.getLogger(__name__)


class Watchdog:
    """Watch the running loop: `with Watchdog(...):` in its thread.

    A stop of more than `block_s` is logged once, with `who()` and the top of the loop's stack, and again when
    it is over. After `stall_s` `on_stall(seconds)` is called, once per stop. `on_lag(lag_s)` gets the worst
    lag of every REPORT_S. All callbacks run in the watchdog's thread.
    """

    def __init__(
        self,
        *,
        who: Callable[[], str] | None = None,
        block_s: float = 0.25,
        stall_s: float = 30.0,
        on_stall: Callable[[float], object] | None = None,
        on_lag: Callable[[float], object] | None = None,
    ) -> None:
        if not TICK_S <= block_s < stall_s:
            raise ValueError(
                f"block_s {block_s!r}, stall_s {stall_s!r}: must be {TICK_S} <= block_s < stall_s"
            )
        self._who = who or self._running_task
        self._block_s = block_s
        self._stall_s = stall_s
        self._on_stall = on_stall
        self._on_lag = on_lag
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._handle: asyncio.TimerHandle | None = None
        self._mark_s = 0.0  # when the loop last moved
        self._stop_s = 0.0  # how long it stood before that, if longer than block_s
        self._lag_s = 0.0  # worst since the last report

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to watch the running loop, whose thread calls this."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._mark_s = time.monotonic()
        self._handle = self._loop.call_later(TICK_S, self._tick)
        self._thread.start()

    def stop(self) -> None:
        """End the watch; waits for the thread."""
        self._stop.set()
        if self._handle is not None:
            self._handle.cancel()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def age_s(self) -> float:
        """Seconds since the loop last moved (up to TICK_S is normal); callable from any thread."""
        return time.monotonic() - self._mark_s

    # -- in the loop -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = time.monotonic()
        stood_s = now_s - self._mark_s
        if stood_s > self._block_s:
            self._stop_s = stood_s
        self._lag_s = max(self._lag_s, stood_s - TICK_S)
        self._mark_s = now_s
        self._handle = self._loop.call_later(TICK_S, self._tick)

    # -- in the thread -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        watch = _Watch(self._mark_s, time.monotonic(), time.process_time())
        report_at_s = watch.now_s + REPORT_S
        while not self._stop.wait(TICK_S):
            try:
                self._look(watch)
                if watch.now_s >= report_at_s:
                    report_at_s = watch.now_s + REPORT_S
                    self._report(watch)
            except Exception:  # noqa: BLE001 - a failing callback must not end the watch
                _log.exception("the watchdog failed; it goes on")

    def _look(self, watch: _Watch) -> None:
        watch.look(time.monotonic(), time.process_time(), self._block_s)
        mark_s = self._mark_s
        if mark_s != watch.mark_s:
            if watch.blocked:
                _log.warning("the event loop moves again after %.2f s", self._stop_s)
            watch.mark_s, watch.forgiven_s, watch.blocked, watch.stalled = mark_s, 0.0, False, False
        if watch.age_s > self._block_s and not watch.blocked:
            watch.blocked = True
            _log.warning(
                "the event loop stands since %.2f s; %s holds it: %s", watch.age_s, self._who(), self._stack()
            )
        if watch.age_s > self._stall_s and not watch.stalled:
            watch.stalled = True
            _log.critical(
                "the event loop stands since %.1f s; %s holds it: %s", watch.age_s, self._who(), self._stack()
            )
            if self._on_stall is not None:
                self._on_stall(watch.age_s)

    def _report(self, watch: _Watch) -> None:
        lag_s, self._lag_s = max(self._lag_s, watch.age_s - TICK_S, 0.0), 0.0
        if self._on_lag is not None:
            self._on_lag(lag_s)

    def _running_task(self) -> str:
        task = asyncio.current_task(self._loop)
        return task.get_name() if task is not None else "a callback"

    def _stack(self) -> str:
        """Innermost frames of the loop's thread, down to where asyncio called them."""
        frames: list[str] = []
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented in sys
        while (
            frame is not None
            and len(frames) < FRAMES_MAX
            and frame.f_globals.get("__name__") != "asyncio.events"
        ):
            frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
            frame = frame.f_back
        return " < ".join(frames)


class _Watch:
    """What the thread saw at its last look."""

    def __init__(self, mark_s: float, now_s: float, cpu_s: float) -> None:
        self.mark_s = mark_s
        self.now_s = now_s
        self.cpu_s = cpu_s
        self.forgiven_s = 0.0  # since the mark: the whole process was frozen
        self.blocked = False
        self.stalled = False

    def look(self, now_s: float, cpu_s: float, gap_s: float) -> None:
        """A gap of more than `gap_s` between looks, mostly without CPU time, is a freeze of the process."""
        missed_s = now_s - self.now_s - TICK_S
        if missed_s > gap_s and cpu_s - self.cpu_s < missed_s / 2:
            self.forgiven_s += missed_s
        self.now_s, self.cpu_s = now_s, cpu_s

    @property
    def age_s(self) -> float:
        """How long the loop has been standing."""
        return self.now_s - self.mark_s - self.forgiven_s
