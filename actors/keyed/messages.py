"""What the executor is told about keyed actors."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from runtime.core.keyed import Mail, Turn
from runtime.kernel.actor import Control


@dataclass(frozen=True, slots=True)
class KeysWait:
    """Messages to these keys wait here: (actor, band of one of them)."""

    keys: tuple[tuple[UUID, int], ...]


@dataclass(frozen=True, slots=True)
class MailSeen(Control):
    """A look at the mail came back (to itself). The next one goes on after that key."""

    lanes: tuple[Mail, ...]
    after: UUID


@dataclass(frozen=True, slots=True)
class TurnsBegun(Control):
    """An ask for turns came back (to itself)."""

    turns: tuple[Turn, ...]
    alone: bool = False
    failed: bool = False
