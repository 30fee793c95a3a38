"""The janitor actor: periodic repair and housekeeping of the record.

Repair goes by owner liveness, never by age: what runs under an incarnation that is dead (its lease ran out) or has
left goes back to waiting. Every node does all of this; the record's locks and fences make that harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from actors.activity import News
from actors.collecting import Collecting
from actors.executor.messages import SuspectsWait, Waits
from actors.load import load_of
from actors.world import World
from runtime.core import decisions
from runtime.core.task import Census, Finish, Orphan, Requeue, Settlement, Verdict
from runtime.errors import Unavailable
from runtime.kernel.actor import ActorContext, Behavior

log = logging.getLogger(__name__)

_ROUND_S: Final = 1.0
_CENSUS_SHARE: Final = 0.01  # of the time: counting a million waiting rows costs the record 0.1 s
_CENSUS_MAX_S: Final = 10.0
_TIDY_EVERY: Final = 5
_FORGET_EVERY: Final = 30
_BATCH_MAX: Final = 500
_FORGET_BATCH_MAX: Final = 1_000
_LIMITERS_KEPT_S: Final = 60.0  # after that a limiter says nothing, and is made anew when it is needed
_FORGET_BATCHES_MAX: Final = 100  # per round, so that a huge history does not stop repair


@dataclass(frozen=True, slots=True)
class Round:
    """To itself, once a second."""


class Janitor(Behavior[Round]):
    """`hint` is told what the executor should know; `counted` gets each census."""

    def __init__(
        self, world: World, hint: Callable[[SuspectsWait | Waits], object], counted: Callable[[Census], None]
    ) -> None:
        self._world = world
        self._hint = hint
        self._counted = counted
        self._round = 0
        self._busy = False
        self._census_at_s = 0.0
        self._collecting = None if world.objects is None else Collecting(world, world.objects)

    async def started(self, ctx: ActorContext[Round]) -> None:
        ctx.self.tell(Round())

    async def receive(self, ctx: ActorContext[Round], message: Round) -> None:
        ctx.after(_ROUND_S, message, key="round")
        self._world.activity.load = load_of(self._world)
        if not self._busy:
            self._busy = True
            ctx.detach(self._clean())
        if self._collecting is not None:
            ctx.detach(self._collecting.once())  # beside it: repair does not wait for where results lie

    async def _clean(self) -> None:
        try:
            await self._repair()
            await self._expire()
            if self._world.clock.now_s() >= self._census_at_s:
                await self._count()
            if self._round % _TIDY_EVERY == _TIDY_EVERY - 1:
                await self._world.store.tidy_dependences()
            if self._round % _FORGET_EVERY == _FORGET_EVERY - 1:
                await self._forget()
            self._round += 1
        except Unavailable as away:
            log.debug("janitor: the record is away: %s", away)
        finally:
            self._busy = False

    async def _repair(self) -> None:
        store, world = self._world.store, self._world
        if not world.fence.passed:  # else the record was away, and the others could not renew either
            for incarnation in await store.bury(world.incarnation, world.lease_s):
                log.warning("incarnation %d is dead: its lease ran out; its work is taken over", incarnation)
        while orphans := await store.orphans(_BATCH_MAX):
            settlements = [Settlement(o.id, o.attempt, o.incarnation, _after_death(o)) for o in orphans]
            verdicts = await store.settle(settlements)
            self._tell_executor(orphans, settlements, verdicts)
            if len(orphans) < _BATCH_MAX:
                break

    def _tell_executor(
        self, orphans: list[Orphan], settlements: list[Settlement], verdicts: list[Verdict]
    ) -> None:
        repaired: set[int] = set()
        suspects: set[int] = set()
        dead: list[News] = []
        for orphan, settlement, verdict in zip(orphans, settlements, verdicts, strict=True):
            move = settlement.move
            if not verdict.committed:
                continue
            if isinstance(move, Requeue):
                (suspects if move.suspect else repaired).add(orphan.band)
            elif (band := self._world.bands.get(orphan.band)) is not None:
                error_type = move.error.type if move.error else None
                self._world.telemetry.count(
                    "tasks_finished_total", handler=band.handler, outcome=move.status.state.value
                )
                dead.append((orphan.id, band.handler, move.status.state, orphan.attempt, error_type, None))
        self._world.activity.events.publish_all(dead)
        log.info("%d attempts of dead incarnations were repaired", sum(v.committed for v in verdicts))
        self._world.telemetry.count("sweep_repaired_total", len(orphans), kind="orphan")
        if repaired:
            self._hint(Waits(frozenset(repaired)))
        if suspects:
            self._hint(SuspectsWait(frozenset(suspects)))

    async def _expire(self) -> None:
        if expired := await self._world.store.expire(_BATCH_MAX):
            self._world.activity.events.publish_all([
                (view.id, view.handler, view.state, view.attempt, view.error.type if view.error else None, None)
                for view in await self._world.store.get_many(expired)
            ])  # fmt: skip

    async def _count(self) -> None:
        began_s = self._world.clock.now_s()
        census = await self._world.store.census()
        ended_s = self._world.clock.now_s()
        self._census_at_s = ended_s + min(_CENSUS_MAX_S, (ended_s - began_s) / _CENSUS_SHARE)
        self._counted(census)
        suspects = frozenset(-count.band for count in census.bands if count.band < 0 and count.ready)
        served = frozenset(
            band for band in suspects
            if (known := self._world.bands.get(band)) is not None and self._world.serves(known) is not None
        )  # fmt: skip
        if served:
            self._hint(SuspectsWait(served))

    async def _forget(self) -> None:
        keeping = self._world.keeping
        for _ in range(_FORGET_BATCHES_MAX):
            gone = await self._world.store.forget(
                finished_before_s=keeping.finished_s, keys_before_s=keeping.keys_s, limit=_FORGET_BATCH_MAX
            )
            if gone < _FORGET_BATCH_MAX:
                break
        await self._world.store.forget_limiters(_LIMITERS_KEPT_S, _FORGET_BATCH_MAX)


def _after_death(orphan: Orphan) -> Finish | Requeue:
    if orphan.left:
        return decisions.after_release(orphan)
    return decisions.after_crash(orphan, alone=orphan.alone)
