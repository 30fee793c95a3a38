"""The place where an actor lives: its mailbox and ref stay, its lives (behaviour and context) come and go.

Law: one task per life: set up, take turns, wind up. A life ends by itself, by an exception, by its supervisor
(`halt`), by a failure handed in (`interrupt`), or by cancellation from outside, which is never swallowed.
Whatever the end, every ask that was taken or queued is answered or kept for the next life.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from runtime.errors import ActorRestarted, ActorStopped, AskError, MailboxFull
from runtime.kernel.actor import ActorContext, Control, Fired, Ref, Reply, Request, StopReason, Terminated
from runtime.kernel.clock import settle
from runtime.kernel.dead_letters import Drop
from runtime.kernel.mailbox import Mailbox
from runtime.kernel.supervision import Supervisor

if TYPE_CHECKING:
    from random import Random

    from runtime.kernel.actor import Behavior
    from runtime.kernel.clock import Clock
    from runtime.kernel.dead_letters import DeadLetters
    from runtime.kernel.supervision import ChildSpec

BURST: Final = 64  # messages handled before others get a turn of the loop
KILL_GRACE_S: Final = 1.0  # for code that was cancelled to really end

M = TypeVar("M")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Orders(Enum):
    """What the supervisor has told a life to do."""

    STOP = auto()
    RESTART = auto()


class Cell(Generic[M]):
    """One actor from its start to its end for good."""

    def __init__(
        self,
        spec: ChildSpec[M],
        parent: Supervisor,
        *,
        path: str,
        clock: Clock,
        dead_letters: DeadLetters,
        random: Random,
    ) -> None:
        self.spec = spec
        self.name = f"{path}{spec.name}"
        self.ref: Ref[M] = Ref(self)
        self.stopped = False  # takes no more messages
        self._parent = parent
        self._clock = clock
        self._dead_letters = dead_letters
        self._random = random
        self._mailbox: Mailbox[Any] = Mailbox(spec.capacity, spec.overflow, self._dropped_old)
        self._watchers: dict[Cell[Any], None] = {}
        self._end: StopReason | None = None  # gone for good
        self._begun = False  # a first life has started
        # of the present life:
        self._context: ActorContext[M] | None = None
        self._task: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None  # around set-up and turns
        self._ending = False  # takes no further turn
        self._orders: _Orders | None = None
        self._failure: Exception | None = None  # handed in by `interrupt`, or how the life ended

    # -- sending -----------------------------------------------------------------------------------------

    def tell(self, message: object) -> bool:
        if self.stopped:
            return self._drop(Drop.STOPPED, message)
        if isinstance(message, Control):
            taken = self._mailbox.put_control(message)
        else:
            taken = self._mailbox.put(message)
        return taken or self._drop(Drop.MAILBOX_FULL, message)

    async def tell_wait(self, message: object, timeout_s: float) -> bool:
        if self.stopped or not self._mailbox.must_wait or isinstance(message, Control):
            return self.tell(message)
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self._mailbox.queue_up(message, admitted):
            return self._drop(Drop.MAILBOX_FULL, message)
        timer = self._clock.call_later(timeout_s, partial(settle, admitted, False))
        try:
            if await admitted:
                return True
        finally:
            timer.cancel()
        return False if self.stopped else self._drop(Drop.MAILBOX_FULL, message)

    def ask(self, message: Request[T], timeout_s: float) -> Reply[T]:
        """Raises ActorStopped or MailboxFull at once; the reply's future ends after `timeout_s` at last."""
        if self.stopped:
            self._drop(Drop.STOPPED, message)
            raise ActorStopped(f"{self.name} is stopped")
        reply = Reply(message, self.name)
        if not self._accept(reply):
            self._drop(Drop.MAILBOX_FULL, message)
            raise MailboxFull(f"{self.name}: mailbox is full ({self.spec.capacity} messages wait)")
        reply.timer = self._clock.call_later(timeout_s, reply.expire)
        return reply

    def fire(self, fired: Fired) -> None:
        """A timer is due. Through the control lane, so that a full mailbox does not stop a ticking actor."""
        if not self._mailbox.put_control(fired):
            self._drop(Drop.MAILBOX_FULL, fired.message)

    def unhandled(self, message: object) -> None:
        self._drop(Drop.UNHANDLED, message)

    @property
    def depth(self) -> int:
        """Messages that wait."""
        return len(self._mailbox)

    @property
    def children(self) -> Supervisor | None:
        """Of the present life."""
        return self._context.children if self._context is not None else None

    def _accept(self, reply: Reply[Any]) -> bool:
        if isinstance(reply.message, Control):
            return self._mailbox.put_control(reply)
        if not self._mailbox.must_wait:
            return self._mailbox.put(reply)
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        reply.future.add_done_callback(lambda _: admitted.cancel())
        return self._mailbox.queue_up(reply, admitted)

    def _drop(self, reason: Drop, message: object) -> bool:
        self._dead_letters.record(reason, self.name, message)
        return False

    def _dropped_old(self, item: object) -> None:
        if isinstance(item, Reply):
            item.fail(MailboxFull(f"{self.name}: {item.kind} made room for a newer message"))
            item = item.message
        self._drop(Drop.DROPPED_OLD, item)

    # -- watching ----------------------------------------------------------------------------------------

    def watch(self, watcher: Cell[Any]) -> bool:
        """False when there is nothing left to watch: the watcher was told so."""
        if self._end is not None:
            watcher.tell(Terminated(self.ref, self._end))
            return False
        self._watchers[watcher] = None
        return True

    def unwatch(self, watcher: Cell[Any]) -> None:
        self._watchers.pop(watcher, None)

    # -- what others do to a life ------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin the first life; raises what its `started` raised, or ActorStopped."""
        if not await self.restart():
            raise self._failure or ActorStopped(f"{self.name} was stopped while it started")

    async def restart(self) -> bool:
        """Begin a life; whether its `started` returned."""
        loop = asyncio.get_running_loop()
        started: asyncio.Future[bool] = loop.create_future()
        self._ending, self._orders, self._failure = False, None, None
        self._context = ActorContext(self, self._clock)
        self._task = loop.create_task(self._live(self._context, started), name=self.name)
        return await started

    async def halt(self, *, for_good: bool) -> None:
        """End the present life, if there is one, and wait until it is over."""
        if for_good:
            self._orders = _Orders.STOP
            self._shut()
        elif self._orders is None:
            self._orders = _Orders.RESTART
        task = self._task
        if task is None or task.done():
            if for_good:
                self._gone(StopReason.STOPPED)
            return
        self._end_turns(within_s=self.spec.shutdown_s)
        if task is asyncio.current_task():  # it stops itself: the life ends after this message
            return
        await asyncio.wait({task}, timeout=self.stop_bound_s())
        if not task.done():
            _log.error("%s does not end when cancelled; it is left behind", self.name)
            if self._context is not None:
                self._context.close(ActorStopped(f"{self.name} did not end and was left behind"))
            self._shut()
            self._gone(StopReason.KILLED)

    def stop_itself(self) -> None:
        self._end_turns(within_s=self.spec.shutdown_s)

    def interrupt(self, error: Exception) -> None:
        """End the present life at once, as failed."""
        if self._ending or self._failure is not None:
            _log.error("%s failed while it was ending", self.name, exc_info=error)
            return
        self._failure = error
        self._end_turns(within_s=0)

    def make_supervisor(self) -> Supervisor:
        """For the children of one life."""

        def make_cell(spec: ChildSpec[Any], parent: Supervisor) -> Cell[Any]:
            return Cell(
                spec,
                parent,
                path=f"{self.name}/",
                clock=self._clock,
                dead_letters=self._dead_letters,
                random=self._random,
            )

        return Supervisor(self.spec.supervision, self._clock, self._random, make_cell, self.interrupt)

    def _end_turns(self, *, within_s: float) -> None:
        self._ending = True
        self._mailbox.wake()
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + within_s)

    def stop_bound_s(self) -> float:
        """Longest that a graceful stop may take: the turn, detached work, `stopped`, and the children."""
        own_s = KILL_GRACE_S + 3 * self.spec.shutdown_s
        return own_s + sum(child.stop_bound_s() for child in self.children or ())

    # -- a life ------------------------------------------------------------------------------------------

    async def _live(self, context: ActorContext[M], started: asyncio.Future[bool]) -> None:
        behavior: Behavior[M] | None = None
        error: BaseException | None = None
        limit = asyncio.timeout(self.spec.start_s)
        try:
            if not self._ending:
                async with limit:
                    self._limit = limit
                    fresh = self.spec.make()
                    await fresh.started(context)
                    behavior = fresh
                    self._has_started(started, limit)
                    await self._turns(behavior, context)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - _why sorts out what it means
            error = exc
        finally:
            self._limit = None
        self._failure = self._why(error, limit)
        try:
            await self._wind_up(context, behavior, killed=limit.expired())
        finally:
            if not started.done():
                started.set_result(False)
        if _cancelled_from_outside():
            raise asyncio.CancelledError

    def _has_started(self, started: asyncio.Future[bool], limit: asyncio.Timeout) -> None:
        self._begun = True
        if not self._ending and not limit.expired():
            limit.reschedule(None)
        if not started.done():
            started.set_result(True)

    async def _turns(self, behavior: Behavior[M], context: ActorContext[M]) -> None:
        mailbox, burst = self._mailbox, 0
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
                    self._check_answered(context)
                else:
                    self._drop(Drop.EXPIRED, item.message)
            elif type(item) is Fired:
                if context.redeem(item):
                    await receive(context, item.message)
            else:
                await receive(context, item)
            burst += 1
            if burst == BURST:
                burst = 0
                await asyncio.sleep(0)

    def _check_answered(self, context: ActorContext[M]) -> None:
        """An ask that was neither answered nor deferred ends now, not at its deadline."""
        reply, context.asked = context.asked, None
        if reply is not None:
            self._drop(Drop.UNHANDLED, reply.message)
            reply.fail(AskError(f"{self.name} handled {reply.kind} without an answer"))

    def _why(self, error: BaseException | None, limit: asyncio.Timeout) -> Exception | None:
        """The failure that ended the turns; None for a stop, in time or not."""
        if self._failure is not None:
            return self._failure
        if _cancelled_from_outside():
            self._orders = _Orders.STOP
            return None
        if limit.expired():
            if self._ending:
                return None
            return TimeoutError(f"{self.name}: started took longer than {self.spec.start_s:g} s")
        if isinstance(error, asyncio.CancelledError):  # not of this task: of something that it awaited
            failure = RuntimeError(f"{self.name}: something that it awaited was cancelled")
            failure.__cause__ = error
            return failure
        return error if isinstance(error, Exception) else None

    async def _wind_up(self, context: ActorContext[M], behavior: Behavior[M] | None, *, killed: bool) -> None:
        failure = self._failure
        restart = self._orders is _Orders.RESTART
        if self._orders is None and self._begun:  # a failed first start is raised to whoever spawns
            restart = self._parent.decide(self, failure)
        elif failure is not None and self._begun:
            _log.error("%s failed while it was stopped", self.name, exc_info=failure)
        reason = _reason(failure, restart=restart, killed=killed)
        self._ending = True
        context.close(self._end_of_asks(failure, restart=restart))
        if not restart:
            self._shut()
        try:
            await self._clear_away(context, behavior, reason)
        finally:
            if not restart:
                self._gone(reason)
            elif self._orders is None:
                self._parent.ended(self, restart=True)

    async def _clear_away(
        self, context: ActorContext[M], behavior: Behavior[M] | None, reason: StopReason
    ) -> None:
        if context.children is not None:
            await context.children.stop_all()
        await context.end_work(self.spec.shutdown_s)
        if behavior is None:
            return
        try:
            async with asyncio.timeout(self.spec.shutdown_s):
                await behavior.stopped(context, reason)
        except Exception:  # noqa: BLE001 - logged; the end goes on
            _log.exception("%s: stopped failed", self.name)

    def _end_of_asks(self, failure: Exception | None, *, restart: bool) -> AskError:
        if restart:
            error: AskError = ActorRestarted(f"{self.name} was restarted; the message is not repeated")
        else:
            error = ActorStopped(f"{self.name} stopped before it answered")
        error.__cause__ = failure
        return error

    def _shut(self) -> None:
        """Take no more messages; answer the asks that wait and count the rest."""
        self.stopped = True
        for item in self._mailbox.drain():
            if isinstance(item, Reply):
                item.fail(ActorStopped(f"{self.name} stopped before it handled {item.kind}"))
                self._drop(Drop.STOPPED, item.message)
            elif not isinstance(item, Fired):
                self._drop(Drop.STOPPED, item)

    def _gone(self, reason: StopReason) -> None:
        if self._end is not None:
            return
        self._end = reason
        watchers, self._watchers = self._watchers, {}
        for watcher in watchers:
            watcher.tell(Terminated(self.ref, reason))
        self._parent.ended(self, restart=False)


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _reason(failure: Exception | None, *, restart: bool, killed: bool) -> StopReason:
    if failure is not None:
        return StopReason.FAILED
    if killed:
        return StopReason.KILLED
    return StopReason.RESTARTED if restart else StopReason.STOPPED
