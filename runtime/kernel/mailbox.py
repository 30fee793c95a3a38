"""A bounded mailbox with one reader: a control lane that is always drained first, and a user lane.

Law: it holds, orders and bounds items; it does not look into them, count or log. Whoever puts is told what
happened. Costs a deque operation per item and one future per time the reader falls asleep.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL_CAPACITY: Final = 1024  # far above need: timers, watch notices and stop requests of one actor

E = TypeVar("E")


class Overflow(StrEnum):
    """What a full user lane does with one more item."""

    REJECT = "reject"  # refuse it
    DROP_OLD = "drop_old"  # drop the oldest for it
    WAIT = "wait"  # let the sender wait; at most as many senders as the capacity, more are refused


class Mailbox(Generic[E]):
    """Not thread-safe; one reader; None is no item. Raises ValueError for a capacity below 1."""

    __slots__ = ("_capacity", "_control", "_on_dropped", "_overflow", "_reader", "_senders", "_user")

    def __init__(
        self,
        capacity: int,
        overflow: Overflow = Overflow.REJECT,
        on_dropped: Callable[[E], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"mailbox capacity {capacity!r}: must be 1 or more")
        self._capacity = capacity
        self._overflow = overflow
        self._on_dropped = on_dropped
        self._control: deque[E] = deque()
        self._user: deque[E] = deque()
        self._senders: deque[tuple[E, asyncio.Future[bool]]] = deque()
        self._reader: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """Items that wait, those of waiting senders excepted."""
        return len(self._control) + len(self._user)

    @property
    def must_wait(self) -> bool:
        """Whether a sender has to `queue_up` now."""
        return self._overflow is Overflow.WAIT and len(self._user) >= self._capacity

    def put(self, item: E) -> bool:
        """Add to the user lane without waiting; False when it is full and nothing was added."""
        if len(self._user) >= self._capacity:
            if self._overflow is not Overflow.DROP_OLD:
                return False
            dropped = self._user.popleft()
            if self._on_dropped is not None:
                self._on_dropped(dropped)
        self._user.append(item)
        if self._reader is not None:
            self.wake()
        return True

    def put_control(self, item: E) -> bool:
        """Add to the control lane; False when even that is full."""
        if len(self._control) >= CONTROL_CAPACITY:
            return False
        self._control.append(item)
        if self._reader is not None:
            self.wake()
        return True

    def queue_up(self, item: E, admitted: asyncio.Future[bool]) -> bool:
        """For a full lane that waits: add when there is room, in order of arrival; False if too many wait.

        `admitted` becomes True then, False on `drain`. If it is done before, the sender left and the item is
        skipped.
        """
        if len(self._senders) >= self._capacity:
            self._senders = deque(sender for sender in self._senders if not sender[1].done())
            if len(self._senders) >= self._capacity:
                return False
        self._senders.append((item, admitted))
        return True

    def take(self) -> E | None:
        """The next item, control lane first; None when there is none."""
        if self._control:
            return self._control.popleft()
        if not self._user:
            return None
        item = self._user.popleft()
        if self._senders:
            self._admit()
        return item

    async def ready(self) -> None:
        """Wait until something may be there to take, or `wake` is called."""
        if self._control or self._user:
            return
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def wake(self) -> None:
        """Let a waiting reader look again."""
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def drain(self) -> list[E]:
        """Take everything out, control lane first; also what waiting senders hold, who are turned away."""
        items = [*self._control, *self._user]
        self._control.clear()
        self._user.clear()
        senders, self._senders = self._senders, deque()
        for item, admitted in senders:
            if not admitted.done():
                admitted.set_result(False)
                items.append(item)
        return items

    def _admit(self) -> None:
        while self._senders and len(self._user) < self._capacity:
            item, admitted = self._senders.popleft()
            if not admitted.done():
                admitted.set_result(True)
                self._user.append(item)
