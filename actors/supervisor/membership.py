"""This node's place in the cluster: heartbeats out and in, views proposed and installed.

Law: what to propose is decided in runtime.core.membership; here is only when, and the sending. The coordinator or the
broker being away freezes the view and stops nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from actors.keyed.placing import placed
from actors.world import World
from runtime.core.detector import Detector
from runtime.core.membership import Heard, is_own_affair, next_view, rank
from runtime.core.messages import Credit, Heartbeat
from runtime.core.task import NodeView
from runtime.core.view import View
from runtime.errors import Unavailable
from runtime.ports import Coordinator

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
_RECONNECT_S: Final = 0.5
_NEWER_S: Final = 5.0
_JOIN_WITHOUT_BROKER_S: Final = 3.0
_JOIN_WITHOUT_VIEW_S: Final = 5.0
_JOIN_LOOK_S: Final = 0.05
_BUSY_LAG_S: Final = 1.0  # a loop as late as this hears late, and blames nobody


@dataclass(slots=True)
class _Pending:
    """A change that others should have proposed; how many rounds ago it was first seen."""

    number: int = -1
    rounds: int = 0


class Membership:
    """`leave` is called once when somebody asked this node to drain."""

    def __init__(self, world: World, coordinator: Coordinator, leave: Callable[[], object]) -> None:
        self._world = world
        self._cluster = world.cluster
        self._coordinator = coordinator
        self._leave = leave
        self._detector = Detector(world.incarnation, world.heartbeat_s, world.clock.now_s())
        self._sequence = 0
        self._pending = _Pending()
        self._could_hear = False
        self._looked_s = world.clock.now_s()
        self._late_s = 0.0  # how late the last look came: of the event loop
        self._looking = False
        self._asked_to_leave = False
        self._mismatched: set[int] = set()  # views whose table somebody has otherwise

    # -- joining ------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Active once what we send to ourselves arrives (the real data path), then in a view. Neither is waited for
        without end: work goes on without the broker and without the coordinator."""
        world = self._world
        if world.broker is not None:
            await self._until(
                lambda: world.broker is not None and world.broker.reachable, _JOIN_WITHOUT_BROKER_S
            )
        await world.store.set_state(world.incarnation, "active")
        await self.look()
        await self._until(
            lambda: self._cluster.view.find(world.incarnation) is not None, _JOIN_WITHOUT_VIEW_S
        )
        if self._cluster.view.find(world.incarnation) is None:
            log.warning("the coordinator does not answer: this node works without a place in the ring")

    async def _until(self, holds: Callable[[], bool], within_s: float) -> None:
        clock = self._world.clock
        until_s = clock.now_s() + within_s
        while not holds() and clock.now_s() < until_s:
            await clock.sleep(_JOIN_LOOK_S)

    # -- heartbeats ---------------------------------------------------------------------------------

    async def beat(self) -> None:
        """Tell everybody that we are here, what we take, and which table we go by."""
        world = self._world
        if world.broker is None:
            return
        self._sequence += 1
        message = Heartbeat(
            incarnation=world.incarnation,
            view=self._cluster.view.number,
            sequence=self._sequence,
            lag_ms=self._late_s * 1000,
            table_hash=self._cluster.placement.hash,
            credits=self._cluster.grant()
            if world.broker.reachable
            else (),  # deaf, it would claim none of them
            running=world.capacity.taken,
        )
        try:
            await world.broker.broadcast(message)
        except Unavailable as away:
            log.debug("no heartbeat: %s", away)

    def on_heartbeat(self, beat: Heartbeat) -> bool:
        """Whether its sender goes by a newer view than we do."""
        self._detector.beat(beat.incarnation, self._world.clock.now_s())
        if beat.incarnation == self._world.incarnation:
            return False
        peer = self._cluster.peer(beat.incarnation)
        peer.credits, peer.running = list(beat.credits), beat.running
        peer.table_hash, peer.view = beat.table_hash, beat.view
        if beat.view == self._cluster.view.number and beat.table_hash != self._cluster.placement.hash:
            self._mismatch(beat)
        return beat.view > self._cluster.view.number

    def on_credit(self, credit: Credit) -> None:
        if credit.incarnation != self._world.incarnation:
            self._cluster.peer(credit.incarnation).credits = list(credit.credits)

    def _mismatch(self, beat: Heartbeat) -> None:
        self._world.telemetry.count("ring_mismatch_total")
        if beat.view not in self._mismatched:
            self._mismatched = {beat.view}
            log.error(
                "view %d: incarnation %d has the slot table %s, here it is %s; work is found by pulling only",
                beat.view, beat.incarnation, beat.table_hash, self._cluster.placement.hash,
            )  # fmt: skip

    # -- views --------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Install newer views as they come, without end."""
        while True:
            try:
                view = await self._coordinator.newer(self._cluster.view.number, _NEWER_S)
                if view is not None:
                    await self._install(view)
            except Unavailable as away:
                log.debug("the coordinator is away, the view stays as it is: %s", away)
                await self._world.clock.sleep(_RECONNECT_S)

    async def catch_up(self) -> None:
        """Somebody goes by a newer view."""
        try:
            await self._install(await self._coordinator.view())
        except Unavailable as away:
            log.debug("a newer view cannot be read: %s", away)

    async def look(self) -> None:
        """Compare the view with the leases and with who is heard; propose what should follow."""
        if self._looking:
            return
        self._looking = True
        try:
            view = (
                self._cluster.view
            )  # before the leases: what follows a newer view is not read from older leases
            leases = await self._world.store.nodes()
            self._cluster.leases = tuple(leases)
            self._obey(leases)
            wanted = next_view(view, leases, self._heard(), self._world.incarnation)
            if wanted is not None and self._is_our_turn(wanted):
                await self._propose(wanted)
        except Unavailable as away:
            log.debug("the view stays as it is: %s", away)
        finally:
            self._looking = False

    def _obey(self, leases: list[NodeView]) -> None:
        asked = any(
            lease.incarnation == self._world.incarnation and lease.drain_requested for lease in leases
        )
        if asked and not self._asked_to_leave:
            self._asked_to_leave = True
            log.info("somebody asked this node to drain")
            self._leave()

    def _heard(self) -> Heard:
        """Nobody is blamed by a node that is cut off, stood still or has just begun to hear."""
        broker, now_s = self._world.broker, self._world.clock.now_s()
        self._late_s, self._looked_s = max(0.0, now_s - self._looked_s - LOOK_S), now_s
        can_hear = broker is not None and broker.witness and broker.reachable
        if can_hear and (not self._could_hear or self._late_s > _BUSY_LAG_S):
            self._detector.restart(now_s)
        self._could_hear = can_hear
        self._detector.follow(frozenset(member.incarnation for member in self._cluster.view.members), now_s)
        if not can_hear:
            return Heard(itself=broker is None or not broker.witness)
        return Heard(self._detector.silent(now_s), self._detector.hears_itself(now_s))

    def _is_our_turn(self, wanted: View) -> bool:
        me = self._world.incarnation
        if self._pending.number != wanted.number:
            self._pending = _Pending(wanted.number)
        self._pending.rounds += 1
        return is_own_affair(self._cluster.view, wanted, me) or self._pending.rounds > rank(
            self._cluster.view, me
        )

    async def _propose(self, wanted: View) -> None:
        if await self._coordinator.propose(wanted):
            log.info("view %d: %s", wanted.number, wanted.reason)
            await self._install(wanted)
            await self.beat()  # whoever hears it reads the new view at once
        else:
            await self._install(await self._coordinator.view())

    async def _install(self, view: View) -> None:
        if view.number <= self._cluster.view.number:
            return
        handlers = await self._handlers(view)
        if view.number <= self._cluster.view.number:
            return  # another one was faster while we asked
        self._cluster.install(view, handlers)
        log.debug("installed view %d: %s", view.number, view.reason)
        telemetry = self._world.telemetry
        telemetry.gauge("ring_view", view.number)
        telemetry.gauge("node_slots", self._cluster.placement.shares().get(self._world.node, 0))

    async def _handlers(self, view: View) -> dict[int, frozenset[str]]:
        """The handlers of members that were not known yet, from their leases. Fixed per incarnation, so a view means
        the same table on every node; a lease that is gone cannot be one of its members' for long."""
        if all(self._cluster.knows(member.incarnation) for member in view.members):
            return {}
        return {lease.incarnation: placed(lease.about) for lease in await self._world.store.nodes()}

    async def set_state(self, state: str) -> None:
        """Write it into the lease, and say so to the others with a view."""
        try:
            await self._world.store.set_state(self._world.incarnation, state)
        except Unavailable as away:  # the lease runs out by itself
            log.warning("the record does not know that this node is %s: %s", state, away)
            return
        await self.look()
