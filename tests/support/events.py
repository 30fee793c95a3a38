"""What happens in a cluster, as values, and as a file: one JSON object per line, `event` names its kind.

All times are Unix time in seconds; ids are texts. Fields that a history cannot know have defaults, and rules that need
them pass over what does not have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One request for one task, as its client saw it. `request` is all that makes requests equal or different.

    `status` None: no answer came. `asked_s` is before it was sent, `answered_s` after the answer.
    """

    key: str | None
    request: str
    status: int | None
    id: str | None = None
    duplicate: bool = False
    retry_after: bool = False
    asked_s: float | None = None
    answered_s: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def uncertain(self) -> bool:
        return self.status is None or self.status >= 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelling:
    """A request to cancel that was answered 2xx, and the state that the answer told."""

    id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A handler's body that began. `returned` is false where it was cut off (its process died, it was cancelled)."""

    id: str
    attempt: int
    pid: int
    started_s: float
    ended_s: float
    returned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A task on record. `actor_key` is of all actors (with tenant and type), `seq` its place in the order of submission,
    `delayed` that it was not due at once."""

    id: str
    key: str | None = None
    actor_key: str | None = None
    lane: int = 1
    seq: int | None = None
    delayed: bool = False
    max_attempts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """A task on record that waits."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A task on record that runs."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`result_attempt`: which attempt's body made the result, where the result says so. Times are the record's."""

    id: str
    attempt: int
    status: int = 0  # SUCCEEDED
    failures: int = 0
    crashes: int = 0
    result_attempt: int | None = None
    incarnation: int | None = None
    started_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that committed no outcome. Times are the record's."""

    id: str
    attempt: int
    kind: int
    incarnation: int | None = None
    started_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A lease, as it is in the end. `ended_s` None: it lives."""

    incarnation: int
    node: str
    state: int
    lease_s: float | None = None
    started_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A member's place in a view."""

    node: str
    incarnation: int
    standing: str = "active"
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewed:
    """A view, as its log has it."""

    number: int
    members: tuple[Seat, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What an incarnation went by when it was asked: a view and the fingerprint of its slot table."""

    incarnation: int
    view: int
    table_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What was done to whom. `kind` kill, die (it ended by itself), freeze or cut: of this incarnation and process;
    anything else befell a service. `processes` is how many died of it while they ran tasks."""

    kind: str
    began_s: float
    ended_s: float
    incarnation: int | None = None
    pid: int | None = None
    processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of an incarnation at some time."""

    incarnation: int
    mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The state in the end of an actor whose class counts the messages that succeed. `key` as in Stored."""

    key: str
    count: int


Event = (
    Submission | Cancelling | Body | Stored | Waits | Runs | Outcome | Attempt | Member | Viewed | Installed
    | Fault | Memory | Counted
)  # fmt: skip
_KINDS: Final[dict[str, type[Any]]] = {
    kind.__name__.lower(): kind
    for kind in (
        Submission, Cancelling, Body, Stored, Waits, Runs, Outcome, Attempt, Member, Viewed, Installed, Fault,
        Memory, Counted,
    )
}  # fmt: skip


def write_events(path: Path, events: Iterable[Event]) -> int:
    """How many were written."""
    count = 0
    with path.open("w", encoding="utf-8") as lines:
        for event in events:
            lines.write(json.dumps({"event": type(event).__name__.lower(), **asdict(event)}) + "\n")
            count += 1
    return count


def read_events(path: Path) -> Iterator[Event]:
    """Raises ValueError with the number of a line that is none of ours."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _event(json.loads(line))
            except (KeyError, TypeError, ValueError) as wrong:
                raise ValueError(f"{path}, line {number}: {type(wrong).__name__}: {wrong}") from wrong


def _event(said: dict[str, Any]) -> Event:
    kind = _KINDS[said.pop("event")]
    if unknown := said.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    if kind is Viewed:
        said["members"] = tuple(Seat(**seat) for seat in said["members"])
    event: Event = kind(**said)
    return event
