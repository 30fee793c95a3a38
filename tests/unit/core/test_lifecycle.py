from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.core.lifecycle import INITIAL, TRANSITIONS, Event, diagram, step
from runtime.core.task import State
from runtime.errors import IllegalTransition

if TYPE_CHECKING:
    from collections.abc import Collection

ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"

# The table once more, the other way round: for each event, all that it does.
SPECIFIED = {
    Event.PARENTS_DONE: {State.BLOCKED: State.SCHEDULED},
    Event.PARENT_FAILED: {State.BLOCKED: State.FAILED},
    Event.SKIPPED: {State.BLOCKED: State.CANCELLED},
    Event.DUE: {State.SCHEDULED: State.READY},
    Event.CLAIMED: {State.READY: State.RUNNING},
    Event.SUCCEEDED: {State.RUNNING: State.SUCCEEDED},
    Event.FAILED: {State.RUNNING: State.FAILED},
    Event.GIVEN_UP: {State.RUNNING: State.FAILED},
    Event.RETRIED: {State.RUNNING: State.SCHEDULED},
    Event.SNOOZED: {State.RUNNING: State.SCHEDULED},
    Event.RELEASED: {State.RUNNING: State.SCHEDULED},
    Event.CRASHED: {State.RUNNING: State.READY},
    Event.CANCELLED: dict.fromkeys(INITIAL, State.CANCELLED),
    Event.EXPIRED: dict.fromkeys(INITIAL, State.CANCELLED),
    Event.REPLAYED: {State.FAILED: State.READY, State.CANCELLED: State.READY},
    Event.REOPENED: {State.FAILED: State.BLOCKED, State.CANCELLED: State.BLOCKED},
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_is_as_specified_or_refused(state: State, event: Event) -> None:
    after = SPECIFIED[event].get(state)
    if after is not None:
        assert step(state, event) is after
    else:
        with pytest.raises(IllegalTransition, match=f"^{event} in state {state}: allowed there is "):
            step(state, event)


def test_a_refusal_says_what_is_allowed() -> None:
    with pytest.raises(IllegalTransition, match="claimed in state succeeded: allowed there is nothing"):
        step(State.SUCCEEDED, Event.CLAIMED)
    with pytest.raises(
        IllegalTransition, match="due in state ready: allowed there is claimed, cancelled, expired"
    ):
        step(State.READY, Event.DUE)


def test_nobody_can_change_the_table() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[State.SUCCEEDED, Event.REPLAYED] = State.READY  # type: ignore[index]  # that is the point


class Life(RuleBasedStateMachine):
    """Any sequence of events: an illegal one changes nothing, and success is for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.READY
        self.succeeded = False

    @rule(event=st.sampled_from(Event))
    def happen(self, event: Event) -> None:
        before = self.state
        try:
            self.state = step(before, event)
        except IllegalTransition:
            assert self.state is before
            assert (before, event) not in TRANSITIONS
        self.succeeded |= self.state is State.SUCCEEDED

    @invariant()
    def success_is_for_ever(self) -> None:
        assert self.succeeded == (self.state is State.SUCCEEDED)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)


def reachable(start: State, without: Collection[Event] = ()) -> set[State]:
    seen, frontier = {start}, {start}
    while frontier:
        frontier = {
            to for (at, event), to in TRANSITIONS.items() if at in frontier and event not in without
        } - seen
        seen |= frontier
    return seen


def test_from_every_state_a_final_one_can_be_reached_and_every_state_has_a_way_to_it() -> None:
    for state in State:
        assert any(to.final for to in reachable(state))
    assert set().union(*(reachable(state) for state in INITIAL)) == set(State)


def test_only_a_replay_leads_out_of_a_final_state() -> None:
    for state in (state for state in State if state.final):
        assert reachable(state, without={Event.REPLAYED, Event.REOPENED}) == {state}


# -- the diagram ------------------------------------------------------------------------------------


def test_the_diagram_has_every_arrow_of_the_table_and_no_other() -> None:
    arrows = {}
    for before, after, events in re.findall(r"^    (\w+) --> (\w+): (.+)$", diagram(), re.MULTILINE):
        for event in events.split(", "):
            arrows[State(before), Event(event.replace(" ", "_"))] = State(after)
    assert arrows == TRANSITIONS
    assert set(re.findall(r"\[\*\] --> (\w+): accepted", diagram())) == set(INITIAL)


def test_the_module_prints_the_block_for_the_document() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "runtime.core.lifecycle"], capture_output=True, text=True, check=True
    )
    assert printed.stdout == f"```mermaid\n{diagram()}```\n"


def test_the_architecture_shows_the_diagram_as_it_is() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- lifecycle:begin -->\n(.*?)<!-- lifecycle:end -->", text, re.DOTALL)
    assert len(blocks) == 1, "ARCHITECTURE.md needs one block between lifecycle:begin and lifecycle:end"
    hint = "put the output of `python -m runtime.core.lifecycle` between the markers"
    assert blocks[0].strip() == f"```mermaid\n{diagram()}```", hint
