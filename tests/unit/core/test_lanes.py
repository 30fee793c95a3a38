from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.lanes import PROBE_EVERY, WEIGHT_MAX, Lanes, check_weight
from runtime.core.task import Lane
from runtime.errors import InvalidInput

WEIGHT = {Lane.HIGH: 8, Lane.MEDIUM: 4, Lane.LOW: 1}
Turn = tuple[int, Lane, str]  # band, lane, tenant

WEIGHTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 5))
TURNS = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from(Lane), st.sampled_from(["a", "b", "c"])),
    min_size=1,
    max_size=12,
    unique_by=lambda turn: turn[0],
)


def lanes_of(turns: list[Turn], weights: dict[str, int] | None = None) -> Lanes:
    lanes = Lanes()
    lanes.weigh(weights or {})
    lanes.serve(turns)
    return lanes


def serve_rounds(lanes: Lanes, rows: int, rounds: int, waiting: dict[int, float]) -> Counter[int]:
    """Choose and take, `rounds` times, from bands that hold `waiting` rows (others are empty)."""
    served: Counter[int] = Counter()
    for _ in range(rounds):
        for band, limit in lanes.choose(rows):
            got = int(min(limit, waiting.get(band, 0)))
            waiting[band] = waiting.get(band, 0) - got
            served[band] += got
            lanes.returned(band, limit, got)
    return served


FULL = float("inf")


# -- against a dumb reference -----------------------------------------------------------------------


class DumbWheel:
    """Row by row, with plain lists that are rotated."""

    def __init__(self, weights: dict[str, int]) -> None:
        self.weights = weights
        self.used: Counter[tuple[Lane, str]] = Counter()
        self.tenants: dict[Lane, list[str]] = {lane: [] for lane in Lane}
        self.bands: dict[tuple[Lane, str], list[int]] = defaultdict(list)
        self.passes = dict.fromkeys(Lane, 0)
        self.now = 0

    @property
    def lanes(self) -> list[Lane]:
        return [lane for lane in Lane if self.tenants[lane]]

    def add(self, band: int, lane: Lane, tenant: str) -> None:
        if lane not in self.lanes:
            start = min([self.passes[other] for other in self.lanes], default=self.now)
            self.passes[lane] = max(self.passes[lane], start)
        if tenant not in self.tenants[lane]:
            self.tenants[lane].append(tenant)
        self.bands[lane, tenant].append(band)

    def remove(self, band: int, lane: Lane, tenant: str) -> None:
        self.bands[lane, tenant].remove(band)
        if not self.bands[lane, tenant]:
            self.tenants[lane].remove(tenant)
            del self.used[lane, tenant]

    def turn(self) -> int:
        lane = min(self.lanes, key=lambda lane: (self.passes[lane], lane))
        self.now = self.passes[lane]
        self.passes[lane] += 8 // WEIGHT[lane]
        tenant = self.tenants[lane][0]
        self.used[lane, tenant] += 1
        if self.used[lane, tenant] == self.weights.get(tenant, 1):
            self.used[lane, tenant] = 0
            self.tenants[lane].append(self.tenants[lane].pop(0))
        self.bands[lane, tenant].append(band := self.bands[lane, tenant].pop(0))
        return band


