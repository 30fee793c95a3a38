"""The views of a world, as a service of their own or beside the record, and what must hold of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.cluster import Cluster
from runtime.adapters.memory.views import MemoryCoordinator, MemoryViews
from runtime.core.slots import SLOTS
from runtime.core.view import NO_VIEW, Standing, View
from tests.simulation.sim_record import done_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.simulation.sim_history import History
    from tests.simulation.sim_lines import Chaos
    from tests.simulation.sim_record import Record

_KINDS_OF_TASKS = (("works", (), ()), ("late", (), ("gpu",)))


class Views(MemoryViews):
    """Implements Service; keeps every view that there ever was."""

    changes = frozenset({"propose"})

    def __init__(self, history: History, chaos: Chaos, record: Record) -> None:
        super().__init__()
        self.chaos = chaos
        self.all: list[View] = [NO_VIEW]  # by number
        self._history = history
        self._record = record
        self._ended: set[int] = set()
        self._tables: dict[int, tuple[str, int]] = {}  # fingerprints by number of the view
        self._coordinator = MemoryCoordinator(self)

    def serve(self, caller: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return done_at_once(getattr(self._coordinator, method)(*args, **kwargs))

    def add(self, view: View) -> None:
        fail, before = self._history.fail, self.all[-1]
        said = " ".join(f"{m.incarnation}:{m.standing.value}" for m in view.members)
        self._history.note(f"view {view.number} by {view.by}: {view.reason} [{said}]", "views")
        if view.number != before.number + 1:
            fail(f"view {view.number} follows view {before.number}")
        members = {member.incarnation for member in view.members}
        if again := sorted(members & self._ended):
            fail(f"incarnations {again} had ended and left the views, and are in view {view.number} again")
        for member in before.members:
            if member.incarnation in members:
                continue
            if self._record.leases[member.incarnation].ended:
                self._ended.add(member.incarnation)
            replaced = any(m.node == member.node and m.incarnation > member.incarnation for m in view.members)
            if not replaced and not self._record.leases[member.incarnation].ended:
                fail(f"view {view.number} lacks {member}, whose lease is alive")
        for member in view.members:
            was = before.find(member.incarnation)
            if member.standing is Standing.UNREACHABLE and (was is None or was.standing is Standing.ACTIVE):
                self._history.counts["taken for unreachable"] += 1
        self.all.append(view)
        super().add(view)

    def installed(self, cluster: Cluster, before: View) -> None:
        """A node goes by another view than `before` from now on."""
        fail, view, placement = self._history.fail, cluster.view, cluster.placement
        if view.number <= before.number:
            fail(f"incarnation {cluster.incarnation} went from view {before.number} to {view.number}")
        if view.number >= len(self.all) or view != self.all[view.number]:
            fail(f"incarnation {cluster.incarnation} goes by {view}, which was never agreed")
        active = {member.incarnation for member in view.active}
        owners = [placement.table(*kind) for kind in _KINDS_OF_TASKS]
        for kind, table in zip(_KINDS_OF_TASKS, owners, strict=True):
            if placement.eligible(*kind[:2]) and (len(table) != SLOTS or not active.issuperset(table)):
                fail(f"view {view.number}: not every slot of {kind} has an owner")
        fingerprint = placement.hash, hash(tuple(owners))
        if self._tables.setdefault(view.number, fingerprint) != fingerprint:
            fail(f"view {view.number} is another table for incarnation {cluster.incarnation} than for others")


class WatchedCluster(Cluster):
    """Tells what it installs."""

    def __init__(
        self, incarnation: int, handlers: Iterable[str], told: Callable[[Cluster, View], None]
    ) -> None:
        super().__init__(incarnation, handlers)
        self._told = told

    def install(self, view: View, handlers: Mapping[int, frozenset[str]]) -> None:
        before = self.view
        super().install(view, handlers)
        self._told(self, before)
