"""Phi accrual: suspicion grows with silence, and nobody is blamed by a member that is cut off itself."""

from __future__ import annotations

from runtime.core.detector import THRESHOLD, Arrivals, Detector

_ALL = frozenset({1, 2, 3})


def beaten(detector: Detector, until_s: int, members: frozenset[int] = _ALL) -> None:
    for second in range(1, until_s + 1):
        for member in members:
            detector.beat(member, float(second))


def detector() -> Detector:
    found = Detector(1, 1.0, 0.0)
    found.follow(_ALL, 0.0)
    return found


def test_phi_grows_with_silence_and_crosses_between_three_and_four_seconds() -> None:
    arrivals = Arrivals(1.0, 0.0)
    for second in range(1, 60):
        arrivals.beat(float(second))
    phis = [arrivals.phi(59.0 + late_s) for late_s in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 50.0, 5000.0)]
    assert phis == sorted(phis)
    assert arrivals.phi(59.0 + 3.0) < THRESHOLD < arrivals.phi(59.0 + 4.0)


def test_an_irregular_member_is_believed_longer() -> None:
    steady, uneven = Arrivals(1.0, 0.0), Arrivals(1.0, 0.0)
    for second in range(1, 60):
        steady.beat(float(second))
        uneven.beat(second + (0.8 if second % 2 else 0.0))
    assert uneven.phi(59.8 + 4.1) < THRESHOLD < steady.phi(59.0 + 4.1)


def test_who_stops_is_silent_and_the_others_are_not() -> None:
    found = detector()
    beaten(found, 20)
    for second in range(21, 27):
        for member in (1, 2):
            found.beat(member, float(second))
    assert found.silent(26.0) == {3}
    assert found.hears_itself(26.0)


def test_a_member_that_hears_nobody_or_not_itself_blames_nobody() -> None:
    found = detector()
    beaten(found, 20)
    assert found.silent(40.0) == frozenset()
    for second in range(21, 41):
        for member in (2, 3):
            found.beat(member, float(second))
    assert not found.hears_itself(40.0)
    assert found.silent(40.0) == frozenset()


def test_a_member_that_hears_fewer_than_half_blames_nobody() -> None:
    found = detector()
    beaten(found, 20)
    for second in range(21, 41):
        found.beat(1, float(second))
    assert found.silent(40.0) == frozenset()


def test_who_has_just_joined_or_after_a_restart_is_taken_for_heard() -> None:
    found = detector()
    beaten(found, 20)
    found.restart(100.0)
    assert found.silent(101.0) == frozenset()
    found.follow(frozenset({1, 2, 9}), 101.0)
    for second in range(101, 104):
        for member in (1, 2):
            found.beat(member, float(second))
    assert found.silent(103.0) == frozenset()
    found.beat(3, 104.0)  # no member any more
    for second in range(104, 110):
        for member in (1, 2):
            found.beat(member, float(second))
    assert found.silent(109.0) == {9}
