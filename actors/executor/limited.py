"""Handlers with limits: when to look for what may begin, and how much of this node's room that may take.

Law: the record counts and decides; here is only when to ask. What is limited never stands in the way of other work: it
has no backlog and takes no offers. A look says when time lets the next one begin, and no sooner is there another one,
unless rows come or one that counted ends. All nodes together look about `_LOOKS_PER_S` times a second at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from actors.authoring.registry import HandlerDef, Kind
from actors.executor.messages import LimitedPulled
from actors.world import World
from runtime.core.limits import FIRST_KEY, LimitedPull, LimitedTake
from runtime.core.task import Take
from runtime.errors import Unavailable

log = logging.getLogger(__name__)

_LOOKS_PER_S: Final = 100.0
_GAP_MAX_S: Final = 0.5
_BANDS_MAX: Final = 100  # in one look
_ROWS_MAX: Final = 100
_AWAY_S: Final = 0.5


class Limited:
    """`bands` says which limited bands of a kind are served now; `detach` runs a coroutine beside the executor, `tell`
    sends to it, and `wake` makes it look again after so many seconds.
    """

    def __init__(self, world: World, bands: Callable[[Kind], Sequence[int]]) -> None:
        self._world = world
        self._bands = bands
        self._due_s: dict[Kind, float] = {}  # when to look
        self._again_s: dict[Kind, float] = {}  # what the looks of this round have said
        self._at: dict[Kind, int] = dict.fromkeys(Kind, 0)  # where the round is, in the bands of that kind
        self._afters: dict[int, UUID] = {}
        self.idle = True  # nothing was asked for, so nothing can come

    def start(
        self,
        detach: Callable[[Coroutine[Any, Any, None]], None],
        tell: Callable[[LimitedPulled], object],
        wake: Callable[[float], object],
    ) -> None:
        self._detach, self._tell, self._wake = detach, tell, wake

    # -- when ---------------------------------------------------------------------------------------

    def waits(self, band_id: int) -> bool:
        """Rows of this band wait and are due. Whether it is a limited one."""
        if not self.covers(band_id):
            return False
        handler = self._world.serves(self._world.bands[band_id])
        if handler is not None:
            self._soon(handler.kind)
        return True

    def covers(self, band_id: int) -> bool:
        """Whether it is a limited band."""
        limits = self._world.capacity.limits
        band = self._world.bands.get(band_id) if limits else None
        return band is not None and not band.keyed and band.handler in limits

    def ended(self, handler: HandlerDef) -> None:
        """One that counted has left the record's running rows."""
        limit = self._world.capacity.limits.get(handler.name)
        if limit is not None and limit.max_running is not None:
            self._soon(handler.kind)

    def sweep(self) -> None:
        """Look once in any case: others may have put something there, or died."""
        for kind in Kind if self._world.capacity.limits else ():
            self._soon(kind)

    def _soon(self, kind: Kind) -> None:
        self._due_s[kind] = self._world.clock.now_s()

    # -- looking ------------------------------------------------------------------------------------

    def look(self) -> None:
        """Ask for what is due to be asked for. One question at a time; what finds no room waits for it first."""
        if not self.idle:
            return
        capacity = self._world.capacity
        if not self._due_s:  # as in nodes without any limited handler, whenever a task ends
            capacity.limited_at_s = None
            return
        now_s = self._world.clock.now_s()
        for kind in [kind for kind, due_s in self._due_s.items() if due_s <= now_s]:
            bands = self._bands(kind)
            if not bands:
                del self._due_s[kind]
            elif (room := capacity.room_for_limited(kind)) > 0:
                self._send(kind, bands, min(room, _ROWS_MAX))
                return
        self._arm(now_s)

    def _arm(self, now_s: float) -> None:
        """What is overdue waits for room, and is looked for when some is given back."""
        later = [due_s for due_s in self._due_s.values() if due_s > now_s]
        self._world.capacity.limited_at_s = min(later, default=None)
        if later:
            self._wake(min(later) - now_s)

    def _send(self, kind: Kind, bands: Sequence[int], rows: int) -> None:
        at = self._at[kind] if self._at[kind] < len(bands) else 0
        some = bands[at : at + _BANDS_MAX]
        self._at[kind] = at + _BANDS_MAX if at + _BANDS_MAX < len(bands) else 0
        takes = [LimitedTake(band, self._afters.get(band, FIRST_KEY)) for band in some]
        del self._due_s[kind]  # what comes while the answer is under way sets it again
        self.idle = False
        self._detach(self._pull(kind, takes, rows))

    async def _pull(self, kind: Kind, takes: Sequence[LimitedTake], rows: int) -> None:
        store, incarnation = self._world.store, self._world.incarnation
        try:
            self._tell(LimitedPulled(kind, await store.pull_limited(takes, rows, incarnation)))
        except Unavailable as away:
            log.warning("pulling under limits: the record is away: %s", away)
            self._tell(LimitedPulled(kind, LimitedPull(again_s=_AWAY_S), failed=True))

    async def pull_alone(self, take: Take) -> LimitedPull:
        """A suspect of a limited handler. Raises Unavailable."""
        takes = [LimitedTake(take.band)]
        return await self._world.store.pull_limited(takes, take.limit, self._world.incarnation, alone=True)

    def pulled(self, answer: LimitedPulled) -> None:
        """The executor has started what came."""
        self.idle = True
        kind, pull, now_s = answer.kind, answer.pull, self._world.clock.now_s()
        self._remember(pull.afters)
        if pull.again_s is not None:
            at_s = now_s + max(pull.again_s, self._gap_s())
            self._again_s[kind] = min(at_s, self._again_s.get(kind, at_s))
        if self._at[kind]:  # not all bands were asked for yet
            self._due_s.setdefault(kind, now_s)
        elif (again_s := self._again_s.pop(kind, None)) is not None:
            self._due_s[kind] = min(again_s, self._due_s.get(kind, again_s))
        self.look()

    def _remember(self, afters: Mapping[int, UUID]) -> None:
        for band, after in afters.items():
            if after == FIRST_KEY:
                self._afters.pop(band, None)
            else:
                self._afters[band] = after

    def _gap_s(self) -> float:
        """Between two looks of this node: the longer, the more nodes look."""
        nodes = max(1, len(self._world.cluster.view.active))
        return min(_GAP_MAX_S, nodes / _LOOKS_PER_S) * (0.5 + self._world.jitter())
