"""What this node knows of the cluster: the installed view, who owns which slot, what the others still take.

One writer, the supervisor; everybody else of this process reads. All of it proposes only: stale or missing knowledge
costs time, for any node may claim any task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runtime.core.placement import Placement
from runtime.core.task import Band, NodeView
from runtime.core.view import NO_VIEW, Member, View


@dataclass(slots=True)
class Peer:
    """Another member, as its last message told."""

    credits: list[int]  # offers that it still takes from here, by kind of body
    running: int = 0
    table_hash: str = ""
    view: int = 0


class Cluster:
    def __init__(self, incarnation: int, handlers: Iterable[str] = ()) -> None:
        self.incarnation = incarnation
        self.placement = Placement(NO_VIEW, {})
        self.peers: dict[int, Peer] = {}
        self.leases: tuple[NodeView, ...] = ()  # as they were last read
        self._handlers = {incarnation: frozenset(handlers)}
        self.grant: Callable[[], tuple[int, ...]] = tuple  # the credit to tell now; set by the executor
        self.alone = (
            True  # nobody else owns anything: then everything is ours, and nothing has to be looked up
        )

    @property
    def view(self) -> View:
        return self.placement.view

    def knows(self, incarnation: int) -> bool:
        """Whether its handlers are known."""
        return incarnation in self._handlers

    def install(self, view: View, handlers: Mapping[int, frozenset[str]]) -> None:
        """Go by this view from now on. `handlers` by incarnation; they never change within one."""
        members = {member.incarnation for member in view.members}
        self._handlers = {
            number: names for number, names in (self._handlers | dict(handlers)).items() if number in members
        } | {self.incarnation: self._handlers[self.incarnation]}
        self.placement = Placement(view, self._handlers)
        self.peers = {number: peer for number, peer in self.peers.items() if number in members}
        self.alone = all(member.incarnation == self.incarnation for member in view.active)

    def owner(self, band: Band, slot: int, prefers: tuple[str, ...] = ()) -> int | None:
        """The incarnation that owns this slot of this band; None when no active member may serve it."""
        return self.placement.owner(slot, band.handler, band.requires, prefers)

    def home(
        self, handler: str, requires: tuple[str, ...], prefers: tuple[str, ...], slot: int
    ) -> Member | None:
        """The same as a member, for people."""
        owner = self.placement.owner(slot, handler, requires, prefers)
        return None if owner is None else self.view.find(owner)

    def running_on(self, node: str | None) -> Member | None:
        """The member of that name."""
        return next((member for member in self.view.members if member.node == node), None)

    def is_mine(self, band: Band, slot: int, prefers: tuple[str, ...] = ()) -> bool:
        """Whether work of this slot belongs here, or nowhere else."""
        return self.alone or self.owner(band, slot, prefers) in {self.incarnation, None}

    def peer(self, incarnation: int) -> Peer:
        """What is known of a member; made when it is first heard."""
        return self.peers.setdefault(incarnation, Peer(credits=[]))

    def spend(self, incarnation: int, kind: int, wanted: int) -> int:
        """Take up to `wanted` of a peer's credit; how many offers may go there now."""
        peer = self.peers.get(incarnation)
        if peer is None or kind >= len(peer.credits):
            return 0
        spent = min(wanted, peer.credits[kind])
        peer.credits[kind] -= spent
        return spent
