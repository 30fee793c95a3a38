"""A request in which nothing is wrong, and what was learned on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.authoring.options import HandlerOptions
from actors.authoring.registry import HandlerDef
from actors.catalog import ForeignHandler
from actors.intake.requests import TaskSpec
from runtime.core.unique import Unique

Combination = tuple[
    str, int, str, tuple[str, ...], bool
]  # the fields of a BandKey; hashes in a tenth of its time


@dataclass(frozen=True, slots=True)
class Missing:
    """A handler that nobody is known to have. A dotted name is most likely a method of an actor."""

    actor_type: str | None
    options: HandlerOptions = HandlerOptions()
    needs_limit_key: bool = False
    is_limited: bool = False


@dataclass(slots=True)
class Checked:
    spec: TaskSpec
    handler: HandlerDef | ForeignHandler | Missing
    key: Combination
    payload: bytes
    metadata: bytes | None
    args: dict[str, Any]
    is_plain: bool = False  # nothing optional is set
    unique: Unique | None = None
