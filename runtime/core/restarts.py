"""Restart intensity: how often a child may fail before its supervisor gives up, and how long restarts wait.

Law: value in, value out; the time and the jitter are passed in. The rule is that of OTP's `supervisor`
(`add_restart`): keep the failures of the last `within_s` seconds; one more than `max_restarts` is too many.
Unlike OTP, restarts wait: exponentially longer with every failure in the window, so that what fails for an
outside reason gets time, and many children do not come back at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from runtime.core.backoff import Backoff, delay_s

History = tuple[float, ...]  # times of failures, oldest first; at most max_restarts + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """At most `max_restarts` restarts in any `within_s` seconds. Raises ValueError, naming field and value.

    The back-offs should sum up to well below `within_s`, or failures leave the window before they add up.
    """

    max_restarts: int = 5
    within_s: float = 30.0
    backoff: Backoff = field(default=Backoff(first_s=0.1, factor=2.0, max_s=10.0))

    def __post_init__(self) -> None:
        if self.max_restarts < 0:
            raise ValueError(f"restart max_restarts {self.max_restarts!r}: must be 0 or more")
        if not (isfinite(self.within_s) and self.within_s > 0):
            raise ValueError(f"restart within_s {self.within_s!r}: must be a finite number above 0")


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the child again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop it for good and escalate: it failed `failures` times within the window."""

    failures: int


def record(
    history: History, now_s: float, policy: RestartPolicy, jitter: float
) -> tuple[History, Restart | GiveUp]:
    """Add a failure at `now_s` (monotonic seconds) and decide. `jitter` is uniform in [0, 1).

    Start with `()`. Failures that old are forgotten: now - then > within_s.
    """
    recent = (*(at_s for at_s in history if now_s - at_s <= policy.within_s), now_s)
    if len(recent) > policy.max_restarts:
        return recent, GiveUp(len(recent))
    return recent, Restart(delay_s(policy.backoff, len(recent), jitter))
