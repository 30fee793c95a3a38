"""Tasks of batch handlers, from claim to call: they gather until their batch is full or the first has waited enough.

Law: a task that waits here is claimed, and is in every way as one that waits for a worker. Together are tasks of one
handler and one tenant, of whatever priority and band; a suspect is called alone. One whose time is over, or that is
cancelled, ends at once while the call goes on for the others; the call itself is stopped with the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

from actors.authoring.registry import PLACE, Kind
from actors.executor.bodies import Lot, Move, Run, Stop, move_when_stopped
from actors.executor.calls import lot_of
from actors.executor.pool import Pool
from actors.world import World
from runtime.core import decisions
from runtime.kernel.clock import Timer

PAYLOAD_BYTES_MAX: Final = 16 << 20  # of one call

_Key = tuple[str, str]  # handler, tenant


@dataclass(slots=True, eq=False)
class _Gathering:
    runs: list[Run] = field(default_factory=list)
    size: int = 0
    timer: Timer | None = None


class Batches:
    """`ended` is told of tasks that end without the call."""

    def __init__(
        self, world: World, pools: Mapping[Kind, Pool], ended: Callable[[Run, Move], object]
    ) -> None:
        self._world = world
        self._pools = pools
        self._ended = ended
        self._gathering: dict[_Key, _Gathering] = {}
        self._lots: dict[UUID, Lot] = {}  # by task
        self._open: dict[Lot, None] = {}

    # -- gathering ----------------------------------------------------------------------------------

    def put(self, run: Run) -> None:
        """Call it soon. Bounded by what the executor claims."""
        batch = run.handler.options.batch
        assert batch is not None, "of a batch handler"
        if run.claim.alone:
            self._call([run])
            return
        key = (run.handler.name, self._world.bands[run.claim.band].tenant)
        gathering = self._gathering.get(key)
        size = len(run.claim.payload)
        if gathering is not None and gathering.size + size > PAYLOAD_BYTES_MAX:
            self._close(key, gathering)
            gathering = None
        if gathering is None:
            gathering = self._gathering[key] = _Gathering()
            close = partial(self._close, key, gathering)
            gathering.timer = self._world.clock.call_later(batch.wait_s, close)
        gathering.runs.append(run)
        self._world.capacity.gathering += 1
        gathering.size += size
        if len(gathering.runs) >= batch.max:
            self._close(key, gathering)

    def _close(self, key: _Key, gathering: _Gathering) -> None:
        if self._gathering.get(key) is not gathering:
            return  # closed, and its timer came all the same
        del self._gathering[key]
        if gathering.timer is not None:
            gathering.timer.cancel()
        self._world.capacity.gathering -= len(gathering.runs)
        if gathering.runs:
            self._call(gathering.runs)

    def _call(self, runs: list[Run]) -> None:
        handler = runs[0].handler
        lot = lot_of(runs, max(0, PLACE - len(runs) * handler.share))
        self._world.capacity.fill(handler.kind, lot.parts)
        for run in runs:
            self._lots[run.claim.id] = lot
        self._open[lot] = None
        self._pools[handler.kind].put(lot)

    def withdraw(self) -> list[Run]:
        """Everything that gathers, taken out."""
        runs: list[Run] = []
        for key, gathering in list(self._gathering.items()):
            runs += gathering.runs
            self._world.capacity.gathering -= len(gathering.runs)
            gathering.runs = []
            self._close(key, gathering)
        return runs

    # -- calls --------------------------------------------------------------------------------------

    def over(self, lot: Lot) -> None:
        """The call has ended, or will not begin."""
        self._world.capacity.fill(lot.handler.kind, -lot.parts)
        del self._open[lot]
        for run in lot.live:
            self._lots.pop(run.claim.id, None)

    def cancel(self, run: Run) -> bool:
        """Somebody asked to cancel this one task. False when it is not here (its call has ended)."""
        lot = self._lots.get(run.claim.id)
        if lot is None:
            return run.handler.batch_fn is not None and self._cancel_gathering(run)
        if len(lot.live) > 1:
            self._end_alone(lot, run, Stop.CANCEL)
        elif self._pools[lot.handler.kind].remove(lot):
            self.over(lot)
            self._ended(run, decisions.after_cancel(run.claim))
        elif lot.stop is None:
            self._pools[lot.handler.kind].stop(lot, Stop.CANCEL)
        return True

    def _cancel_gathering(self, run: Run) -> bool:
        for gathering in self._gathering.values():
            if run in gathering.runs:
                gathering.runs.remove(run)
                self._world.capacity.gathering -= 1
                gathering.size -= len(run.claim.payload)
                self._ended(run, decisions.after_cancel(run.claim))
                return True
        return False

    def check_deadlines(self) -> None:
        """Tasks whose own time is over. Where all of a call's are, the pool stops the call as any body."""
        now_s = self._world.clock.now_s()
        for lot in list(self._open):
            running = self._pools[lot.handler.kind].is_active(lot)
            if running and lot.stop is None and now_s >= lot.deadline_s:
                late = [run for run in lot.live if now_s >= lot.started_s + run.claim.timeout_s]
                if len(late) < len(lot.live):
                    for run in late:
                        self._end_alone(lot, run, Stop.TIMEOUT)
                    lot.deadline_s = lot.started_s + min(run.claim.timeout_s for run in lot.live)

    def _end_alone(self, lot: Lot, run: Run, why: Stop) -> None:
        if lot.stop is not None:
            return  # it ends with the call
        run.stop = why
        run.context.request_cancel(why.value)
        run.context.close()
        del lot.live[run], self._lots[run.claim.id]
        self._ended(run, move_when_stopped(run, self._world.jitter()))
