"""Group commit of turns, repeated until the record answers. The versions and fences make repeats harmless."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from actors.keyed.turn import ActiveTurn
from runtime.core.keyed import TurnEnd
from runtime.core.task import Verdict
from runtime.errors import Unavailable
from runtime.kernel.batcher import Batcher
from runtime.kernel.clock import Clock
from runtime.ports import KeyedStore

log = logging.getLogger(__name__)

_MESSAGES_MAX: Final = 500
_FLUSHERS: Final = 2
_WAITING_MAX: Final = 1_000_000  # never reached: begun turns bound it
_REPEAT_FIRST_S: Final = 0.1
_REPEAT_MAX_S: Final = 2.0
_TRIES_ALONE: Final = 3

Ended = tuple[ActiveTurn, Verdict]


class Ending:
    """`told` hears of each batch."""

    def __init__(
        self, store: KeyedStore, incarnation: int, clock: Clock, told: Callable[[Sequence[Ended]], None]
    ) -> None:
        self._store = store
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
        ends = [turn.end(self._incarnation, now_s) for turn in turns]
        try:
            return await self._end(ends)
        except Exception:
            log.exception("ending %d turns failed in a way that nobody has foreseen", len(ends))
        return [verdict for end in ends for verdict in await self._end_alone(end)]

    async def _end(self, ends: Sequence[TurnEnd]) -> Sequence[Verdict]:
        delay_s = _REPEAT_FIRST_S
        while True:
            try:
                return await self._store.end_turns(ends)
            except Unavailable as away:
                log.warning("%d turns wait for the record: %s", len(ends), away)
            await self._clock.sleep(delay_s)
            delay_s = min(_REPEAT_MAX_S, delay_s * 2)

    async def _end_alone(self, end: TurnEnd) -> Sequence[Verdict]:
        for _ in range(_TRIES_ALONE):
            try:
                return await self._end([end])
            except Exception:
                log.exception("ending the turn of %s alone failed", end.actor)
            await self._clock.sleep(_REPEAT_MAX_S)
        return [Verdict.REFUSED]

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
