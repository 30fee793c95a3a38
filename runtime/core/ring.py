"""The consistent-hash ring as a table: which node each of the 4096 slots belongs to.

Law: a table is a value, built anew for each set of nodes and never changed, so a view gives the same table on
every node, in every process, in any order of insertion. The ring proposes, the record proves: a wrong or an
old table costs time and nothing else. Built with uhashring, 512 points on the ring per unit of weight: shares
then vary by some 4 %, and when one node of N leaves, only its slots move.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from math import isfinite
from typing import TYPE_CHECKING, Final

from uhashring import HashRing

from runtime.core.slots import SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping

VNODES: Final = 512  # points per unit of weight
WEIGHT_MAX: Final = 100.0

Table = tuple[str, ...]  # owner by slot; empty when there is no node


def build_table(nodes: Mapping[str, float]) -> Table:
    """The owner of each slot, from weights by node name (1.0 is usual, 0 owns nothing).

    Takes 12 ms for 10 nodes. Raises ValueError, naming the node, the weight and what is allowed.
    """
    vnodes = {node: _vnodes(node, nodes[node]) for node in sorted(nodes)}
    # uhashring takes whole weights only, so the points are given for each node instead
    ring = HashRing({node: {"vnodes": n} for node, n in vnodes.items() if n}, hash_fn=_point)
    if not ring.size:
        return ()
    return tuple(ring.get_node(f"slot-{slot}") for slot in range(SLOTS))


def table_hash(table: Table) -> str:
    """16 hex digits; equal tables, and practically only those, have equal hashes. Goes into heartbeats."""
    return blake2b("\0".join(table).encode(), digest_size=8).hexdigest()


def moved(old: Table, new: Table) -> frozenset[int]:
    """The slots whose owner is not the same in both."""
    if not old or not new:
        return frozenset(range(SLOTS)) if old or new else frozenset()
    return frozenset(slot for slot in range(SLOTS) if old[slot] != new[slot])


def shares(table: Table) -> dict[str, int]:
    """How many slots each owner has, by name; nodes without a slot are absent."""
    return dict(sorted(Counter(table).items()))


def _vnodes(node: str, weight: float) -> int:
    if not (isfinite(weight) and 0 <= weight <= WEIGHT_MAX):
        raise ValueError(f"weight of node {node!r}: {weight!r} is not within 0…{WEIGHT_MAX:g}")
    return max(1, round(VNODES * weight)) if weight else 0


def _point(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
