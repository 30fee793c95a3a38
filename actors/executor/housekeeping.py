"""What the executor asks the record once a second: what others changed, and what it may have lost.

The audit: an answer can be lost after its claim was committed (a time-out, a broken connection). Then the record says
that this node runs an attempt it knows nothing of. What two audits in a row do not know is handed back; the fence
makes that safe even if the answer was only late.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from uuid import UUID

from actors.world import World
from runtime.core import decisions
from runtime.core.limits import in_force
from runtime.core.task import Orphan, Progress, Settlement
from runtime.errors import Unavailable

log = logging.getLogger(__name__)

_PLACED_MAX: Final = 500  # in one round
_AUDIT_EVERY_S: Final = 10.0
_WEIGHTS_EVERY_S: Final = 5.0
_AUDIT_AGAIN_S: Final = 3.0  # longer than a claim may take to be answered


class Housekeeping:
    """`knows` says whether this node still has (id, attempt) in hand; `waits` hears of bands in which rows wait."""

    def __init__(
        self,
        world: World,
        knows: Callable[[UUID, int], bool],
        cancel: Callable[[UUID], None],
        waits: Callable[[Iterable[int]], None],
    ) -> None:
        self._world = world
        self._knows = knows
        self._cancel = cancel
        self._waits = waits
        self._progress: dict[tuple[UUID, int], Progress] = {}
        self._unknown: frozenset[tuple[UUID, int]] = frozenset()
        self._audit_at_s = world.clock.now_s() + _AUDIT_EVERY_S
        self._weights_at_s = 0.0
        self._busy = False

    def progress(self, task_id: UUID, attempt: int, progress: Progress) -> None:
        """The newest progress of a running attempt, to be written with the next round."""
        self._progress[task_id, attempt] = progress

    def audit_soon(self) -> None:
        """An answer may have been lost."""
        self._audit_at_s = min(self._audit_at_s, self._world.clock.now_s() + _AUDIT_AGAIN_S)

    async def anew(self) -> None:
        """One round in which everything is read that is read more rarely else."""
        self._weights_at_s = 0.0
        await self.once()

    async def once(self) -> None:
        """One round; skipped while one is under way. The record being away is no error here."""
        if self._busy:
            return
        self._busy = True
        try:
            await self._round()
        except Unavailable as away:
            log.debug("housekeeping: the record is away: %s", away)
        finally:
            self._busy = False

    async def _round(self) -> None:
        world = self._world
        placed = await world.store.place_unbanded(_PLACED_MAX)
        await world.bands.refresh()
        if placed:
            self._waits(placed)
        world.capacity.paused = await world.store.paused()
        if world.clock.now_s() >= self._weights_at_s:
            await self._read_weights()
        if (limits := in_force(await world.store.limits())) != world.capacity.limits:
            world.capacity.limits = limits
        for task_id, attempt in await world.store.cancel_requests(world.incarnation):
            if self._knows(task_id, attempt):
                self._cancel(task_id)
        await self._report(self._progress)
        if world.clock.now_s() >= self._audit_at_s:
            await self._audit()

    async def _read_weights(self) -> None:
        self._weights_at_s = self._world.clock.now_s() + _WEIGHTS_EVERY_S
        weights = await self._world.store.tenant_weights()
        if weights != self._world.capacity.weights:
            self._world.capacity.weights = weights

    async def _report(self, reports: Mapping[tuple[UUID, int], Progress]) -> None:
        if reports:
            self._progress = {}
            await self._world.store.report_progress(self._world.incarnation, reports)

    async def _audit(self) -> None:
        held = await self._world.store.held(self._world.incarnation)
        unknown = {(o.id, o.attempt): o for o in held if not self._knows(o.id, o.attempt)}
        lost = [orphan for key, orphan in unknown.items() if key in self._unknown]
        self._unknown = frozenset(unknown) - {(o.id, o.attempt) for o in lost}
        wait_s = _AUDIT_AGAIN_S if self._unknown else _AUDIT_EVERY_S
        self._audit_at_s = self._world.clock.now_s() + wait_s
        if lost:
            await self._hand_back(lost)

    async def _hand_back(self, lost: list[Orphan]) -> None:
        log.warning("%d attempts were claimed but their answer was lost; they are handed back", len(lost))
        self._world.telemetry.count("sweep_repaired_total", len(lost), kind="lost_claim")
        await self._world.store.settle(
            [Settlement(o.id, o.attempt, o.incarnation, decisions.after_release(o)) for o in lost]
        )
