"""Who is in the play, and what is noted of it for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from examples.census.handlers import Count
from examples.census.watch import Watch

KILLED, DRAINED = "node-2", "node-3"
TWICE = 50


class Place(Protocol):
    """Where the nodes run. `urls` by node name; `kill` returns what was done, in words."""

    urls: dict[str, str]

    async def kill(self, node: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Expected:
    """What comes out without Noria."""

    total: Count
    digests: list[str]


@dataclass(slots=True)
class Played:
    """What happened, for the report. Instants are UTC."""

    watch: Watch
    ids: list[str] = field(default_factory=list)  # of all tasks that were accepted
    duplicates: int = 0
    killed_at: datetime | None = None
    drained_at: datetime | None = None
    work_s: float = 0.0
    total: Count | None = None
    digests: list[str] = field(default_factory=list)
