"""What the supervisor is told and asked."""

from __future__ import annotations

from dataclasses import dataclass

from actors.executor.messages import Drained
from actors.executor.messages import Message as ExecutorMessage
from actors.router.messages import Message as RouterMessage
from runtime.kernel.actor import Control, Ref, Request


@dataclass(frozen=True, slots=True)
class Actors:
    """Where to send what."""

    router: Ref[RouterMessage]
    executor: Ref[ExecutorMessage]


@dataclass(frozen=True, slots=True)
class GetActors(Control, Request[Actors]):
    """Answered once the children run."""


@dataclass(frozen=True, slots=True)
class JoinCluster(Control, Request[None]):
    """Take a place in the ring; answered when this node is in the view, or when it goes on without."""


@dataclass(frozen=True, slots=True)
class DrainNode(Control, Request[Drained]):
    """Leave without losing or repeating work: claim nothing more, end or hand back what runs within `within_s`."""

    within_s: float


@dataclass(frozen=True, slots=True)
class Beat(Control):
    """Time for a heartbeat (to itself)."""


@dataclass(frozen=True, slots=True)
class Look(Control):
    """Compare leases, silence and view (to itself)."""


Message = GetActors | JoinCluster | DrainNode | Beat | Look
