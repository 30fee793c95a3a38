"""What a node knows of the cluster, as JSON: members, ring, the owner of a key.

Law: pure functions of values. Leases (the record's) say who lives, the view (the coordinator's) who is in the ring,
heartbeats what the others have in hand; each may be some seconds behind the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from actors.cluster import Cluster
from runtime.core.slots import SLOTS, slot_of
from runtime.core.task import NodeView
from runtime.core.view import Member, Standing, View, view_to_json

Load = tuple[int | None, int | None]  # attempts in hand, offers it still takes; None where it is not known

_OWNS_NOTHING: Final = {
    Standing.UNREACHABLE: "not heard over the broker: it gets nothing new until it is heard again",
    Standing.DRAINING: "it drains, and gets nothing new",
    Standing.ACTIVE: "its weight is too small for a slot",
}


def is_live(node: NodeView) -> bool:
    return node.state not in {"left", "dead"}


def names_in(node: NodeView, field: str) -> list[str]:
    """Tags or handlers, as its lease tells."""
    names = node.about.get(field)
    return sorted(map(str, names)) if isinstance(names, list | tuple | set | frozenset | dict) else []


# -- nodes ------------------------------------------------------------------------------------------


def cluster_json(
    leases: Sequence[NodeView], cluster: Cluster, loads: Mapping[int, Load]
) -> dict[str, object]:
    """`loads` by incarnation."""
    shares = cluster.placement.shares()
    nodes = []
    for lease in leases:
        member = cluster.view.find(lease.incarnation)
        owns = member is not None and member.standing is Standing.ACTIVE and is_live(lease)
        nodes.append(
            _node(
                lease,
                state=state_of(lease, member, cluster.view),
                slots=shares.get(lease.node, 0) if owns else 0,
                load=loads[lease.incarnation],
            )
        )
    return {**_head(cluster), "nodes": nodes}


def _node(lease: NodeView, *, state: str, slots: int, load: Load) -> dict[str, object]:
    weight = lease.about.get("weight")
    return {
        "name": lease.node,
        "incarnation": lease.incarnation,
        "state": state,
        "slots": slots,
        "weight": float(weight) if isinstance(weight, int | float) else 1.0,
        "tags": names_in(lease, "tags"),
        "handlers": names_in(lease, "handlers"),
        "running": load[0],
        "credit": load[1],
        "started_at": lease.started_at,
        "alive_for_s": round(lease.alive_for_s, 3),
        "drain_requested": lease.drain_requested,
    }


def state_of(lease: NodeView, member: Member | None, view: View) -> str:
    """joining, active, draining, unreachable, left or dead."""
    if lease.state != "active":
        return lease.state
    if lease.alive_for_s <= 0:
        return Standing.UNREACHABLE.value  # its lease has run out: soon dead, if it is not renewed
    if member is None:
        return "joining" if view.number else Standing.ACTIVE.value
    return member.standing.value


def _head(cluster: Cluster) -> dict[str, object]:
    return {"view": cluster.view.number or None, "table_hash": cluster.placement.hash}


# -- the ring ---------------------------------------------------------------------------------------


def ring_json(cluster: Cluster) -> dict[str, object]:
    """How many slots each member of the view owns, and how many would be even."""
    shares = cluster.placement.shares()
    total = sum(member.weight for member in cluster.view.active)
    nodes = []
    over = []
    for member in sorted(cluster.view.members, key=lambda member: member.node):
        active = member.standing is Standing.ACTIVE
        slots = shares.get(member.node, 0) if active else 0
        even = member.weight / total if active and total else 0.0
        if even:
            over.append(slots / SLOTS / even)
        nodes.append(
            {
                "name": member.node,
                "incarnation": member.incarnation,
                "state": member.standing.value,
                "weight": member.weight,
                "slots": slots,
                "share": round(slots / SLOTS, 6),
                "even_share": round(even, 6),
                "reason": None if slots else _why_nothing(member),
            }
        )
    return {
        **_head(cluster),
        "slots": SLOTS,
        "nodes": nodes,
        "max_over_average": round(max(over), 4) if over else None,
    }


def _why_nothing(member: Member) -> str:
    if member.standing is Standing.ACTIVE and not member.weight:
        return "its weight is 0: it gets work by pulling only"
    return _OWNS_NOTHING[member.standing]


def locate_json(cluster: Cluster, key: str, handler: str | None) -> dict[str, object]:
    """Where tasks with this key belong; `reason` says why nowhere."""
    slot = slot_of(key)
    owner, reason = _owner(cluster, slot, handler)
    return {
        "slot": slot,
        "node": None if owner is None else owner.node,
        "incarnation": None if owner is None else owner.incarnation,
        "reason": reason,
    }


def _owner(cluster: Cluster, slot: int, handler: str | None) -> tuple[Member | None, str | None]:
    placement = cluster.placement
    if not placement.ring:
        return None, "no active node owns slots" if cluster.view.number else "there is no view yet"
    if handler is None:
        return cluster.running_on(placement.ring[slot]), None
    owner = cluster.home(handler, (), (), slot)
    if owner is not None:
        return owner, None
    if placement.eligible(handler):
        return None, f"all active nodes that have the handler {handler} loaded have the weight 0"
    return None, f"no active node has the handler {handler} loaded"


def views_json(views: Sequence[View]) -> dict[str, object]:
    return {"views": [view_to_json(view) for view in views]}
