"""Group commit of turns, repeated until the record answers. The versions and fences make repeats harmless."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from actors.insisting import Committing
from actors.keyed.turn import ActiveTurn
from runtime.core.keyed import TurnEnd
from runtime.core.task import Verdict
from runtime.kernel.batcher import Batcher
from runtime.kernel.clock import Clock
from runtime.ports import KeyedStore

log = logging.getLogger(__name__)

_MESSAGES_MAX: Final = 500
_FLUSHERS: Final = 2
_WAITING_MAX: Final = 1_000_000  # never reached: begun turns bound it

Ended = tuple[ActiveTurn, Verdict]


class Ending:
    """`told` hears of each batch."""

    def __init__(
        self, store: KeyedStore, incarnation: int, clock: Clock, told: Callable[[Sequence[Ended]], None]
    ) -> None:
        self._store = store
        self._committing = Committing(self._commit, clock, "turns", lambda one: f"the turn of {one.actor}")
        self._incarnation = incarnation
        self._clock = clock
        self._told = told
        self._batcher: Batcher[ActiveTurn, Verdict] = Batcher(
            self._flush,
            name="ending turns",
            flushers=_FLUSHERS,
            max_items=_MESSAGES_MAX,
            capacity=_WAITING_MAX,
            on_done=self._done,
        )

    def put(self, turn: ActiveTurn) -> None:
        self._batcher.put(turn, weight=len(turn.ends))

    async def close(self) -> None:
        """Wait until everything that was put is settled."""
        await self._batcher.close()

    async def _flush(self, turns: list[ActiveTurn]) -> Sequence[Verdict]:
        now_s = self._clock.now_s()
        return await self._committing.all([turn.end(self._incarnation, now_s) for turn in turns])

    async def _commit(self, ends: Sequence[TurnEnd]) -> Sequence[Verdict]:
        return await self._store.end_turns(ends)

    def _done(self, batch: Sequence[tuple[ActiveTurn, Verdict | Exception]]) -> None:
        told: list[Ended] = []
        for turn, verdict in batch:
            if isinstance(verdict, Exception):
                log.error("ending the turn of %s failed", turn.actor, exc_info=verdict)
            elif verdict is Verdict.REFUSED and turn.may_try_again:
                turn.refused()
                self.put(turn)
            else:
                told.append((turn, verdict))
        self._told(told)