@settings(max_examples=80, deadline=None)
@given(TURNS, WEIGHTS, st.lists(st.tuples(st.integers(1, 60), st.integers(0, 2**12 - 1)), max_size=20))
def test_choices_are_those_of_the_dumb_reference(
    turns: list[Turn], weights: dict[str, int], rounds: list[tuple[int, int]]
) -> None:
    """In every round each band's bit says whether its ask comes back full or empty."""
    lanes, wheels, due = lanes_of(turns, weights), {wet: DumbWheel(weights) for wet in (True, False)}, 0
    wet = dict.fromkeys(turns, True)
    for turn in turns:
        wheels[True].add(*turn)
    for rows, full in rounds:
        dry_bands = sum(not is_wet for is_wet in wet.values())
        due = due + rows if 0 < dry_bands < len(turns) else due if dry_bands else 0
        probes = rows if dry_bands == len(turns) else min(dry_bands, due // PROBE_EVERY, rows)
        expected = Counter(wheels[n >= probes].turn() for n in range(rows))
        due %= PROBE_EVERY
        chosen = dict(lanes.choose(rows))
        assert chosen == expected
        for band, limit in chosen.items():
            [turn] = [turn for turn in turns if turn[0] == band]
            got = limit if full >> (band % 12) & 1 else 0
            lanes.returned(band, limit, got)
            if not got and wet[turn]:
                wheels[True].passes[turn[1]] -= (limit - 1) * (8 // WEIGHT[turn[1]])
            if wet[turn] is not bool(got):
                wheels[wet[turn]].remove(*turn)
                wet[turn] = bool(got)
                wheels[wet[turn]].add(*turn)


# -- laws -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(TURNS, st.lists(st.tuples(st.integers(1, 60), st.integers(0, 2**12)), min_size=1, max_size=20))
def test_limits_always_add_up_to_the_free_capacity(turns: list[Turn], choices: list[tuple[int, int]]) -> None:
    lanes = lanes_of(turns)
    for rows, full in choices:
        chosen = lanes.choose(rows)
        assert sum(limit for _, limit in chosen) == rows
        assert min(limit for _, limit in chosen) >= 1
        assert len({band for band, _ in chosen}) == len(chosen)
        assert {band for band, _ in chosen} <= {band for band, _, _ in turns}
        for band, limit in chosen:
            lanes.returned(band, limit, limit if full >> band % 12 & 1 else limit // 2)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 13, 16, 64, 1_300])
def test_three_full_lanes_are_served_8_4_1(rows: int) -> None:
    lanes = lanes_of([(1, Lane.HIGH, "a"), (2, Lane.MEDIUM, "a"), (3, Lane.LOW, "a")])
    served = serve_rounds(lanes, rows, 1_300 // rows, {1: FULL, 2: FULL, 3: FULL})
    total = sum(served.values())
    for band, share in ((1, 8 / 13), (2, 4 / 13), (3, 1 / 13)):
        assert served[band] == pytest.approx(total * share, rel=0.02)


@pytest.mark.parametrize(("lanes", "shares"), [((0, 1), (2, 1)), ((0, 2), (8, 1)), ((1, 2), (4, 1))])
def test_two_full_lanes_keep_their_ratio(lanes: tuple[int, int], shares: tuple[int, int]) -> None:
    served = serve_rounds(lanes_of([(n, Lane(n), "a") for n in lanes]), 7, 360, dict.fromkeys(lanes, FULL))
    assert served[lanes[0]] / served[lanes[1]] == pytest.approx(shares[0] / shares[1], rel=0.02)


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_absent_lanes_do_not_disturb_the_ratio(rows: int) -> None:
    """Dry bands cost their probes, and those are not charged to the lane that is full."""
    turns = [(n, Lane(n % 3), "a") for n in range(1, 31)]
    served = serve_rounds(lanes_of(turns), rows, 40_000 // rows, {3: FULL, 1: FULL, 2: FULL})
    assert served[3] / served[2] == pytest.approx(8, rel=0.02)
    assert served[1] / served[2] == pytest.approx(4, rel=0.02)
    assert sum(served.values()) > 40_000 * (1 - 1 / PROBE_EVERY) * 0.98


def test_tenants_share_a_lane_evenly_however_many_bands_they_have() -> None:
    turns: list[Turn] = [(n, Lane.MEDIUM, "many") for n in range(1, 10)] + [(10, Lane.MEDIUM, "one")]
    served = serve_rounds(lanes_of(turns), 5, 200, dict.fromkeys(range(1, 11), FULL))
    assert served[10] == 500
    assert {served[n] for n in range(1, 10)} <= {55, 56}


@settings(max_examples=100, deadline=None)
@given(TURNS, WEIGHTS, st.integers(1, 30), st.data())
def test_any_band_with_work_is_served_within_the_bound(
    turns: list[Turn], weights: dict[str, int], rows: int, data: st.DataObject
) -> None:
    """Whatever else is full or empty, also with a capacity of one row: from dry to the first row."""
    full = data.draw(st.sets(st.sampled_from([turn[0] for turn in turns])))
    lanes = lanes_of(turns, weights)
    serve_rounds(lanes, rows, 60, dict.fromkeys(full, FULL))  # the others are dry now, most likely
    band, lane, tenant = data.draw(st.sampled_from(turns))
    tenants = sum(weights.get(t, 1) for t in {t for _, of_lane, t in turns if of_lane == lane})
    bands = sum(turn[1:] == (lane, tenant) for turn in turns)
    bound = PROBE_EVERY * 13 * tenants * bands
    served = serve_rounds(lanes, rows, bound // rows + 2, dict.fromkeys({band, *full}, FULL))
    assert served[band] >= 1


@pytest.mark.parametrize(("first", "second"), [(Lane.HIGH, Lane.LOW), (Lane.LOW, Lane.HIGH)])
def test_a_lane_that_was_away_has_saved_nothing_up_and_owes_nothing(first: Lane, second: Lane) -> None:
    """Nine rows are one full round of high and low, whoever had the node for itself before."""
    lanes = lanes_of([(first, first, "a"), (second, second, "a")])
    serve_rounds(lanes, 100, 100, {first: FULL})
    lanes.wake(second)
    served = serve_rounds(lanes, 9, 2, {first: FULL, second: FULL})
    assert 1 <= served[Lane.LOW] <= 3


def test_low_is_not_starved_by_false_alarms_in_high() -> None:
    """Every choice, somebody says that the high band holds rows, and it never does."""
    lanes = lanes_of([(1, Lane.HIGH, "a"), (2, Lane.LOW, "a")])
    low = 0
    for _ in range(100):
        lanes.wake(1)
        for band, limit in lanes.choose(1):
            lanes.returned(band, limit, got=limit if band == 2 else 0)
            low += band == 2
    assert low >= 100 // 9


# -- tenants ----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=8),
    st.lists(st.integers(1, 300), min_size=1, max_size=30),
)
def test_shares_of_full_tenants_never_differ_from_their_weights_by_more_than_a_turn_of_theirs(
    weights: list[int], pulls: list[int]
) -> None:
    lanes = lanes_of(
        [(n, Lane.LOW, f"t{n}") for n in range(len(weights))], {f"t{n}": w for n, w in enumerate(weights)}
    )
    served: Counter[int] = Counter()
    for rows in pulls:
        served += serve_rounds(lanes, rows, 1, dict.fromkeys(range(len(weights)), FULL))
        for n, weight in enumerate(weights):
            assert abs(served[n] - served.total() * weight / sum(weights)) < weight + 1e-6


@settings(max_examples=100, deadline=None)
@given(
    others=st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=8),
    own=st.integers(1, WEIGHT_MAX),
    few=st.integers(1, 30),
    rows=st.integers(1, 64),
    before=st.integers(0, 50),
)
def test_a_few_rows_wait_for_whole_rounds_of_the_others_and_never_for_their_backlog(
    others: list[int], own: int, few: int, rows: int, before: int
) -> None:
    """However much the others have, and however long they had the node for themselves."""
    weights = {f"t{n}": weight for n, weight in enumerate(others)} | {"few": own}
    lanes = lanes_of([*((n, Lane.LOW, f"t{n}") for n in range(len(others))), (99, Lane.LOW, "few")], weights)
    waiting: dict[int, float] = {**dict.fromkeys(range(len(others)), FULL), 99: 0}
    serve_rounds(lanes, rows, before + 1, waiting)
    waiting[99] = few
    lanes.wake(99)
    chosen = 0
    while waiting[99]:
        chosen += serve_rounds(lanes, rows, 1, waiting).total()
    assert chosen <= (-(-few // own) + 1) * (sum(others) + own) + rows


def test_a_weight_counts_from_now_on_and_nobody_loses_a_turn() -> None:
    lanes = lanes_of([(1, Lane.LOW, "a"), (2, Lane.LOW, "b")])
    assert dict(lanes.choose(10)) == {1: 5, 2: 5}
    lanes.weigh({"a": 3})
    assert dict(lanes.choose(8)) == {1: 6, 2: 2}
    assert lanes.choose(1) == [(1, 1)]
    lanes.weigh({})
    assert dict(lanes.choose(2)) == {1: 1, 2: 1}
    lanes.serve([(2, Lane.LOW, "b")])
    assert dict(lanes.choose(7)) == {2: 7}


def test_a_choice_takes_as_many_steps_as_rows_however_many_tenants_have_some() -> None:
    lanes = lanes_of([(n, Lane.LOW, f"t{n}") for n in range(10_000)])
    seen: Counter[int] = Counter()
    for _ in range(10_000 // 50):
        chosen = lanes.choose(50)
        assert len(chosen) == 50
        seen.update(band for band, _ in chosen)
        for band, limit in chosen:
            lanes.returned(band, limit, limit)
    assert set(seen.values()) == {1}
    assert len(seen) == 10_000


@pytest.mark.parametrize("weight", [0, -1, WEIGHT_MAX + 1])
def test_a_weight_out_of_bounds_is_refused(weight: int) -> None:
    with pytest.raises(InvalidInput, match=f"{weight} is no weight: allowed are whole numbers from 1 to 100"):
        check_weight(weight)


# -- wet and dry ------------------------------------------------------------------------------------


def test_one_busy_band_among_many_soon_has_nearly_everything() -> None:
    lanes = lanes_of([(n, Lane.MEDIUM, f"t{n}") for n in range(1, 21)])
    served = serve_rounds(lanes, 16, 3, {5: FULL})
    assert served[5] > 0
    assert dict(lanes.choose(16))[5] == 14  # the rest are probes


def test_when_all_are_dry_the_next_ask_is_spread_over_all_lanes() -> None:
    lanes = lanes_of([(1, Lane.HIGH, "a"), (2, Lane.MEDIUM, "a"), (3, Lane.LOW, "a")])
    serve_rounds(lanes, 13, 3, {})
    assert dict(lanes.choose(13)) == {1: 8, 2: 4, 3: 1}


def test_a_full_ask_makes_a_dry_band_wet_again() -> None:
    lanes = lanes_of([(1, Lane.HIGH, "a"), (2, Lane.HIGH, "b")])
    serve_rounds(lanes, 10, 2, {2: FULL})
    assert dict(lanes.choose(8)) == {1: 1, 2: 7}
    lanes.returned(1, 1, 1)
    assert dict(lanes.choose(8)) == {1: 4, 2: 4}


def test_waking_makes_a_dry_band_wet_and_strangers_are_ignored() -> None:
    lanes = lanes_of([(1, Lane.HIGH, "a"), (2, Lane.HIGH, "b")])
    serve_rounds(lanes, 10, 2, {2: FULL})
    lanes.wake(1)
    lanes.wake(99)
    lanes.returned(99, 1, 0)
    assert dict(lanes.choose(8)) == {1: 4, 2: 4}


def test_a_wake_during_the_ask_is_not_lost() -> None:
    """The row came after the ask had looked: short, and yet not dry."""
    lanes = lanes_of([(1, Lane.HIGH, "a"), (2, Lane.HIGH, "b")])
    asked = dict(lanes.choose(8))
    lanes.wake(1)
    lanes.returned(1, asked[1], 0)
    lanes.returned(2, asked[2], asked[2])
    assert dict(lanes.choose(8)) == {1: 4, 2: 4}


def test_quota_left_over_goes_back_to_the_lane_that_could_not_use_it() -> None:
    """High has one full band beside nine that disappoint: it is still served 8 : 1 against low."""
    turns: list[Turn] = [(n, Lane.HIGH, "a") for n in range(1, 11)] + [(11, Lane.LOW, "a")]
    lanes, served = lanes_of(turns), Counter[int]()
    for _ in range(200):
        for band in range(1, 10):
            lanes.wake(band)
        served += serve_rounds(lanes, 40, 1, {10: FULL, 11: FULL})
    # nine asks in a choice of 40 are the price; without the refund the ratio is below 1
    assert served[10] / served[11] > 2


# -- which bands are served -------------------------------------------------------------------------


def test_bands_that_are_no_longer_served_are_not_chosen_and_the_others_keep_their_turn() -> None:
    lanes = lanes_of([(n, Lane.LOW, "a") for n in (1, 2, 3)])
    assert lanes.choose(1) == [(1, 1)]
    lanes.serve([(n, Lane.LOW, "a") for n in (3, 1, 4)])
    assert [lanes.choose(1) for _ in range(3)] == [[(3, 1)], [(1, 1)], [(4, 1)]]


def test_nothing_to_serve_and_no_capacity_choose_nothing() -> None:
    assert Lanes().choose(5) == []
    lanes = lanes_of([(1, Lane.LOW, "a")])
    assert lanes.choose(0) == []
    lanes.serve([])
    assert lanes.choose(5) == []


def test_suspects_are_bands_with_a_negative_number() -> None:
    lanes = lanes_of([(-1, Lane.LOW, "a"), (-2, Lane.HIGH, "a")])
    assert [lanes.choose(1)[0][0] for _ in range(9)].count(-1) == 1
