"""Placement: which incarnation owns a slot, for whom. Made from a view, and never changed.

Law: the same view and the same handlers give the same tables on every node. A node is eligible for a task when it is
active, has the handler loaded and bears all tags the task requires; preferred tags only order: where an eligible node
bears all of them, the others are left out. Nobody eligible is an empty table, not an error: the task waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runtime.core.ring import Table, build_table, shares, table_hash
from runtime.core.view import Member, View

_TABLES_MAX: Final = 64  # of 32 KiB each; combinations in use at the same time are few

Owners = tuple[int, ...]  # incarnation by slot; empty when nobody is eligible


class Placement:
    """`handlers` are the names that each incarnation has loaded; one that is not there has none.

    `ring` is the table over all active members by node name, `hash` its fingerprint.
    """

    def __init__(self, view: View, handlers: Mapping[int, frozenset[str]]) -> None:
        self.view = view
        self._handlers = dict(handlers)
        self._by_node = {member.node: member for member in view.active}
        self._tables: dict[frozenset[str], Owners] = {}
        self._known: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Owners] = {}
        self.ring = build_table({node: member.weight for node, member in self._by_node.items()})
        self.hash = table_hash(self.ring)

    def table(self, handler: str, requires: tuple[str, ...] = (), prefers: tuple[str, ...] = ()) -> Owners:
        """Who owns each slot among those eligible."""
        key = handler, requires, prefers
        owners = self._known.get(key)
        if owners is None:
            nodes = self._eligible(handler, requires, prefers)
            owners = self._known[key] = self._owners(frozenset(member.node for member in nodes))
            if len(self._known) > _TABLES_MAX:
                del self._known[next(iter(self._known))]
        return owners

    def owner(
        self, slot: int, handler: str, requires: tuple[str, ...] = (), prefers: tuple[str, ...] = ()
    ) -> int | None:
        """The owning incarnation, None when nobody is eligible."""
        owners = self.table(handler, requires, prefers)
        return owners[slot] if owners else None

    def eligible(self, handler: str, requires: tuple[str, ...] = ()) -> tuple[Member, ...]:
        """Active members that have the handler and bear the tags, whatever their weight."""
        return tuple(
            member for member in self.view.active
            if handler in self._handlers.get(member.incarnation, ()) and set(requires).issubset(member.tags)
        )  # fmt: skip

    def shares(self) -> dict[str, int]:
        """Slots by node name, over the ring of all active members; those that own none are there with 0."""
        return dict.fromkeys(sorted(self._by_node), 0) | shares(self.ring)

    def _eligible(
        self, handler: str, requires: tuple[str, ...], prefers: tuple[str, ...]
    ) -> tuple[Member, ...]:
        eligible = self.eligible(handler, requires)
        preferred = tuple(member for member in eligible if set(prefers).issubset(member.tags))
        return preferred if prefers and any(member.weight for member in preferred) else eligible

    def _owners(self, nodes: frozenset[str]) -> Owners:
        owners = self._tables.get(nodes)
        if owners is None:
            owners = self._tables[nodes] = self._incarnations(self._names(nodes))
            if len(self._tables) > _TABLES_MAX:
                del self._tables[next(iter(self._tables))]
        return owners

    def _names(self, nodes: frozenset[str]) -> Table:
        if nodes == self._by_node.keys():
            return self.ring
        return build_table({node: self._by_node[node].weight for node in nodes})

    def _incarnations(self, names: Table) -> Owners:
        return tuple(self._by_node[name].incarnation for name in names)
