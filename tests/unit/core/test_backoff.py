from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.backoff import Backoff, delay_s

JITTER = st.floats(0, 1, exclude_max=True)


@st.composite
def policies(draw: st.DrawFn) -> Backoff:
    first_s = draw(st.just(0.0) | st.floats(1e-6, 100))
    return Backoff(first_s, draw(st.floats(1, 10)), first_s + draw(st.floats(0, 10_000)))


def ceiling_s(policy: Backoff, failures: int) -> float:
    """Doubling is exact, so this is what jitter is multiplied with."""
    return 2 * delay_s(policy, failures, 0.5)


def dumb_ceiling(policy: Backoff, failures: int) -> Fraction:
    wait = Fraction(policy.first_s)
    for _ in range(failures - 1):
        wait = min(wait * Fraction(policy.factor), Fraction(policy.max_s))
    return min(wait, Fraction(policy.max_s))


def test_the_default_doubles_from_one_second_to_five_minutes() -> None:
    assert [ceiling_s(Backoff(), n) for n in range(1, 12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@settings(max_examples=100, deadline=None)
@given(policies(), st.integers(1, 40))
def test_the_ceiling_is_the_repeated_product(policy: Backoff, failures: int) -> None:
    assert ceiling_s(policy, failures) == pytest.approx(float(dumb_ceiling(policy, failures)))


@settings(max_examples=100, deadline=None)
@given(policies(), st.integers(1, 10**12), JITTER)
def test_a_delay_is_never_beyond_its_ceiling_nor_the_maximum(
    policy: Backoff, failures: int, jitter: float
) -> None:
    assert 0 <= delay_s(policy, failures, jitter) <= ceiling_s(policy, failures) <= policy.max_s
    assert delay_s(policy, failures, 0.0) == 0
    assert delay_s(policy, failures, jitter) == jitter * ceiling_s(policy, failures)
    assert ceiling_s(policy, failures) <= ceiling_s(policy, failures + 1)


def test_huge_numbers_of_failures_do_not_overflow() -> None:
    assert ceiling_s(Backoff(), 10**18) == 300
    assert ceiling_s(Backoff(first_s=0), 10**18) == 0
    assert ceiling_s(Backoff(first_s=1, factor=1, max_s=5), 10**18) == 1
    assert ceiling_s(Backoff(first_s=5e-324, factor=1.5, max_s=1e307), 10**6) == 1e307


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first_s", -1), ("first_s", float("nan")), ("first_s", float("inf")), ("first_s", True),
        ("first_s", "1"), ("factor", 0.5), ("factor", float("inf")), ("max_s", -0.1), ("max_s", None),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_value_and_limits(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field} {value!r}: must be a finite number of at least [01]"):
        Backoff(**{field: value})


def test_the_maximum_is_not_below_the_first() -> None:
    with pytest.raises(ValueError, match=r"max_s 5: must be at least first_s \(10\)"):
        Backoff(first_s=10, max_s=5)


@pytest.mark.parametrize("jitter", [-0.1, 1.0, float("nan")])
def test_jitter_outside_its_range_is_a_mistake(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        delay_s(Backoff(), 1, jitter)


def test_no_failure_no_delay_to_ask_for() -> None:
    with pytest.raises(ValueError, match="failures 0"):
        delay_s(Backoff(), 0, 0.5)
