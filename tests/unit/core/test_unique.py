from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.authoring.unique import unique_faults
from runtime.core.unique import (
    MODES,
    UNTILS,
    Accept,
    Find,
    Holder,
    Reject,
    Stand,
    Unique,
    decide,
    longest_s,
    unique_id,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OTHER = UUID(int=7)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def holder(stand: Stand, age_s: float = 30.0, due_in_s: float = 0.0, chain_s: float | None = None) -> Holder:
    first_at = NOW - seconds(age_s if chain_s is None else chain_s)
    return Holder(OTHER, stand, NOW - seconds(age_s), first_at, NOW + seconds(due_in_s))


WAITS, RUNS, ENDED = Stand.WAITS, Stand.RUNS, Stand.ENDED


@pytest.mark.parametrize(
    ("until", "for_s", "stand", "holds"),
    [
        (None, None, WAITS, True),
        (None, None, RUNS, True),
        (None, None, ENDED, False),
        ("finished", None, RUNS, True),
        ("started", None, WAITS, True),
        ("started", None, RUNS, False),
        ("started", None, ENDED, False),
        (None, 30.001, ENDED, True),  # a window is one of time, whatever the task does
        (None, 30.0, WAITS, False),
    ],
)
def test_what_stands_in_the_way(until: str | None, for_s: float | None, stand: Stand, *, holds: bool) -> None:
    fresh = Accept(NOW, kept_until=None if for_s is None else NOW + seconds(for_s))
    for mode, answer in (("reject", Reject()), ("existing", Find())):
        rule = Unique(mode=mode, until=until, for_s=for_s)  # type: ignore[arg-type]  # from a table
        assert decide(rule, holder(stand), NOW) == (answer if holds else fresh)
        assert decide(rule, None, NOW) == fresh


def test_throttle_is_existing_for_a_window() -> None:
    rule = Unique(mode="throttle", for_s=60)
    for stand in Stand:
        assert decide(rule, holder(stand, age_s=59.9), NOW) == Find()
        assert decide(rule, holder(stand, age_s=60), NOW) == Accept(NOW, kept_until=NOW + seconds(60))


def test_what_is_replaced_keeps_its_place_in_the_queue() -> None:
    rule = Unique(mode="replace")
    for stand in (RUNS, ENDED):
        assert decide(rule, holder(stand), NOW) == Accept(NOW)
    first_at = NOW - seconds(30)
    overdue = holder(WAITS, due_in_s=-20)
    assert decide(rule, overdue, NOW) == Accept(first_at, run_at=NOW - seconds(20), replaces=True)
    assert decide(rule, overdue, NOW, later=True) == Accept(first_at, replaces=True)
    assert decide(rule, holder(WAITS, due_in_s=20), NOW) == Accept(first_at, replaces=True)


def test_debounced_tasks_are_put_off_no_longer_than_allowed() -> None:
    rule = Unique(mode="debounce", for_s=10, max_s=60)
    for stand in (RUNS, ENDED):
        assert decide(rule, holder(stand), NOW) == Accept(NOW, delay_s=10)
    assert decide(rule, holder(WAITS, chain_s=50), NOW) == Accept(
        NOW - seconds(50), delay_s=10, replaces=True
    )
    late = Accept(NOW - seconds(55), run_at=NOW + seconds(5), replaces=True)
    assert decide(rule, holder(WAITS, age_s=1, chain_s=55), NOW) == late
    assert longest_s(Unique(mode="debounce", for_s=10)) == 100


rules = st.builds(
    Unique,
    mode=st.sampled_from(MODES),
    until=st.none() | st.sampled_from(UNTILS),
    for_s=st.none() | st.floats(0.1, 100),
    max_s=st.none() | st.floats(0.1, 200),
).filter(lambda rule: not unique_faults(rule))
posts = st.lists(st.tuples(st.floats(0, 50), st.sampled_from(["post", "start", "end"])), max_size=40)


@given(rule=rules, steps=posts)
def test_whatever_is_posted_the_promise_of_the_mode_holds(
    rule: Unique, steps: list[tuple[float, str]]
) -> None:
    """One key, as a record would have it: tasks are posted, started and ended in any order."""
    now, stands, times = NOW, dict[int, Stand](), dict[int, tuple[datetime, datetime, datetime]]()
    newest: int | None = None
    for wait_s, step in steps:
        now += seconds(wait_s)
        if step == "start":
            due = [n for n, stand in stands.items() if stand is WAITS and times[n][2] <= now]
            stands |= dict.fromkeys(due[:1], RUNS)
        elif step == "end":
            running = [n for n, stand in stands.items() if stand is RUNS]
            stands |= dict.fromkeys(running[:1], ENDED)
        else:
            held = None if newest is None else Holder(UUID(int=newest), stands[newest], *times[newest])
            decision = decide(rule, held, now)
            if isinstance(decision, Accept):
                if decision.replaces:
                    assert newest is not None
                    assert stands[newest] is WAITS, "what runs is left alone"
                    stands[newest] = ENDED
                newest = len(stands) + 1
                due_at = decision.run_at or now + seconds(decision.delay_s or 0)
                stands[newest], times[newest] = WAITS, (now, decision.first_at, due_at)
        check(rule, stands, times)


def check(
    rule: Unique, stands: dict[int, Stand], times: dict[int, tuple[datetime, datetime, datetime]]
) -> None:
    waiting = [n for n, stand in stands.items() if stand is WAITS]
    unended = [n for n, stand in stands.items() if stand is not ENDED]
    if rule.for_s is None or rule.mode == "debounce":
        assert len(waiting) <= 1
    if rule.mode in {"reject", "existing"} and rule.for_s is None and rule.until != "started":
        assert len(unended) <= 1
    if rule.mode in {"reject", "existing", "throttle"} and rule.for_s is not None:
        accepted = sorted(accepted_at for accepted_at, _, _ in times.values())
        assert all(b - a >= seconds(rule.for_s) for a, b in pairwise(accepted))
    if rule.mode == "debounce":
        for _, first_at, due in times.values():
            assert due <= first_at + seconds(longest_s(rule))


def test_an_id_is_of_tenant_handler_and_key_or_arguments() -> None:
    by_args, by_key = Unique(mode="reject"), Unique(mode="replace", key="k")

    def made(
        rule: Unique, tenant: str = "t", handler: str = "h", actor: str | None = None, **payload: object
    ) -> UUID:
        return unique_id(tenant, handler, rule, actor_key=actor, payload=payload)

    assert made(by_args, a=1, b=2) == made(by_args, b=2, a=1)
    assert made(by_key, a=1) == made(by_key, a=2, actor="x")
    others = [
        made(by_args, a=1),
        made(by_args, a=2),
        made(by_args, "u", a=1),
        made(by_args, handler="i", a=1),
        made(by_args, actor="x", a=1),
        made(by_key),
        made(by_key, handler="i"),
        made(Unique(mode="reject", key="l")),
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("rule", "pointer", "detail"),
    [
        (Unique(mode="once"), "/unique/mode", "'once' is not one of reject, existing"),  # type: ignore[arg-type]
        (Unique(mode="reject", key=""), "/unique/key", "0 characters"),
        (Unique(mode="reject", until="done"), "/unique/until", "'done' is not one of"),  # type: ignore[arg-type]
        (Unique(mode="reject", until="started", for_s=1), "/unique/until", "give until or for_s"),
        (Unique(mode="replace", until="started"), "/unique/until", "goes with reject and existing"),
        (Unique(mode="replace", for_s=1), "/unique/for_s", "does not go with replace"),
        (Unique(mode="throttle"), "/unique/for_s", "is required"),
        (Unique(mode="debounce"), "/unique/for_s", "is required"),
        (Unique(mode="throttle", for_s=0), "/unique/for_s", "0 is not a number of seconds above 0"),
        (Unique(mode="existing", for_s=float("nan")), "/unique/for_s", "nan is not"),
        (Unique(mode="throttle", for_s=1, max_s=1), "/unique/max_s", "goes with debounce only"),
        (Unique(mode="debounce", for_s=5, max_s=4), "/unique/max_s", "4 is less than for_s, 5"),
        ("reject", "/unique", "is not a Unique"),
    ],
)
def test_what_is_wrong_is_named(rule: object, pointer: str, detail: str) -> None:
    [(where, what)] = unique_faults(rule)
    assert where == pointer
    assert detail in what
