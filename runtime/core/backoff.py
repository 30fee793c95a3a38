"""How long to wait before the next try: exponential with full jitter, as a pure function.

Law: randomness is passed in, never fetched. Source of the formula: "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015, where full jitter needed the fewest calls of all variants to get contended work done.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True, slots=True)
class Backoff:
    """Before try n+1: up to `first_s * factor ** (n - 1)` seconds, never more than `max_s`.

    Raises ValueError, naming the field, the value and what is allowed. `first_s` 0 repeats at once.
    """

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0

    def __post_init__(self) -> None:
        _check("first_s", self.first_s, 0.0)
        _check("factor", self.factor, 1.0)
        _check("max_s", self.max_s, 0.0)
        if self.max_s < self.first_s:
            raise ValueError(f"backoff max_s {self.max_s!r}: must be at least first_s ({self.first_s!r})")


def delay_s(policy: Backoff, failures: int, jitter: float) -> float:
    """Seconds to wait after `failures` failures (1 or more); `jitter` is uniform in [0, 1).

    Raises ValueError where one of the two is not. Never overflows.
    """
    if failures < 1:
        raise ValueError(f"failures {failures!r}: must be 1 or more")
    if not 0.0 <= jitter < 1.0:
        raise ValueError(f"jitter {jitter!r}: must be within [0, 1)")
    try:
        ceiling_s = min(policy.max_s, policy.first_s * policy.factor ** (failures - 1))
    except OverflowError:  # beyond 1.8e308, so beyond every max_s, unless it is 0 that is multiplied
        ceiling_s = policy.max_s if policy.first_s else 0.0
    return jitter * ceiling_s


def _check(name: str, value: float, at_least: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and isfinite(value) and value >= at_least):
        raise ValueError(f"backoff {name} {value!r}: must be a finite number of at least {at_least:g}")
