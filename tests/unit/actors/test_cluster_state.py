"""What a node knows of the cluster: whose a slot is, what the others still take, who waits for what."""

from __future__ import annotations

from uuid import UUID

from actors.authoring.registry import Kind
from actors.cluster import Cluster
from actors.executor.capacity import Capacity
from actors.router.watching import Watching
from runtime.core.slots import SLOTS
from runtime.core.task import Band, Lane
from runtime.core.view import Member, View

_BAND = Band(id=1, handler="scrape", lane=Lane.MEDIUM, tenant="default", requires=(), keyed=False)
_IDS = [UUID(int=n) for n in range(1, 4)]


def view(number: int, *incarnations: int) -> View:
    return View(number=number, members=tuple(Member(node=f"n{n}", incarnation=n) for n in incarnations))


def cluster_of(*incarnations: int) -> Cluster:
    cluster = Cluster(1, ["scrape"])
    cluster.install(view(1, *incarnations), {n: frozenset({"scrape"}) for n in incarnations})
    return cluster


def test_before_the_first_view_and_alone_everything_is_ours() -> None:
    for cluster in (Cluster(1, ["scrape"]), cluster_of(1)):
        assert cluster.alone
        assert cluster.is_mine(_BAND, 7)


def test_with_others_each_slot_has_one_owner() -> None:
    cluster = cluster_of(1, 2, 3)
    assert not cluster.alone
    assert {cluster.owner(_BAND, slot) for slot in range(SLOTS)} == {1, 2, 3}
    for slot in range(SLOTS):
        mine = cluster.owner(_BAND, slot) == 1
        assert cluster.is_mine(_BAND, slot) is mine


def test_what_nobody_may_serve_belongs_wherever_it_is() -> None:
    cluster = cluster_of(1, 2)
    unknown = Band(id=2, handler="other", lane=Lane.MEDIUM, tenant="default", requires=(), keyed=False)
    assert cluster.owner(unknown, 7) is None
    assert cluster.is_mine(unknown, 7)


def test_credit_is_spent_once_and_kinds_are_apart() -> None:
    cluster = cluster_of(1, 2)
    assert cluster.spend(2, 0, 5) == 0, "nothing heard yet"
    cluster.peer(2).credits = [3, 0, 1]
    assert [cluster.spend(2, 0, 2), cluster.spend(2, 0, 2), cluster.spend(2, 0, 2)] == [2, 1, 0]
    assert [cluster.spend(2, 1, 1), cluster.spend(2, 2, 1), cluster.spend(2, 9, 1)] == [0, 1, 0]


def test_who_is_no_member_any_more_is_forgotten() -> None:
    cluster = cluster_of(1, 2)
    cluster.peer(2).credits = [3]
    cluster.install(view(2, 1), {})
    assert cluster.alone
    assert cluster.spend(2, 0, 1) == 0
    assert not cluster.knows(2)


def test_credit_is_shared_out_and_none_is_given_where_there_is_a_backlog() -> None:
    capacity = Capacity({Kind.ASYNC: 10, Kind.THREAD: 4, Kind.PROCESS: 1})
    assert capacity.credits(0) == ()
    assert capacity.credits(3) == (4, 2, 1), "rounded up: a single slot can be offered too"
    capacity.put_in_backlog(1, Kind.ASYNC)
    assert capacity.credits(3) == (0, 2, 1)
    capacity.clear_backlog(1, capacity.backlog_mark(1))
    capacity.take(Kind.ASYNC, 10)
    assert capacity.credits(1) == (0, 4, 1)
    capacity.close("drain")
    assert capacity.credits(1) == ()


def test_a_watch_is_answered_at_the_end_or_at_once_after_it() -> None:
    watching = Watching()
    first, second, third = _IDS
    assert watching.watch(2, [first, second]) == []
    assert watching.watch(3, [first]) == []
    assert watching.ended([first, third]) == {2: [first], 3: [first]}
    assert watching.ended([first]) == {}, "told once"
    assert watching.watch(4, [first, second, third]) == [first, third]
    assert watching.ended([second]) == {2: [second], 4: [second]}
