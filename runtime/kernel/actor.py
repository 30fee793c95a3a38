"""What an actor's author sees: behaviours, refs, asked messages, and the context of one life of an actor.

Law: an actor handles one message at a time. `tell` is at most once and in order per pair; `ask` has a
deadline and always ends: an answer, or AskTimeout, ActorRestarted, ActorStopped or MailboxFull. Messages are
frozen dataclasses that stand beside their receiver. How a life runs is in life.py, when it is repeated in
supervision.py.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from runtime.errors import ActorStopped, AskError, AskTimeout
from runtime.kernel.dead_letters import Drop

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runtime.kernel.cell import Cell
    from runtime.kernel.clock import Clock, Timer
    from runtime.kernel.life import Life
    from runtime.kernel.supervision import ChildSpec, Supervisor

_log = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M")
N = TypeVar("N")
T_co = TypeVar("T_co", covariant=True)
M_contra = TypeVar("M_contra", contravariant=True)


class Request(Generic[T_co]):
    """Base of messages that are asked; `T_co` is the type of the answer."""

    __slots__ = ()


class Control:
    """Marks a message for the control lane: before all others, and also when the mailbox is full."""

    __slots__ = ()


class StopReason(StrEnum):
    """How a life of an actor ended."""

    STOPPED = "stopped"  # it was asked to, or stopped itself
    FAILED = "failed"  # it raised
    RESTARTED = "restarted"  # a sibling failed and takes it along
    KILLED = "killed"  # it did not end in time and was cancelled


@dataclass(frozen=True, slots=True)
class Terminated(Control):
    """Sent to watchers: `ref` is stopped for good (a restart is not an end)."""

    ref: Ref[Any]
    reason: StopReason


class Ref(Generic[M_contra]):
    """The address of an actor; stays valid over restarts. Use it in the loop's thread only."""

    __slots__ = ("_cell", "name")

    def __init__(self, cell: Cell[M_contra]) -> None:
        self._cell = cell
        self.name = cell.name

    def tell(self, message: M_contra) -> bool:
        """Send without waiting. False: it was dropped (and counted as a dead letter)."""
        return self._cell.tell(message)

    async def tell_wait(self, message: M_contra, timeout_s: float) -> bool:
        """Send; if the mailbox's overflow is WAIT, wait up to `timeout_s` for room. False: it was dropped."""
        return await self._cell.tell_wait(message, timeout_s)

    async def ask(self, message: Request[T], timeout_s: float) -> T:
        """Send and wait for the answer; raises AskTimeout, ActorRestarted, ActorStopped or MailboxFull.

        After AskTimeout and ActorRestarted it is unknown what the actor did. An error that the actor answered
        with is raised as it is.
        """
        reply = self._cell.ask(message, timeout_s)
        try:
            return await reply.future
        finally:
            reply.end()

    @property
    def stopped(self) -> bool:
        """Whether the actor is stopped for good."""
        return self._cell.stopped

    def __repr__(self) -> str:
        return f"Ref({self.name!r})"


