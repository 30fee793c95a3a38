"""Until when this incarnation is certainly alive, by its own clock.

Law: a lease that was asked for at t and granted for L seconds cannot run out before t + L by anybody's clock. Messages
to keyed actors stop a little earlier, so that no body of a key runs when another node may take the key over; work
without a key goes on, for the record refuses its late commit anyway. And who is not certain of itself declares nobody dead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

_MARGIN: Final = 0.2  # of a lease: for a body to notice that it is stopped


def boottime_s() -> float:
    """Goes on while the machine sleeps, as the record's clock does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """Written by whoever renews the lease, in any thread. Without renewals (a Harness) it never passes."""

    def __init__(self, now_s: Callable[[], float] = boottime_s) -> None:
        self._now_s = now_s
        self._until_s = math.inf

    def renewed(self, asked_s: float, lease_s: float) -> None:
        """The lease was granted for `lease_s`, asked for at `asked_s` by this clock."""
        self._until_s = asked_s + lease_s * (1 - _MARGIN)

    @property
    def passed(self) -> bool:
        return self._now_s() >= self._until_s
