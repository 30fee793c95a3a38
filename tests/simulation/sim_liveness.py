"""What must not take long, looked at twice a second: deaths, repair, and work that waits while somebody has room.

Bounds hold on good lines only, and while the record is there: elsewhere a world is only asked to end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from runtime.core.task import Reason
from tests.simulation.sim_node import LEASE_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from runtime.core.task import Band
    from tests.simulation.sim_node import Life, Shared, SimNode

_LOOK_S: Final = 0.5
_REPAIR_S: Final = 2.0  # from the end of a lease to the work's being taken over
_TOLD_S: Final = 1.5  # of what was taken over: whoever did that looks for it at once
_FOUND_S: Final = (
    15.0  # of what nobody was told: a sweep asks for as many rows as there is room, the low lane last
)


class Liveness:
    def __init__(self, nodes: Sequence[SimNode], shared: Shared) -> None:
        self._nodes = nodes
        self._shared = shared
        self._record = shared.record
        self._waits: dict[tuple[UUID, int], float] = {}  # since when somebody could have taken it

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._record.promises.check_all()
            chaos, now_s = self._record.chaos, self._shared.history.now_s()
            calm_s = 0.0 if chaos.away or chaos.frozen else now_s - chaos.calm_since_s
            if chaos.clean and calm_s > 2 * LEASE_S:
                self._check_repair(calm_s)
                self._check_waiting(now_s)
            else:
                self._waits.clear()

    def _fit(self, for_s: float) -> list[Life]:
        """Those that nothing has kept from working for so long."""
        since_s = self._shared.history.now_s() - for_s
        return [
            node.life for node in self._nodes
            if node.up.is_set() and node.up_since_s < since_s and node.life.is_healthy(since_s)
        ]  # fmt: skip

    def _check_repair(self, calm_s: float) -> None:
        """Whoever's lease has run out is dead soon, and what it ran is taken over."""
        now = self._record.now()
        if not self._fit(LEASE_S + _REPAIR_S + _LOOK_S):  # who may judge has held its own lease for one lease
            return
        for row in self._record.tables.running.values():
            until = self._record.promises.granted[row.incarnation]
            over_s = min((now - until).total_seconds(), calm_s - LEASE_S)
            if over_s > _REPAIR_S:
                self._shared.history.fail(
                    f"{row.id} is not taken over {over_s:g} s after its node's lease ran out"
                )

    def _check_waiting(self, now_s: float) -> None:
        """Suspects wait for a node that is empty; all others for nothing but room."""
        tables, fit, waits = self._record.tables, self._fit(_TOLD_S), {}
        up = [node.life for node in self._nodes if node.up.is_set()]
        for row in tables.waiting.values():
            if row.band <= 0 or row.due > self._record.now():
                continue
            able = [self._could_take(life, row.band) for life in fit]
            if any(able):
                key = row.id, row.attempt
                waits[key] = since_s = self._waits.get(key, now_s)
                told = row.reason is Reason.CRASHED and all(able) and len(fit) == len(up)
                if now_s - since_s > (_TOLD_S if told else _FOUND_S):
                    self._shared.history.fail(f"{row} waits since {since_s:g}, and there is room")
        self._waits = waits

    def _could_take(self, life: Life, band_id: int) -> bool:
        band: Band | None = life.world.bands.get(band_id)
        handler = None if band is None else life.world.serves(band)
        if handler is None or handler.is_limited:  # that waits for more than room
            return False
        return life.world.capacity.room(handler.kind) > 0