class Reply(Generic[T]):
    """The answer that somebody waits for. Only the first `send` or `fail` counts."""

    __slots__ = ("actor", "future", "holder", "message", "timer")

    def __init__(self, message: Request[T], actor: str) -> None:
        self.message: object = message
        self.actor = actor
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.timer: Timer | None = None
        self.holder: set[Reply[Any]] | None = None  # of the life that deferred it

    @property
    def waiting(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.future.done()

    def send(self, value: T) -> None:
        """Answer; nothing happens if nobody waits any more."""
        if not self.future.done():
            self.future.set_result(value)
        self.end()

    def fail(self, error: BaseException) -> None:
        """Answer with an error; logged if nobody waits any more, so that it is not lost."""
        if not self.future.done():
            self.future.set_exception(error)
        elif not isinstance(error, AskError):
            _log.warning("%s failed a %s that nobody waits for", self.actor, self.kind, exc_info=error)
        self.end()

    def expire(self) -> None:
        if not self.future.done():
            text = f"{self.actor} did not answer {self.kind} in time; whether it was handled is unknown"
            self.future.set_exception(AskTimeout(text))

    def end(self) -> None:
        """Forget the deadline and the life that holds it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.holder is not None:
            self.holder.discard(self)
            self.holder = None

    @property
    def kind(self) -> str:
        return type(self.message).__name__


class Fired:
    """A timer's message in the mailbox; it counts only as long as its life holds it under its key."""

    __slots__ = ("key", "message", "timer")

    def __init__(self, key: str, message: object) -> None:
        self.key = key
        self.message = message
        self.timer: Timer | None = None


class Behavior(Generic[M]):
    """What an actor does. One instance lives one life; after a failure a new one is made.

    An exception from `started` or `receive` is a failure of this life and goes to the supervisor.
    """

    async def started(self, ctx: ActorContext[M]) -> None:
        """Before the first message. If it raises, `stopped` is not called."""

    async def receive(self, ctx: ActorContext[M], message: M) -> None:
        """Handle one message. Whoever watches also gets `Terminated` here."""
        raise NotImplementedError

    async def stopped(self, ctx: ActorContext[M], reason: StopReason) -> None:
        """After the last message, children stopped; bounded by the spec's `shutdown_s`."""


class ActorContext(Generic[M]):
    """One life of one actor, as its behaviour sees it. Timers, deferred replies, children end with it."""

    def __init__(self, cell: Cell[M], life: Life[M], clock: Clock) -> None:
        self.self: Ref[M] = cell.ref
        self.clock = clock
        self.asked: Reply[Any] | None = None  # of the message being handled; None once answered or deferred
        self.deferred: set[Reply[Any]] = set()
        self.children: Supervisor | None = None
        self._cell = cell
        self._life = life
        self._timers: dict[str, Fired] = {}
        self._work: set[asyncio.Task[Any]] = set()
        self._watched: set[Cell[Any]] = set()
        self._closed = False

    # -- answers ----------------------------------------------------------------------------------------

    def reply(self, value: object) -> None:
        """Answer the message being handled; nothing happens if it was told, not asked."""
        if self.asked is not None:
            reply, self.asked = self.asked, None
            reply.send(value)

    def fail(self, error: Exception) -> None:
        """Answer the message being handled with an error that the asker gets raised; this life goes on."""
        if self.asked is not None:
            reply, self.asked = self.asked, None
            reply.fail(error)

    def defer(self) -> Reply[Any]:
        """Take the answer out of this turn, to `send` or `fail` it later. Raises AskError if not asked."""
        if self.asked is None:
            raise AskError(
                f"{self.self.name}: nothing to defer: the message was told, or is answered already"
            )
        reply, self.asked = self.asked, None
        if reply.waiting:
            reply.holder = self.deferred
            self.deferred.add(reply)
        return reply

    def detach(self, work: Coroutine[Any, Any, Any], reply: Reply[Any] | None = None) -> None:
        """Run `work` beside the mailbox; its result answers `reply`. Cancelled when this life ends.

        Its exception answers `reply`, or without one is a failure of this life.
        """
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=self.self.name)
        self._work.add(task)
        task.add_done_callback(partial(self._detached, reply))

    def unhandled(self, message: object) -> None:
        """Count a message that this actor does not know."""
        self._cell.drop(Drop.UNHANDLED, message)

    # -- time -------------------------------------------------------------------------------------------

    def after(self, delay_s: float, message: M, key: str) -> None:
        """Get `message` after `delay_s`, through the control lane. A new one of the same key replaces it."""
        self.cancel_timer(key)
        if self._closed:
            return
        fired = self._timers[key] = Fired(key, message)
        fired.timer = self.clock.call_later(delay_s, lambda: self._cell.fire(fired))

    def cancel_timer(self, key: str) -> None:
        """Forget the timer; its message does not arrive, also if it is in the mailbox already."""
        fired = self._timers.pop(key, None)
        if fired is not None and fired.timer is not None:
            fired.timer.cancel()

    def redeem(self, fired: Fired) -> bool:
        """For the cell: whether this timer's message still counts; it does so once."""
        if self._timers.get(fired.key) is not fired:
            return False
        del self._timers[fired.key]
        return True

    # -- other actors -----------------------------------------------------------------------------------

    def watch(self, ref: Ref[Any]) -> None:
        """Get `Terminated` when `ref` has stopped for good; at once if it has."""
        target = ref._cell  # noqa: SLF001 - a ref's cell is the kernel's own
        if not self._closed and target.watch(self._cell):
            self._watched.add(target)

    def unwatch(self, ref: Ref[Any]) -> None:
        """No more `Terminated` of `ref`, unless it is in the mailbox already."""
        target = ref._cell  # noqa: SLF001 - a ref's cell is the kernel's own
        target.unwatch(self._cell)
        self._watched.discard(target)

    async def spawn(self, spec: ChildSpec[N]) -> Ref[N]:
        """Start a child and wait for its `started`, whose exception is raised here.

        Raises ValueError for a name taken by a sibling, ActorStopped if this life is ending.
        """
        if self._closed:
            raise ActorStopped(f"{self.self.name}: this life is over, {spec.name} is not started")
        if self.children is None:
            self.children = self._cell.make_supervisor(self._life)
        return await self.children.spawn(spec)

    async def stop_child(self, ref: Ref[Any]) -> None:
        """Stop a child for good and wait until it is."""
        if self.children is not None:
            await self.children.stop(ref.name)

    def stop(self) -> None:
        """Stop this actor after the message being handled (a `permanent` one is restarted, as in OTP)."""
        self._life.end_turns(within_s=self._cell.spec.shutdown_s)

    # -- the end ----------------------------------------------------------------------------------------

    def close(self, error: AskError) -> None:
        """For the cell: this life is over; whatever it still owes fails with `error`."""
        self._closed = True
        for key in list(self._timers):
            self.cancel_timer(key)
        for reply in [*([self.asked] if self.asked else []), *self.deferred]:
            reply.fail(error)
        self.asked = None
        for target in self._watched:
            target.unwatch(self._cell)
        for task in self._work:
            task.cancel()

    async def end_work(self, timeout_s: float) -> None:
        """For the cell: wait until the cancelled work is gone."""
        if self._work:
            _, left = await asyncio.wait(self._work, timeout=timeout_s)
            if left:
                _log.error("%s: detached work does not end when cancelled", self.self.name)

    def _detached(self, reply: Reply[Any] | None, task: asyncio.Task[Any]) -> None:
        """The work is over: its asker gets what came of it; without one its failure is that of this life."""
        self._work.discard(task)
        error: BaseException | None
        if task.cancelled():
            error = AskError(f"{self.self.name}: detached work was cancelled")
        else:
            error = task.exception()
        if error is None:
            if reply is not None:
                reply.send(task.result())
        elif reply is not None:
            reply.fail(error)
        elif not (task.cancelled() and self._closed):  # else it was cancelled with this life
            self._life.interrupt(error if isinstance(error, Exception) else RuntimeError(repr(error)))
