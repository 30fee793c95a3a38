"""One life of an actor: a fresh behaviour, from its set-up through its turns to its winding up, in one task.

Law: a life ends by itself, by an exception, by its supervisor (`halt`), by a failure handed in (`interrupt`),
or by cancellation from outside, which is never swallowed. However it ends, whatever it owes is answered at
once, its children and its work are gone, and its supervisor knows.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from runtime.errors import ActorRestarted, ActorStopped, AskError
from runtime.kernel.actor import ActorContext, Fired, Reply, StopReason
from runtime.kernel.dead_letters import Drop

if TYPE_CHECKING:
    from runtime.kernel.actor import Behavior
    from runtime.kernel.cell import Cell
    from runtime.kernel.clock import Clock

BURST: Final = 64  # messages handled before others get a turn of the loop
KILL_GRACE_S: Final = 1.0  # for code that was cancelled to really end

M = TypeVar("M")

_log = logging.getLogger(__name__)


class Life(Generic[M]):
    """`first`: a failure to start is raised to whoever spawns, not repeated."""

    def __init__(self, cell: Cell[M], clock: Clock, *, first: bool) -> None:
        self.context: ActorContext[M] = ActorContext(cell, self, clock)
        self.failure: Exception | None = None
        self._cell = cell
        self._spec = cell.spec
        self._spawning = first
        self._started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None  # around set-up and turns
        self._ending = False  # takes no further turn
        self._halted: StopReason | None = None  # STOPPED or RESTARTED, by the supervisor

    @property
    def over(self) -> bool:
        return self._task is not None and self._task.done()

    async def begin(self) -> bool:
        """Whether `started` returned."""
        self._task = asyncio.get_running_loop().create_task(self._live(), name=self._cell.name)
        return await self._started

    # -- what others do to it ----------------------------------------------------------------------------

    async def halt(self, *, for_good: bool) -> bool:
        """End after this message, which is cancelled after `shutdown_s`. False: it does not end."""
        if for_good or self._halted is None:
            self._halted = StopReason.STOPPED if for_good else StopReason.RESTARTED
        self.end_turns(within_s=self._spec.shutdown_s)
        task = self._task
        if task is None or task is asyncio.current_task():  # in its own turn: it ends after this message
            return True
        await asyncio.wait({task}, timeout=self.stop_bound_s())
        return task.done()

    def interrupt(self, error: Exception) -> None:
        """End at once, as failed."""
        if self._ending:
            _log.error("%s failed while it was ending", self._cell.name, exc_info=error)
            return
        self.failure = error
        self.end_turns(within_s=0)

    def end_turns(self, *, within_s: float) -> None:
        """No further message; the one being handled is cancelled after `within_s`."""
        self._ending = True
        self._cell.mailbox.wake()
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + within_s)

    def stop_bound_s(self) -> float:
        """Longest that a graceful stop may take: the turn, detached work, `stopped`, and the children."""
        children = self.context.children or ()
        return KILL_GRACE_S + 3 * self._spec.shutdown_s + sum(child.stop_bound_s for child in children)

    # -- from set-up to winding up -----------------------------------------------------------------------

    async def _live(self) -> None:
        behavior: Behavior[M] | None = None
        error: BaseException | None = None
        limit = asyncio.timeout(self._spec.start_s)
        try:
            if not self._ending:
                async with limit:
                    self._limit = limit
                    fresh = self._spec.make()
                    await fresh.started(self.context)
                    behavior = fresh
                    self._has_started(limit)
                    await self._turns(behavior)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):  # the process or the loop ends
            raise
        except BaseException as exc:  # noqa: BLE001 - _why sorts out what it means
            error = exc
        finally:
            self._limit = None
        self.failure = self._why(error, limit)
        self._ending = True
        try:
            await self._wind_up(behavior, killed=limit.expired())
        finally:
            if not self._started.done():
                self._started.set_result(False)
        if _cancelled_from_outside():
            raise asyncio.CancelledError

    def _has_started(self, limit: asyncio.Timeout) -> None:
        self._spawning = False
        if not self._ending and not limit.expired():
            limit.reschedule(None)
        if not self._started.done():
            self._started.set_result(True)

    async def _turns(self, behavior: Behavior[M]) -> None:
        context, mailbox, burst = self.context, self._cell.mailbox, 0
        receive: Any = behavior.receive  # whatever is in the mailbox was sent through a typed ref
        while not self._ending:
            item = mailbox.take()
            if item is None:
                burst = 0
                await mailbox.ready()
                continue
            if type(item) is Reply:
                if item.waiting:
                    context.asked = item
                    await receive(context, item.message)
                    self._check_answered()
                else:
                    self._cell.drop(Drop.EXPIRED, item.message)
            elif type(item) is Fired:
                if context.redeem(item):
                    await receive(context, item.message)
            else:
                await receive(context, item)
            burst += 1
            if burst == BURST:
                burst = 0
                await asyncio.sleep(0)

    def _check_answered(self) -> None:
        """An ask that was neither answered nor deferred ends now, not at its deadline."""
        reply, self.context.asked = self.context.asked, None
        if reply is not None:
            self._cell.drop(Drop.UNHANDLED, reply.message)
            reply.fail(AskError(f"{self._cell.name} handled {reply.kind} without an answer"))

    def _why(self, error: BaseException | None, limit: asyncio.Timeout) -> Exception | None:
        """The failure that ended the turns; None for a stop, in time or not."""
        if self.failure is not None:
            return self.failure
        if _cancelled_from_outside():
            self._cell.shut()
            self._halted = StopReason.STOPPED
            return None
        if limit.expired():
            if self._ending:
                return None
            return TimeoutError(f"{self._cell.name}: started took longer than {self._spec.start_s:g} s")
        if error is None or isinstance(error, Exception):
            return error
        # a CancelledError here is not of this task: of something that it awaited
        failure = RuntimeError(f"{self._cell.name}: ended by {error!r}")
        failure.__cause__ = error
        return failure

    async def _wind_up(self, behavior: Behavior[M] | None, *, killed: bool) -> None:
        failure, cell = self.failure, self._cell
        restart = self._halted is StopReason.RESTARTED
        if self._halted is not None and failure is not None:
            _log.error("%s failed while it was stopped", cell.name, exc_info=failure)
        elif self._halted is None and not self._spawning:
            restart = cell.parent.decide(cell, failure)
        reason = _reason(failure, restart=restart, killed=killed)
        self.context.close(_end_of_asks(cell.name, failure, restart=restart))
        if not restart:
            cell.shut()
        try:
            await self._clear_away(behavior, reason)
        finally:
            if not restart or self._halted is StopReason.STOPPED:
                cell.gone(reason)
            elif self._halted is None:
                cell.parent.ended(cell, restart=True)

    async def _clear_away(self, behavior: Behavior[M] | None, reason: StopReason) -> None:
        if self.context.children is not None:
            await self.context.children.stop_all()
        await self.context.end_work(self._spec.shutdown_s)
        if behavior is None:
            return
        try:
            async with asyncio.timeout(self._spec.shutdown_s):
                await behavior.stopped(self.context, reason)
        except Exception:  # noqa: BLE001 - logged; the end goes on
            _log.exception("%s: stopped failed", self._cell.name)


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _reason(failure: Exception | None, *, restart: bool, killed: bool) -> StopReason:
    if failure is not None:
        return StopReason.FAILED
    if killed:
        return StopReason.KILLED
    return StopReason.RESTARTED if restart else StopReason.STOPPED


def _end_of_asks(name: str, failure: Exception | None, *, restart: bool) -> AskError:
    if restart:
        error: AskError = ActorRestarted(f"{name} was restarted; the message is not repeated")
    else:
        error = ActorStopped(f"{name} stopped before it answered")
    error.__cause__ = failure
    return error
