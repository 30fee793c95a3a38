"""Who owns a slot: the same on every node, only among those eligible."""

from __future__ import annotations

import subprocess
import sys

from runtime.core.placement import Placement
from runtime.core.slots import SLOTS
from runtime.core.view import Member, Standing, View

_HANDLERS = {n: frozenset({"scrape"}) for n in (1, 2, 3)} | {4: frozenset({"scrape", "render"})}


def member(
    n: int, standing: Standing = Standing.ACTIVE, tags: tuple[str, ...] = (), weight: float = 1.0
) -> Member:
    return Member(node=f"n{n}", incarnation=n, standing=standing, tags=tags, weight=weight)


def placement(*members: Member) -> Placement:
    return Placement(View(number=1, members=members), _HANDLERS)


def test_a_view_means_the_same_table_in_another_process() -> None:
    script = (
        "from tests.unit.core.test_placement import member, placement\n"
        "print(placement(*(member(n) for n in (3, 1, 2))).hash)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert told.stdout.strip() == placement(*(member(n) for n in (1, 2, 3))).hash


def test_only_active_members_with_the_handler_and_the_tags_own_slots() -> None:
    found = placement(member(1, tags=("eu",)), member(2), member(3, Standing.DRAINING), member(4))
    assert set(found.table("scrape")) == {1, 2, 4}
    assert set(found.table("render")) == {4}
    assert set(found.table("scrape", ("eu",))) == {1}
    assert found.table("scrape", ("gpu",)) == ()
    assert found.table("unheard_of") == ()
    assert found.owner(7, "unheard_of") is None


def test_preferred_tags_only_order() -> None:
    found = placement(member(1, tags=("ssd",)), member(2), member(4))
    assert set(found.table("scrape", (), ("ssd",))) == {1}
    assert set(found.table("scrape", (), ("gpu",))) == {1, 2, 4}
    nothing = placement(member(1, tags=("ssd",), weight=0.0), member(2))
    assert set(nothing.table("scrape", (), ("ssd",))) == {2}, "who takes nothing is not preferred"


def test_when_one_leaves_only_its_slots_move() -> None:
    before = placement(member(1), member(2), member(4)).table("scrape")
    after = placement(member(1), member(2, Standing.UNREACHABLE), member(4)).table("scrape")
    moved = [slot for slot in range(SLOTS) if before[slot] != after[slot]]
    assert {before[slot] for slot in moved} == {2}
    assert len(moved) <= SLOTS * (1 / 3 + 0.15 / 3)


def test_a_new_start_of_a_node_owns_the_same_slots() -> None:
    before = placement(member(1), member(2)).table("scrape")
    after = placement(member(1), Member(node="n2", incarnation=4)).table("scrape")
    assert [4 if owner == 2 else owner for owner in before] == list(after)


def test_shares_name_members_that_own_nothing() -> None:
    shares = placement(member(1), member(2, weight=0.0)).shares()
    assert shares == {"n1": SLOTS, "n2": 0}
