"""An actor's place: its name, mailbox and watchers stay, while lives come and go (life.py).

Law: what is sent is taken, refused or dropped here, and every drop is counted. Messages that wait outlive a
life; when the actor is gone for good, every ask that waits is answered and every watcher told.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from runtime.errors import ActorStopped, MailboxFull
from runtime.kernel.actor import Control, Fired, Ref, Reply, Request, StopReason, Terminated
from runtime.kernel.clock import settle
from runtime.kernel.dead_letters import Drop
from runtime.kernel.life import Life
from runtime.kernel.mailbox import Mailbox
from runtime.kernel.supervision import Supervisor

if TYPE_CHECKING:
    from random import Random

    from runtime.kernel.clock import Clock
    from runtime.kernel.dead_letters import DeadLetters
    from runtime.kernel.supervision import ChildSpec

M = TypeVar("M")
T = TypeVar("T")

_log = logging.getLogger(__name__)


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
        self.parent = parent
        self.mailbox: Mailbox[Any] = Mailbox(spec.capacity, spec.overflow, self._dropped_old)
        self.stopped = False  # takes no more messages
        self._clock = clock
        self._dead_letters = dead_letters
        self._random = random
        self._watchers: dict[Cell[Any], None] = {}
        self._life: Life[M] | None = None
        self._end: StopReason | None = None  # gone for good

    # -- sending -----------------------------------------------------------------------------------------

    def tell(self, message: object) -> bool:
        if self.stopped:
            return self.drop(Drop.STOPPED, message)
        if isinstance(message, Control):
            taken = self.mailbox.put_control(message)
        else:
            taken = self.mailbox.put(message)
        return taken or self.drop(Drop.MAILBOX_FULL, message)

    async def tell_wait(self, message: object, timeout_s: float) -> bool:
        if self.stopped or not self.mailbox.must_wait or isinstance(message, Control):
            return self.tell(message)
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self.mailbox.queue_up(message, admitted):
            return self.drop(Drop.MAILBOX_FULL, message)
        timer = self._clock.call_later(timeout_s, partial(settle, admitted, False))
        try:
            if await admitted:
                return True
        finally:
            timer.cancel()
        return False if self.stopped else self.drop(Drop.MAILBOX_FULL, message)

    def ask(self, message: Request[T], timeout_s: float) -> Reply[T]:
        """Raises ActorStopped or MailboxFull at once; the reply's future ends after `timeout_s` at last."""
        if self.stopped:
            self.drop(Drop.STOPPED, message)
            raise ActorStopped(f"{self.name} is stopped")
        reply = Reply(message, self.name)
        if not self._accept(reply):
            self.drop(Drop.MAILBOX_FULL, message)
            raise MailboxFull(f"{self.name}: mailbox is full ({self.spec.capacity} messages wait)")
        reply.timer = self._clock.call_later(timeout_s, reply.expire)
        return reply

    def fire(self, fired: Fired) -> None:
        """A timer is due. Through the control lane, so that a full mailbox does not stop a ticking actor."""
        if not self.mailbox.put_control(fired):
            self.drop(Drop.MAILBOX_FULL, fired.message)

    @property
    def depth(self) -> int:
        """Messages that wait."""
        return len(self.mailbox)

    def _accept(self, reply: Reply[Any]) -> bool:
        if isinstance(reply.message, Control):
            return self.mailbox.put_control(reply)
        if not self.mailbox.must_wait:
            return self.mailbox.put(reply)
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        reply.future.add_done_callback(lambda _: admitted.cancel())
        return self.mailbox.queue_up(reply, admitted)

    def drop(self, reason: Drop, message: object) -> bool:
        self._dead_letters.record(reason, self.name, message)
        return False

    def _dropped_old(self, item: object) -> None:
        if isinstance(item, Reply):
            item.fail(MailboxFull(f"{self.name}: {item.kind} made room for a newer message"))
            item = item.message
        self.drop(Drop.DROPPED_OLD, item)

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

    # -- lives -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin the first life; raises what its `started` raised, or ActorStopped."""
        if not await self.restart():
            failure = self._life.failure if self._life is not None else None
            raise failure or ActorStopped(f"{self.name} was stopped while it started")

    async def restart(self) -> bool:
        """Begin a life; whether its `started` returned."""
        self._life = Life(self, self._clock, first=self._life is None)
        return await self._life.begin()

    async def halt(self, *, for_good: bool) -> None:
        """End the present life, if there is one, and wait until it is over."""
        if for_good:
            self.shut()
        if self._life is None or self._life.over:
            if for_good:
                self.gone(StopReason.STOPPED)
        elif not await self._life.halt(for_good=for_good):
            _log.error("%s does not end when cancelled; it is left behind", self.name)
            self._life.context.close(ActorStopped(f"{self.name} did not end and was left behind"))
            self.shut()
            self.gone(StopReason.KILLED)

    def shut(self) -> None:
        """Take no more messages; answer the asks that wait and count the rest."""
        self.stopped = True
        for item in self.mailbox.drain():
            if isinstance(item, Reply):
                item.fail(ActorStopped(f"{self.name} stopped before it handled {item.kind}"))
                self.drop(Drop.STOPPED, item.message)
            elif not isinstance(item, Fired):
                self.drop(Drop.STOPPED, item)

    def gone(self, reason: StopReason) -> None:
        """There will be no further life; only the first reason counts."""
        if self._end is not None:
            return
        self._end = reason
        watchers, self._watchers = self._watchers, {}
        for watcher in watchers:
            watcher.tell(Terminated(self.ref, reason))
        self.parent.ended(self, restart=False)

    # -- children ----------------------------------------------------------------------------------------

    @property
    def children(self) -> Supervisor | None:
        """Of the present life."""
        return self._life.context.children if self._life is not None else None

    @property
    def stop_bound_s(self) -> float:
        """Longest that a graceful stop of the present life may take."""
        return self._life.stop_bound_s() if self._life is not None else 0.0

    def make_supervisor(self, life: Life[M]) -> Supervisor:
        """For the children of one life, which fails when too many of them do."""

        def make_cell(spec: ChildSpec[Any], parent: Supervisor) -> Cell[Any]:
            return Cell(
                spec,
                parent,
                path=f"{self.name}/",
                clock=self._clock,
                dead_letters=self._dead_letters,
                random=self._random,
            )

        return Supervisor(self.spec.supervision, self._clock, self._random, make_cell, life.interrupt)
