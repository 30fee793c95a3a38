from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.backoff import Backoff
from runtime.core.decisions import (
    DELAY_S_MAX,
    EXPIRED,
    after_cancel,
    after_child_crash,
    after_crash,
    after_expiry,
    after_failure,
    after_release,
    after_snooze,
    after_success,
)
from runtime.core.task import AttemptKind, Codec, ErrorInfo, Finish, NewTask, Orphan, Reason, Requeue, Status


@dataclass(frozen=True)
class Counters:
    failures: int
    crashes: int
    max_attempts: int


ERROR = ErrorInfo("ValueError", "no", "line 1")
FRESH = Counters(failures=0, crashes=0, max_attempts=3)
COUNTERS = st.builds(Counters, st.integers(0, 5), st.integers(0, 5), st.integers(1, 6))
JITTER = st.floats(0, 1, exclude_max=True)
CHILD = NewTask(id=UUID(int=1), band=1, slot=0, payload=b"{}", max_attempts=1, timeout_s=1)


def fail(counters: Counters, **options: object) -> Finish | Requeue:
    return after_failure(counters, ERROR, **{"backoff": Backoff(), "jitter": 0.5, **options})  # type: ignore[arg-type]  # options vary per test


def test_success_carries_result_children_and_both_counters() -> None:
    assert after_success(Counters(2, 1, 3), b"7", Codec.BYTES, [CHILD]) == Finish(
        status=Status.SUCCEEDED,
        result=b"7",
        result_codec=Codec.BYTES,
        failures=2,
        crashes=1,
        children=(CHILD,),
    )


def test_a_failure_with_attempts_left_waits_for_its_backoff() -> None:
    assert fail(Counters(1, 1, 3)) == Requeue(
        kind=AttemptKind.FAILED, delay_s=1.0, reason=Reason.RETRY_BACKOFF, failures=2, crashes=1, error=ERROR
    )
    timed_out = fail(FRESH, kind=AttemptKind.TIMED_OUT)
    assert isinstance(timed_out, Requeue)
    assert timed_out.kind is AttemptKind.TIMED_OUT


@settings(max_examples=100, deadline=None)
@given(COUNTERS, JITTER, st.booleans())
def test_exactly_the_last_allowed_failure_is_a_dead_letter(
    counters: Counters, jitter: float, final: bool
) -> None:
    move = fail(counters, jitter=jitter, final=final)
    assert (move.failures, move.crashes) == (counters.failures + 1, counters.crashes)
    assert move.error == ERROR
    if final or counters.failures + 1 >= counters.max_attempts:
        assert isinstance(move, Finish)
        assert move.status is Status.FAILED
        assert move.result is None
    else:
        assert isinstance(move, Requeue)
        assert 0 <= move.delay_s <= min(300, 2**counters.failures)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), JITTER)
def test_max_attempts_is_how_often_a_failing_body_runs(max_attempts: int, jitter: float) -> None:
    bodies, move = 1, fail(Counters(0, 0, max_attempts), jitter=jitter)
    while isinstance(move, Requeue):
        bodies, move = bodies + 1, fail(Counters(move.failures, 0, max_attempts), jitter=jitter)
    assert bodies == max_attempts


def test_after_s_replaces_the_backoff_and_counts_all_the_same() -> None:
    move = fail(FRESH, after_s=60)
    assert isinstance(move, Requeue)
    assert (move.delay_s, move.failures) == (60, 1)
    assert isinstance(fail(Counters(2, 0, 3), after_s=60), Finish)


@pytest.mark.parametrize(
    ("asked_s", "delay_s"),
    [(-1, 0), (float("nan"), 0), (float("inf"), DELAY_S_MAX), (1e300, DELAY_S_MAX), (2, 2)],
)
def test_no_delay_can_spoil_a_batch(asked_s: float, delay_s: float) -> None:
    retry = fail(FRESH, after_s=asked_s)
    assert isinstance(retry, Requeue)
    assert [m.delay_s for m in (retry, after_snooze(FRESH, asked_s), after_release(FRESH, asked_s))] == [
        delay_s
    ] * 3


