"""Unique tasks: what becomes of a new task while another one stands for the same.

Law: pure. The state of the other task is looked up in the record each time; nothing here is a flag that could be
left behind. Both stores decide with `decide`, under a lock on the unique id, so that of a hundred posts one is first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never
from uuid import UUID

from runtime.core.canonical import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["reject", "existing", "replace", "debounce", "throttle"]
Until = Literal["finished", "started"]
MODES: Final[tuple[Mode, ...]] = ("reject", "existing", "replace", "debounce", "throttle")
UNTILS: Final[tuple[Until, ...]] = ("finished", "started")
TIMES_QUIET: Final = 10  # a debounced task waits at most so many times its for_s, if nothing else is said
REPLACED: Final = "Replaced"  # error type of the task whose place was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """Which tasks of one handler stand for the same, and what to do with a new one meanwhile.

    `key` names what they are for; without it those with equal arguments (and actor key) are the same.

    - `reject`: refuse it; `existing`: answer with the task that is there. Both `until` that one has `finished` (which
      is meant if nothing is said) or `started`, or `for_s` seconds from when it was accepted.
    - `throttle`: as `existing` for `for_s`: at most one per window, and the first of it runs.
    - `replace`: take the place of the one that waits; one that runs goes on, and the new one is accepted beside it.
    - `debounce`: as `replace`, and due once `for_s` have passed without another, at most `max_s` (ten times `for_s`)
      after the first.

    Checked where a task or a handler is made of it (actors.authoring.unique).
    """

    mode: Mode
    key: str | None = None
    until: Until | None = None
    for_s: float | None = None
    max_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Only what was given."""
        fields = {
            "mode": self.mode,
            "key": self.key,
            "until": self.until,
            "for_s": self.for_s,
            "max_s": self.max_s,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Sole:
    """What a new task carries: what it is unique by, and how."""

    id: UUID
    rule: Unique


class Stand(Enum):
    """Where a task is, as far as it matters here."""

    WAITS = 0  # for its turn, its time or its next attempt
    RUNS = 1
    ENDED = 2


@dataclass(frozen=True, slots=True)
class Holder:
    """The newest task that was accepted under a unique id. Instants are the record's.

    `first_at`: since when something waits under this id without a break (of a chain of debounced tasks, the first).
    """

    id: UUID
    stand: Stand
    accepted_at: datetime
    first_at: datetime
    due: datetime


@dataclass(frozen=True, slots=True)
class Accept:
    """Store the new task, which is the holder from now on; due as it says itself, or after `delay_s`, or at `run_at`.

    `replaces`: the holder is cancelled in the same transaction. `kept_until`: it is not forgotten before.
    """

    first_at: datetime
    delay_s: float | None = None
    run_at: datetime | None = None
    replaces: bool = False
    kept_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Find:
    """The holder is the task."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Because of the holder."""


Decision = Accept | Find | Reject


def decide(rule: Unique, holder: Holder | None, now: datetime, *, later: bool = False) -> Decision:
    """What becomes of a new task. `later`: it says itself that it is due later."""
    match rule.mode:
        case "reject":
            return Reject() if _holds(rule, holder, now) else _fresh(rule, now)
        case "existing" | "throttle":
            return Find() if _holds(rule, holder, now) else _fresh(rule, now)
        case "replace":
            if holder is None or holder.stand is not Stand.WAITS:
                return Accept(now)
            # it keeps the place in the queue, or one that is replaced again and again would never come to its turn
            waits_its_turn = holder.due <= now and not later
            return Accept(holder.first_at, run_at=holder.due if waits_its_turn else None, replaces=True)
        case "debounce":
            quiet_s = rule.for_s or 0.0
            if holder is None or holder.stand is not Stand.WAITS:
                return Accept(now, quiet_s)
            last = holder.first_at + timedelta(seconds=longest_s(rule))
            if now + timedelta(seconds=quiet_s) <= last:
                return Accept(holder.first_at, quiet_s, replaces=True)
            return Accept(holder.first_at, run_at=last, replaces=True)
        case _:
            assert_never(rule.mode)


def longest_s(rule: Unique) -> float:
    """How long a debounced task is put off at most."""
    return TIMES_QUIET * (rule.for_s or 0.0) if rule.max_s is None else rule.max_s


def _holds(rule: Unique, holder: Holder | None, now: datetime) -> bool:
    if holder is None:
        return False
    if rule.for_s is not None:
        return now < holder.accepted_at + timedelta(seconds=rule.for_s)
    if rule.until == "started":
        return holder.stand is Stand.WAITS
    return holder.stand is not Stand.ENDED


def _fresh(rule: Unique, now: datetime) -> Accept:
    return Accept(now, kept_until=None if rule.for_s is None else now + timedelta(seconds=rule.for_s))


def unique_id(
    tenant: str, handler: str, rule: Unique, *, actor_key: str | None, payload: Mapping[str, Any]
) -> UUID:
    """Sixteen bytes of SHA-256: tasks of one tenant and handler with one id stand for the same."""
    by = ["args", actor_key, payload] if rule.key is None else ["key", rule.key]
    return UUID(bytes=sha256(canonical([tenant, handler, *by])).digest()[:16])
