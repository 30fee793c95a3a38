from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from hashlib import blake2b
from math import log, sqrt
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core import ring
from runtime.core.ring import VNODES, build_table, moved, shares, table_hash
from runtime.core.slots import SLOTS

NAMES = st.text("abcdefgh-123", min_size=1, max_size=6)
WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0])
NODES = st.dictionaries(NAMES, WEIGHTS, min_size=1, max_size=6)


def cluster(count: int) -> dict[str, float]:
    return {f"node-{n}": 1.0 for n in range(1, count + 1)}


def dumb_owner(slot: int, points: list[tuple[int, str]]) -> str:
    """Look at every point: the nearest one clockwise, the lowest of all past the end."""
    at = int(blake2b(f"slot-{slot}".encode(), digest_size=8).hexdigest(), 16)
    ahead = [point for point in points if point[0] > at]
    return min(ahead or points)[1]


@settings(max_examples=15, deadline=None)
@given(NODES, st.lists(st.integers(0, SLOTS - 1), min_size=5, max_size=5))
def test_owners_are_those_of_a_linear_scan(nodes: dict[str, float], slots: list[int]) -> None:
    points = [
        (int(blake2b(f"{node}-{n}".encode(), digest_size=8).hexdigest(), 16), node)
        for node, weight in nodes.items()
        for n in range(round(512 * weight))
    ]
    table = build_table(nodes)
    assert len(table) == SLOTS
    assert [table[slot] for slot in slots] == [dumb_owner(slot, points) for slot in slots]


@settings(max_examples=10, deadline=None)
@given(NODES)
def test_the_order_of_the_nodes_does_not_matter(nodes: dict[str, float]) -> None:
    assert build_table(nodes) == build_table(dict(reversed(nodes.items())))


def test_nor_does_it_where_points_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points at one place are rare with 64 bits; with 10 bits most are."""
    monkeypatch.setattr(ring, "_point", lambda key: crc32(key.encode()) & 0x3FF)
    nodes = cluster(5)
    assert build_table(nodes) == build_table(dict(reversed(nodes.items())))


def test_the_table_never_changes() -> None:
    """Nodes of two releases live in one view: whoever breaks this makes them disagree about every slot."""
    assert table_hash(build_table({"node-1": 1.0, "node-2": 1.0, "node-3": 2.0})) == "ad91fcda65e413a2"
    assert table_hash(build_table({"ñandú": 0.5})) == "6feabf2513f138d2"
    assert table_hash(()) == "e4a6a0577479b2b4"


def test_another_process_with_another_hash_seed_builds_the_same_table() -> None:
    code = "from runtime.core.ring import *; print(table_hash(build_table({'b': 1.0, 'a': 0.5, 'c': 2.0})))"
    here = table_hash(build_table({"a": 0.5, "b": 1.0, "c": 2.0}))
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        printed = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip() == here


# -- what moves -------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(NODES, NAMES, WEIGHTS)
def test_only_slots_given_to_the_joiner_or_left_by_the_leaver_move(
    nodes: dict[str, float], joiner: str, weight: float
) -> None:
    nodes.pop(joiner, None)
    small, large = build_table(nodes), build_table({**nodes, joiner: weight})
    changed = moved(small, large)
    assert changed == moved(large, small) == {slot for slot in range(SLOTS) if large[slot] == joiner}
    assert len(changed) == shares(large).get(joiner, 0)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_a_join_moves_no_more_than_its_share_and_a_little(count: int) -> None:
    changed = moved(build_table(cluster(count)), build_table(cluster(count + 1)))
    assert len(changed) / SLOTS <= 1 / (count + 1) + 0.15 / (count + 1)


def test_everything_moves_from_nothing_and_to_nothing() -> None:
    table = build_table(cluster(1))
    assert moved((), table) == moved(table, ()) == set(range(SLOTS))
    assert moved((), ()) == moved(table, table) == frozenset()


# -- how even ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 10, 20])
def test_shares_are_even(count: int) -> None:
    counts = shares(build_table(cluster(count)))
    assert sum(counts.values()) == SLOTS
    assert len(counts) == count
    # the largest share of N nodes with V points each, three times the expected excess
    assert max(counts.values()) / (SLOTS / count) <= 1 + 3 * sqrt(2 * log(count) / VNODES)


def test_shares_follow_weights() -> None:
    counts = shares(build_table({"small": 0.5, "usual": 1.0, "large": 2.0}))
    for node, weight in (("small", 0.5), ("usual", 1.0), ("large", 2.0)):
        assert counts[node] / SLOTS == pytest.approx(weight / 3.5, rel=0.15)


def test_shares_count_owners() -> None:
    assert shares(("b", "a", "b")) == dict(Counter("bab"))


def test_no_node_no_table_and_no_weight_no_slot() -> None:
    assert build_table({}) == ()
    assert build_table({"a": 0}) == ()
    assert set(build_table({"a": 0, "b": 1})) == {"b"}
    assert build_table({"a": 0.0001}) == ("a",) * SLOTS  # a weight is never rounded away


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), 100.5])
def test_a_wrong_weight_is_named(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"weight of node 'n1': {weight!r} is not within 0…100"):
        build_table({"n1": weight})
