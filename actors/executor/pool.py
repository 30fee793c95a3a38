"""Pooled workers that run bodies, with one shared deadline structure.

A body costs no asyncio.Task and no timeout object of its own: workers take runs from a deque, and `check_deadlines`
(called a few times a second) looks at what is active, which is at most as many as there are workers.
A body that swallows its cancellation is cancelled again, and after `_GIVE_UP_AFTER` times it is abandoned: its
attempt ends without it, a new worker takes its place, and whatever it returns later is ignored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from actors.authoring.registry import HandlerDef
from actors.executor.bodies import Lot, Move, Moves, Run, Stop

_STOP_AGAIN_S: Final = 2.0
_GIVE_UP_AFTER: Final = 3
_CLOSE_S: Final = 1.0  # what follows in an actor's last seconds must still fit in
_RUNS_BEFORE_YIELD: Final = 64  # bodies that never wait must not starve the loop


Body = Run | Lot


class Pool:
    """`execute` runs one body and returns what becomes of its row, or of its rows; `ended` is told at once."""

    def __init__(
        self,
        size: int,
        execute: Callable[[Body], Awaitable[Move | Moves]],
        ended: Callable[[Body, Move | Moves], None],
        abandoned: Callable[[Body], None],
        now_s: Callable[[], float],
    ) -> None:
        self._size = size
        self._execute = execute
        self._ended = ended
        self._abandoned = abandoned
        self._now_s = now_s
        self._queue: deque[Body] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._active: dict[
            Body, None
        ] = {}  # in the order they began: a set of objects has another one in each run
        self._spreading = 0  # how many workers the next turn of the loop wakes; 0: none
        self._closed = False

    @property
    def active(self) -> list[Body]:
        return list(self._active)

    def is_active(self, run: Body) -> bool:
        return run in self._active

    def put(self, run: Body) -> None:
        """Start it as soon as a worker is free. Bounded by what the executor claims."""
        self._queue.append(run)
        if not self._spreading:
            self._spread(1)

    def withdraw(self) -> list[Body]:
        """Everything that has not started, taken out."""
        runs = list(self._queue)
        self._queue.clear()
        return runs

    def remove(self, run: Body) -> bool:
        """Take one that has not started out; False when it has."""
        try:
            self._queue.remove(run)
        except ValueError:
            return False
        return True

    def stop(self, run: Body, why: Stop) -> None:
        """Ask an active body to stop; its end comes through `ended` as always."""
        if run.stop is None:
            run.stop = why
        run.stop_since_s = self._now_s()
        run.stop_count += 1
        run.context.request_cancel(why.value)
        if run.worker is not None:
            run.worker.cancel()

    def check_deadlines(self) -> None:
        now_s = self._now_s()
        for run in self.active:
            if run.stop is None:
                if now_s >= run.deadline_s:
                    self.stop(run, Stop.TIMEOUT)
            elif now_s - run.stop_since_s >= _STOP_AGAIN_S:
                if run.stop_count < _GIVE_UP_AFTER:
                    self.stop(run, run.stop)
                else:
                    self._abandon(run)

    def _abandon(self, run: Body) -> None:
        run.abandoned = True
        self._active.pop(run, None)
        if run.worker is not None:
            self._workers.discard(run.worker)
        self._abandoned(run)
        self._wake(len(self._queue))

    def _spread(self, count: int) -> None:
        """Wake `count` workers now, and twice as many in the next turn of the loop, while runs still wait.

        One worker gets through any number of bodies that never wait; only what is left after a turn needs more of
        them. So quick bodies cost no wake-ups, and slow ones all run after a few turns.
        """
        if self._queue and (self._idle or len(self._workers) < self._size):
            self._wake(min(count, len(self._queue)))
            self._spreading = count * 2
            asyncio.get_running_loop().call_soon(self._spread, self._spreading)
        else:
            self._spreading = 0

    def _wake(self, count: int) -> None:
        while count > 0 and self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1
        for _ in range(min(count, self._size - len(self._workers))):
            worker = asyncio.create_task(self._work())  # owned: kept in _workers, cancelled by close
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None, "runs as a task"
        since_yield = 0
        last: HandlerDef | None = None
        while True:
            if not self._queue:
                since_yield = 0
                await self._wait()
                continue
            run = self._queue.popleft()
            run.worker = worker
            run.started_s = self._now_s()
            run.deadline_s = run.started_s + run.claim.timeout_s
            self._active[run] = None
            if run.handler is not last:
                last = run.handler
                worker.set_name(f"handler {last.name}")  # what the watchdog names when the loop stands still
            move = await self._execute(run)
            if run.abandoned:
                return
            self._active.pop(run, None)
            self._ended(run, move)
            del run, move  # a result may be large, and this worker idle for long
            if self._closed:
                return
            while worker.cancelling():  # what stopped this body is nothing to the next
                worker.uncancel()
            since_yield += 1
            if since_yield >= _RUNS_BEFORE_YIELD:
                since_yield = 0
                await asyncio.sleep(0)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and self._queue:
                self._wake(1)  # the wake-up was ours; pass it on
            raise

    async def close(self) -> None:
        """End all workers now. Bodies that run are stopped as by a drain, and their ends reported; one that does not stop is
        given up: nobody ticks any more who would ask it again."""
        self._closed = True
        workers = list(self._workers)
        at_work = {run.worker for run in self.active}
        for run in self.active:
            self.stop(run, Stop.DRAIN)
        for worker in workers:
            if worker not in at_work:
                worker.cancel()
        if workers:
            await asyncio.wait(workers, timeout=_CLOSE_S)
        for run in self.active:
            self._abandon(run)
