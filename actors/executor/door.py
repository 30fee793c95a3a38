"""The door: before tasks are accepted, they wait a moment for room to be born running.

A task that waits in the record costs it twice as much as one that is born running, and quick bodies free room within
milliseconds. So whoever brings more than fits now is kept here, in order, while room comes soon. Where it does not
(long bodies, an old backlog), tasks are accepted at once, as ever, and wait in the record.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from actors.authoring.registry import Kind

if TYPE_CHECKING:
    from actors.executor.capacity import Capacity

PATIENCE_S: Final = (
    0.5  # worth thousands of quick bodies; while the record stands still, callers wait for it and for this
)
_Turn = tuple[int, asyncio.Future[None]]  # how many tasks, and what wakes their caller


class Door:
    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._turns: dict[Kind, deque[_Turn]] = {kind: deque() for kind in Kind}
        self._entering = dict.fromkeys(Kind, 0)  # were let in and have not reserved yet

    async def wait(self, kind: Kind, count: int) -> None:
        """Until so many bodies can be reserved, which the caller does at once; or as long as it may be of use."""
        turns = self._turns[kind]
        if not turns and self._fits(kind, count):
            return
        before = sum(each for each, _ in turns)
        if not self._capacity.room_within(kind, before + count, PATIENCE_S):
            return
        turn = count, asyncio.get_running_loop().create_future()
        turns.append(turn)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await turn[1]
        except TimeoutError:
            self._leave(kind, turn)
        except asyncio.CancelledError:
            self._leave(kind, turn)
            raise
        else:
            self._entering[kind] -= count

    def _leave(self, kind: Kind, turn: _Turn) -> None:
        """One gave up, perhaps at the moment it was let in."""
        if turn in self._turns[kind]:
            self._turns[kind].remove(turn)
        else:
            self._entering[kind] -= turn[0]
        self.let_in(kind)

    def let_in(self, kind: Kind) -> None:
        """There is more room than before."""
        turns = self._turns[kind]
        while turns and self._fits(kind, turns[0][0]):
            count, turn = turns.popleft()
            self._entering[kind] += count
            if not turn.done():  # else its caller was cancelled, and leaves
                turn.set_result(None)

    def _fits(self, kind: Kind, count: int) -> bool:
        return self._capacity.fits(kind, count, self._entering[kind])
