from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.backoff import Backoff, delay_s
from runtime.core.restarts import GiveUp, History, Restart, RestartPolicy, record

POLICIES = st.builds(
    RestartPolicy,
    max_restarts=st.integers(0, 6),
    within_s=st.integers(1, 20).map(float),
    backoff=st.just(Backoff(first_s=1, factor=2, max_s=5)),
)


@settings(max_examples=100, deadline=None)
@given(POLICIES, st.lists(st.integers(0, 8), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_decisions_are_those_of_a_naive_count(
    policy: RestartPolicy, gaps_s: list[int], jitter: float
) -> None:
    history: History = ()
    failed_at_s = [float(at) for at in accumulate(gaps_s)]
    for n, now_s in enumerate(failed_at_s, start=1):
        history, decision = record(history, now_s, policy, jitter)
        in_window = sum(now_s - policy.within_s <= at_s <= now_s for at_s in failed_at_s[:n])
        if in_window > policy.max_restarts:
            assert decision == GiveUp(in_window)
            break
        assert decision == Restart(delay_s(policy.backoff, in_window, jitter))
        assert len(history) == in_window <= policy.max_restarts


def test_the_failure_after_the_last_allowed_restart_is_one_too_many() -> None:
    policy = RestartPolicy(max_restarts=2, within_s=10)
    history: History = ()
    history, first = record(history, 100, policy, 0.5)
    history, second = record(history, 100, policy, 0.5)
    assert (first, second) == (Restart(0.05), Restart(0.1))
    assert record(history, 110, policy, 0.5)[1] == GiveUp(3)  # the edge belongs to the window
    assert record(history, 110.001, policy, 0.5) == (
        (110.001,),
        Restart(0.05),
    )  # and all is forgiven after it


def test_no_restart_at_all_can_be_asked_for() -> None:
    assert record((), 0, RestartPolicy(max_restarts=0), 0) == ((0,), GiveUp(1))


def test_a_child_that_fails_now_and_then_is_restarted_for_ever_in_constant_memory() -> None:
    policy = RestartPolicy(max_restarts=3, within_s=10)
    history: History = ()
    for n in range(1_000):
        history, decision = record(history, n * 5.0, policy, 0.9)
        assert isinstance(decision, Restart)
        assert len(history) <= 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_restarts", -1), ("within_s", 0), ("within_s", float("nan")), ("within_s", float("inf"))],
)
def test_a_wrong_field_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"restart {field} {value!r}: must be"):
        RestartPolicy(**{field: value})  # type: ignore[arg-type]  # which field varies
