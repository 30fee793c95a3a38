"""Virtual time: an asyncio loop whose clock jumps to the next timer as soon as nothing is ready.

Law: only public extension points of asyncio are used (a selector, `loop.time()`), so tasks, timeouts and
sleeps are the real ones; a day of sleep takes milliseconds, and the same program has the same history every
time. The outside world is not waited for: no sockets, and executors run their function at once, in the loop.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import time
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

P = ParamSpec("P")
T = TypeVar("T")
_SHOWN_MAX: Final = 20  # tasks that a message lists
_RESOLUTION_S: Final = time.get_clock_info("monotonic").resolution  # by which asyncio takes timers as due


class SimulationDeadlock(AssertionError):
    """No task can go on and no timer is set; the message lists who waits where."""


class SimulationOverrun(AssertionError):
    """Virtual time went beyond its limit; the message lists who waits where."""


class SimLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when nothing is ready. Raises the errors above out of `run_*`."""

    def __init__(self, *, limit_s: float = inf) -> None:
        self._virtual = _VirtualSelector(limit_s, self._who_waits)
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def run_in_executor(  # type: ignore[override] # typeshed has a TypeVarTuple here that 3.11 cannot spell alike
        self, _executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run `func` now, in the loop's thread: a thread's progress would not be repeatable."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future

    def _who_waits(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        lines = [f"  {task.get_name()}: {_where(task)}" for task in tasks[:_SHOWN_MAX]]
        return "\n".join([f"{len(tasks)} tasks wait:", *lines])


def run(main: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """`asyncio.run(main(*args))` in virtual time."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main(*args, **kwargs))


def simulated(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an `async def` test a plain one that runs in virtual time, on a loop of its own."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test, *args, **kwargs)

    return wrapper


class _VirtualSelector(selectors.SelectSelector):
    def __init__(self, limit_s: float, who_waits: Callable[[], str]) -> None:
        super().__init__()
        self.now_s = 0.0
        self._limit_s = limit_s
        self._who_waits = who_waits

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise SimulationDeadlock(f"nothing is ready and no timer is set; {self._who_waits()}")
        self.now_s += max(timeout, 0.0)
        if (
            self.now_s + _RESOLUTION_S <= self.now_s
        ):  # after months; asyncio would find the timer never quite due
            self.now_s = nextafter(self.now_s, inf)
        if self.now_s > self._limit_s:
            raise SimulationOverrun(f"virtual time went beyond {self._limit_s:g} s; {self._who_waits()}")
        return ready


def _where(task: asyncio.Task[Any]) -> str:
    """The innermost frame of a suspended task."""
    stack = task.get_stack(limit=1)
    coroutine: Any = task.get_coro()
    while (inner := getattr(coroutine, "cr_await", None)) is not None and hasattr(inner, "cr_frame"):
        coroutine = inner
    frame = getattr(coroutine, "cr_frame", None) or (stack[0] if stack else None)
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame else "?"