@settings(max_examples=100, deadline=None)
@given(COUNTERS)
def test_snooze_release_cancel_and_expiry_burn_nothing(counters: Counters) -> None:
    snoozed, released = after_snooze(counters, 5), after_release(counters, 1, ERROR)
    cancelled, expired = after_cancel(counters), after_expiry(counters)
    for move in (snoozed, released, cancelled, expired):
        assert (move.failures, move.crashes) == (counters.failures, counters.crashes)
    assert (snoozed.kind, snoozed.reason, snoozed.error) == (AttemptKind.SNOOZED, Reason.SNOOZED, None)
    assert (released.kind, released.reason, released.error) == (AttemptKind.RELEASED, Reason.RELEASED, ERROR)
    assert cancelled.status is expired.status is Status.CANCELLED
    assert (cancelled.error, expired.error) == (None, EXPIRED)


# -- crashes ----------------------------------------------------------------------------------------


def test_the_first_crash_is_innocent() -> None:
    move = after_crash(FRESH, alone=False)
    assert isinstance(move, Requeue)
    assert (move.kind, move.reason, move.delay_s) == (AttemptKind.CRASHED, Reason.CRASHED, 0)
    assert (move.crashes, move.failures, move.suspect) == (1, 0, False)
    assert move.error == ErrorInfo("NodeCrashed", "the process that ran this task died once")


def test_a_poison_task_runs_alone_from_its_second_crash_and_dies_with_its_third() -> None:
    second = after_crash(Counters(0, 1, 3), alone=False)
    assert isinstance(second, Requeue)
    assert second.suspect
    third = after_crash(Counters(1, 2, 3), alone=True)
    message = "the process that ran this task died 3 times, the last time with nothing beside it"
    error = ErrorInfo("NodeCrashed", message)
    assert third == Finish(status=Status.FAILED, failures=1, crashes=3, error=error)


@settings(max_examples=100, deadline=None)
@given(COUNTERS, st.booleans(), st.integers(1, 6))
def test_only_a_crash_alone_is_ever_the_end(counters: Counters, alone: bool, max_crashes: int) -> None:
    move = after_crash(counters, alone=alone, max_crashes=max_crashes)
    assert (move.crashes, move.failures) == (counters.crashes + 1, counters.failures)
    assert isinstance(move, Finish) == (alone and move.crashes >= max_crashes)
    assert isinstance(move, Finish) or move.suspect == (move.crashes >= 2)


@settings(max_examples=100, deadline=None)
@given(COUNTERS, st.integers(1, 6))
def test_a_crash_of_its_own_child_is_proof_and_no_danger(counters: Counters, max_crashes: int) -> None:
    move = after_child_crash(counters, ERROR, max_crashes=max_crashes)
    assert (move.crashes, move.failures, move.error) == (counters.crashes + 1, counters.failures, ERROR)
    if move.crashes >= max_crashes:
        assert isinstance(move, Finish)
        assert move.status is Status.FAILED
    else:
        assert isinstance(move, Requeue)
        assert (move.kind, move.reason, move.suspect) == (AttemptKind.CRASHED, Reason.CRASHED, False)


@pytest.mark.parametrize(
    "move", [fail(Counters(0, 2, 9)), after_snooze(Counters(0, 2, 9), 1), after_release(Counters(0, 2, 9))]
)
def test_a_suspect_stays_one_until_it_ends(move: Requeue) -> None:
    assert move.suspect


def test_an_orphan_is_decided_on_as_it_is() -> None:
    orphan = Orphan(UUID(int=1), 4, 7, failures=1, crashes=2, max_attempts=3, alone=True, band=5)
    assert isinstance(after_crash(orphan, alone=orphan.alone), Finish)
