"""What `make load` plays: callers (a class of locustfile.py), a question, a share of the time, and faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` is a fraction of the scenario's time."""

    at: float
    kind: Literal["kill", "join"]


@dataclass(frozen=True, slots=True)
class Scenario:
    user: str
    title: str
    question: str
    share: int = 1
    faults: tuple[Fault, ...] = ()


SCENARIOS: Final = (
    Scenario(
        "SinglePosts",
        "single posts",
        "How fast are callers served that post one task after the other, as quickly as they are answered?",
    ),
    Scenario(
        "Batches",
        "batches",
        "How many tasks go in by batches of 100, and how soon after the last one are all of them done?",
    ),
    Scenario(
        "PostAndWait",
        "post and wait",
        "How long does a caller wait for the outcome when the cluster is not busy?",
    ),
    Scenario(
        "DuplicateStorm",
        "duplicate storm",
        "All callers post the same key at the same time, to all nodes: does each of them get the same task?",
    ),
    Scenario(
        "MixedPriorities",
        "mixed priorities",
        "More is asked for than there is room to run: does what is urgent still go first?",
    ),
    Scenario(
        "Orders",
        "kill and join",
        "A node is killed with -9 and another one joins under load: what do callers notice, and is anything lost or "
        "done twice?",
        share=2,
        faults=(Fault(0.2, "kill"), Fault(0.5, "join")),
    ),
)


def seconds_of(chosen: Sequence[Scenario], total_s: float) -> dict[str, float]:
    """How long each is played, by its user class, in whole seconds."""
    shares = sum(scenario.share for scenario in chosen)
    return {scenario.user: float(max(2, round(total_s * scenario.share / shares))) for scenario in chosen}
