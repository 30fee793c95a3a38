"""When a connection counts as deaf. Pure: time is a number."""

from __future__ import annotations

from runtime.adapters.rabbitmq.echo import BACK_WITHIN_S, EVERY_S, Echo

LATE = BACK_WITHIN_S + 0.1


def test_a_fresh_one_has_to_prove_itself() -> None:
    echo = Echo()
    assert not echo.heard
    assert echo.due(0)
    sequence = echo.send(0)
    assert not echo.due(EVERY_S + 1)  # one at a time
    echo.returned(sequence)
    assert echo.heard
    assert not echo.due(EVERY_S - 0.1)
    assert echo.due(EVERY_S)


def test_late_once_may_be_our_own_fault_twice_is_deaf() -> None:
    echo = Echo()
    sequence = echo.send(0)
    assert not echo.deaf(BACK_WITHIN_S - 0.1)
    assert not echo.deaf(LATE)
    echo.returned(sequence)
    assert not echo.deaf(LATE + 1)
    echo.send(10)
    assert not echo.deaf(10 + LATE)
    assert echo.deaf(10 + LATE + 0.5)


def test_what_arrives_meanwhile_is_no_silence() -> None:
    echo = Echo()
    echo.send(0)
    assert not echo.deaf(LATE)
    echo.alive(2)
    assert not echo.deaf(LATE)
    assert not echo.deaf(2 + LATE)
    assert echo.deaf(2 + LATE)


def test_only_a_canary_that_is_out_comes_back() -> None:
    echo = Echo()
    old = echo.send(0)
    echo.returned(old)
    echo.send(5)
    echo.returned(old)
    assert not echo.deaf(5 + LATE)
    assert echo.deaf(5 + LATE)


def test_what_could_not_be_sent_is_sent_again_within_the_same_time() -> None:
    echo = Echo()
    first = echo.send(0)
    echo.failed()
    assert echo.due(1)
    second = echo.send(1)
    assert second != first
    assert not echo.due(1)
    assert not echo.deaf(LATE)
    assert echo.deaf(LATE)
    echo.returned(first)  # it had been sent after all
    assert echo.heard
    assert not echo.deaf(LATE)


def test_who_cannot_send_expects_nothing() -> None:
    echo = Echo()
    echo.returned(echo.send(0))
    echo.send(2)
    echo.forget()
    assert not echo.heard
    assert not echo.deaf(2 + LATE)
    assert not echo.deaf(2 + LATE)
    assert echo.due(2 + LATE)
