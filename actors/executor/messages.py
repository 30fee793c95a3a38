"""What the executor is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from actors.authoring.registry import Kind
from actors.keyed.messages import KeysWait, MailSeen, TurnsBegun
from runtime.core.limits import LimitedPull
from runtime.core.task import Claim, Take
from runtime.kernel.actor import Control, Request
from runtime.ports import Delivery


@dataclass(frozen=True, slots=True)
class Born(Control):
    """Tasks that were accepted straight into this node's running set; capacity is reserved for them."""

    claims: tuple[Claim, ...]
    args: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Offered:
    """Ids and attempts that wait and belong here; to be acknowledged when they are claimed or given up."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Waits:
    """Rows of these bands wait that are due."""

    bands: frozenset[int]


@dataclass(frozen=True, slots=True)
class DueLater:
    """(band, in how many seconds) of rows that are not due yet. A hint: the sweep finds them too."""

    items: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class CancelRun(Control):
    """Somebody asked to cancel this running task."""

    task_id: UUID


@dataclass(frozen=True, slots=True)
class SuspectsWait(Control):
    """Suspects wait in these bands (positive ids)."""

    bands: frozenset[int]


@dataclass(frozen=True, slots=True)
class Refresh(Control):
    """Pauses, bands or handlers may have changed: read them again now."""


@dataclass(frozen=True, slots=True)
class AnswerLost(Control):
    """Tasks may have been born running here without our knowing: look soon for what we do not know."""


@dataclass(frozen=True, slots=True)
class Running:
    """One body that runs now, for people."""

    task_id: UUID
    handler: str
    attempt: int
    run_s: float


@dataclass(frozen=True, slots=True)
class ListRunning(Control, Request[tuple[Running, ...]]):
    """The longest running bodies of this node (at most 100)."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain came to."""

    finished: int
    released: int


@dataclass(frozen=True, slots=True)
class Drain(Control, Request[Drained]):
    """Claim nothing more; end or hand back everything within `within_s`."""

    within_s: float


@dataclass(frozen=True, slots=True)
class Pulled(Control):
    """A pull came back (to itself)."""

    takes: tuple[Take, ...]
    marks: tuple[int, ...]
    claims: tuple[Claim, ...]
    failed: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Claimed(Control):
    """A claim by offer came back (to itself). `asked` were taken of that kind's capacity for it."""

    kind: Kind
    asked: int
    claims: tuple[Claim, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class LimitedPulled(Control):
    """A pull under limits came back (to itself)."""

    kind: Kind
    pull: LimitedPull
    failed: bool = False


@dataclass(frozen=True, slots=True)
class MoreMayBegin(Control):
    """Time lets something limited begin (to itself)."""


@dataclass(frozen=True, slots=True)
class Tick(Control):
    """Deadlines, buffers, due times (to itself)."""


@dataclass(frozen=True, slots=True)
class Second(Control):
    """Once a second: the pull that repairs, and what others may have changed (to itself)."""


Message = (
    Born
    | Offered
    | Waits
    | DueLater
    | CancelRun
    | SuspectsWait
    | Refresh
    | AnswerLost
    | ListRunning
    | Drain
    | KeysWait
    | MailSeen
    | TurnsBegun
    | Pulled
    | Claimed
    | LimitedPulled
    | MoreMayBegin
    | Tick
    | Second
)
