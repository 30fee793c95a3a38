"""Views follow from leases and from who is heard; every member proposes the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations

import pytest

from runtime.core.membership import Heard, is_own_affair, members_of, next_view, rank
from runtime.core.task import NodeView
from runtime.core.view import NO_VIEW, Standing, View, view_from_json, view_to_json

_AT = datetime(2030, 1, 1, tzinfo=UTC)


def lease(incarnation: int, state: str = "active", node: str | None = None) -> NodeView:
    about = {"tags": ["b", "a"], "handlers": ["scrape"], "weight": 2.0}
    return NodeView(
        node=node or f"n{incarnation}",
        incarnation=incarnation,
        state=state,
        started_at=_AT,
        alive_for_s=5.0,
        about=about,
    )


def view_of(*leases: NodeView) -> View:
    view = next_view(NO_VIEW, leases, Heard(), me=1)
    assert view is not None
    return view


def standing(view: View) -> dict[int, str]:
    return {member.incarnation: member.standing.value for member in view.members}


def test_the_first_view_has_all_that_have_joined_and_says_so() -> None:
    view = view_of(
        lease(2), lease(1), lease(3, "joining"), lease(4, "left"), lease(5, "dead"), lease(6, "draining")
    )
    assert (view.number, view.by) == (1, 1)
    assert standing(view) == {1: "active", 2: "active", 6: "draining"}
    assert view.reason == "n1 joined, n2 joined, n6 joined"
    assert view.members[0].tags == ("a", "b")
    assert view.members[0].weight == 2.0


def test_nothing_is_proposed_when_nothing_has_changed_in_whatever_order_leases_come() -> None:
    leases = [lease(1), lease(2), lease(3)]
    view = view_of(*leases)
    for order in permutations(leases):
        assert next_view(view, order, Heard(), me=2) is None


def test_a_new_start_of_a_node_takes_the_place_of_the_old_one() -> None:
    view = view_of(lease(1), lease(2))
    after = next_view(view, [lease(1), lease(2), lease(7, node="n2")], Heard(), me=1)
    assert after is not None
    assert standing(after) == {1: "active", 7: "active"}
    assert after.reason == "n2 joined, n2 is gone"


def test_who_is_silent_is_unreachable_until_it_says_itself_that_it_is_heard() -> None:
    leases = [lease(1), lease(2), lease(3)]
    out = next_view(view_of(*leases), leases, Heard(silent=frozenset({3})), me=1)
    assert out is not None
    assert standing(out) == {1: "active", 2: "active", 3: "unreachable"}
    assert next_view(out, leases, Heard(), me=1) is None, "others do not bring it back"
    assert next_view(out, leases, Heard(itself=False), me=3) is None, "nor does it, deaf"
    back = next_view(out, leases, Heard(), me=3)
    assert back is not None
    assert standing(back) == {1: "active", 2: "active", 3: "active"}
    assert is_own_affair(out, back, me=3)
    assert not is_own_affair(out, back, me=1)


def test_silence_never_removes_and_a_drain_is_not_judged() -> None:
    leases = [lease(1), lease(2, "draining")]
    assert next_view(view_of(*leases), leases, Heard(silent=frozenset({2})), me=1) is None


def test_nobody_takes_itself_for_unreachable() -> None:
    leases = [lease(1), lease(2)]
    assert next_view(view_of(*leases), leases, Heard(silent=frozenset({1}), itself=False), me=1) is None


def test_the_turn_to_propose_goes_by_age_and_leaves_out_who_is_unreachable() -> None:
    view = view_of(lease(1), lease(2), lease(3))
    assert [rank(view, me) for me in (1, 2, 3, 9)] == [0, 1, 2, 0]
    first, *others = view.members
    cut = replace(view, members=(replace(first, standing=Standing.UNREACHABLE), *others))
    assert [rank(cut, me) for me in (2, 3)] == [0, 1]


@pytest.mark.parametrize("weight", [-1, 1e9])
def test_a_weight_beyond_the_ring_s_bounds_is_cut(weight: float) -> None:
    [member] = members_of([replace(lease(1), about={"weight": weight})])
    assert member.weight == min(100.0, max(0.0, weight))


def test_views_are_kept_as_json() -> None:
    view = view_of(lease(1), lease(2, "draining"))
    assert view_from_json(view_to_json(view) | {"later": 1}) == view
    with pytest.raises(ValueError, match="not a view"):
        view_from_json({"number": 1})
