"""Any sequence of operations gets the same answers from both stores and leaves the same record.

Hypothesis makes up the sequences and shortens one that tells the two apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime.core.task import AttemptKind, State, Status, TaskFilter
from tests.contract.twins import (
    BANDS,
    LEASE_S,
    RULES,
    TICKS_S,
    Accept,
    Cast,
    ClaimOffers,
    Control,
    Death,
    Matching,
    Move,
    Operation,
    Pull,
    Repair,
    Settle,
    Side,
    Simple,
    Spec,
    Tell,
    outcome_of,
    snapshot,
)

if TYPE_CHECKING:
    from tests.contract.world import MemoryWorld, World

EXAMPLES: Final = 40
STEPS_MIN, STEPS_MAX = 8, 25

seldom = st.integers(0, 9).map(lambda n: n == 9)
rarely = st.integers(0, 24).map(lambda n: n == 24)
number = st.integers(0, 30)
small = st.integers(0, 4)

plain_specs = st.builds(
    Spec,
    band=st.integers(0, len(BANDS) - 1),
    key=st.none() | st.integers(0, 5),
    request=st.sampled_from("aaaab"),
    delayed=seldom,
    expires=seldom,
    born_on=st.none() | st.none() | small,
    bad=rarely,
)
specs = st.builds(  # children are never unique
    replace,
    plain_specs,
    unique=st.none() | st.none() | st.tuples(st.integers(1, 3), st.integers(0, len(RULES) - 1)),
)
moves = st.builds(
    Move,
    status=st.none() | st.sampled_from(Status),
    kind=st.sampled_from([kind for kind in AttemptKind if kind is not AttemptKind.REPLAYED]),
    delayed=seldom,
    suspect=seldom,
    failures=st.integers(0, 2),
    crashes=st.integers(0, 2),
    children=st.just([]) | st.lists(plain_specs, max_size=2),
    bad=rarely,
)
off = st.integers(0, 19).map(lambda n: {18: -1, 19: 1}.get(n, 0))
filters = st.sampled_from(
    [
        TaskFilter(),
        TaskFilter(handler="slow"),
        TaskFilter(handler="echo", states=(State.READY, State.FAILED)),
        TaskFilter(states=(State.CANCELLED, State.SCHEDULED)),
        TaskFilter(idempotency_key="k1"),
        TaskFilter(error_type="ValueError"),
        TaskFilter(tenant="nobody"),
    ]
)
takes = st.lists(
    st.tuples(st.integers(0, len(BANDS) - 1), seldom, st.integers(0, 5), seldom),
    min_size=1,
    max_size=2,
    unique_by=lambda take: take[0],
)
CLOCK: Final = [
    Simple("expire"),
    Simple("forget"),
    *(Simple("advance", value=seconds) for seconds in TICKS_S),
]
MEMBERS: Final = ["join", "renew", "renew", "bury", "active", "draining", "left"]

operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Accept, groups=st.lists(st.lists(specs, min_size=1, max_size=3), min_size=1, max_size=4)),
    st.builds(Pull, takes=takes, member=small),
    st.builds(Settle, ends=st.lists(st.tuples(number, off, off, moves), min_size=1, max_size=4)),
    st.builds(
        Settle, ends=st.lists(st.tuples(number, st.just(0), st.just(0), moves), min_size=1, max_size=4)
    ),
    st.builds(ClaimOffers, offers=st.lists(st.tuples(number, off), max_size=5), member=small),
    st.builds(Control, name=st.sampled_from(["cancel", "replay", "get"]), task=number),
    st.builds(
        Matching, name=st.sampled_from(["cancel", "replay", "purge"]), which=filters, dry_run=st.booleans()
    ),
    st.builds(Repair, crashes_max=st.integers(0, 2)),
    st.builds(Tell, reports=st.lists(st.tuples(number, off), max_size=3), member=small),
    st.sampled_from(CLOCK),
    st.builds(
        Simple, name=st.sampled_from(MEMBERS), member=small, value=st.sampled_from([LEASE_S, LEASE_S, -5.0])
    ),
    st.builds(Death, member=small),
)


# So that there is something to act on from the first step: four tasks wait, three run.
PLAIN: Final = Spec(band=0, key=None, request="a", delayed=False, expires=False, born_on=None, bad=False)
PROLOGUE: Final = (
    Accept([[PLAIN]] * 7),
    Pull([(0, False, 2, False)], member=0),
    Pull([(0, False, 1, False)], member=1),
)


async def opened(world: World) -> Side:
    """An empty store with two members and two bands."""
    await world.clear()
    side = Side(world)
    side.members += [await world.member(f"n{n}", LEASE_S) for n in range(2)]
    side.bands += [band.id for band in await world.store.intern(BANDS)]
    return side


@pytest.mark.timeout(600)  # a failure takes long to shorten
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes minutes
    deadline=None,  # a real server answers
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],  # `opened` clears the stores
    print_blob=True,
)
@given(program=st.lists(operations, min_size=STEPS_MIN, max_size=STEPS_MAX))
async def test_both_stores_agree(
    memory_world: MemoryWorld, pg_world: World, program: list[Operation]
) -> None:
    memory, postgres = await opened(memory_world), await opened(pg_world)
    cast = Cast(members=2)
    for step, operation in enumerate(program := [*PROLOGUE, *program]):
        action = operation.plan(cast)
        answers = await outcome_of(memory, action), await outcome_of(postgres, action)
        assert answers[0] == answers[1], f"step {step}: {operation}"
        thorough = step == len(program) - 1
        expected = await snapshot(memory, cast, thorough=thorough)
        assert await snapshot(postgres, cast, thorough=thorough) == expected, (
            f"after step {step}: {operation}"
        )
