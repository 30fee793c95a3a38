"""The failure detector: phi accrual over the arrival of heartbeats.

Phi is minus the decimal logarithm of the probability that a heartbeat comes later than it is now late, from the mean
and deviation of the last intervals. Hayashibara, Defago, Yared, Katayama: The phi accrual failure detector (2004); the
logistic approximation of the normal tail is the one that Akka uses.

Law: no clock here; callers give monotonic seconds. What it says is a suspicion, never a death.
"""

from __future__ import annotations

from collections import deque
from math import exp, inf, log10, sqrt
from typing import Final

THRESHOLD: Final = 8.0
_WINDOW: Final = 100
_DEVIATION_MIN: Final = 0.2  # of an interval: an event loop's jitter
_PAUSE: Final = 1.25  # intervals that may be missing before anybody is suspected: a collection, a busy moment
_CUT_SHARE: Final = 0.5


class Arrivals:
    """When one member's heartbeats came."""

    def __init__(self, interval_s: float, now_s: float) -> None:
        self._interval_s = interval_s
        self._last_s = now_s
        self._gaps_s: deque[float] = deque([interval_s], maxlen=_WINDOW)

    def beat(self, now_s: float) -> None:
        self._gaps_s.append(max(0.0, now_s - self._last_s))
        self._last_s = now_s

    def phi(self, now_s: float) -> float:
        """0 when it was heard just now; 8 means that a mistake is as likely as 1 in 10^8."""
        mean_s = sum(self._gaps_s) / len(self._gaps_s)
        deviation_s = sqrt(sum((gap - mean_s) ** 2 for gap in self._gaps_s) / len(self._gaps_s))
        deviation_s = max(deviation_s, _DEVIATION_MIN * self._interval_s)
        y = (now_s - self._last_s - mean_s - _PAUSE * self._interval_s) / deviation_s
        slope = y * (1.5976 + 0.070566 * y * y)
        if slope > 500:  # exp would not be a float any more
            return inf
        tail = exp(-slope) if slope > -500 else inf
        return -log10(tail / (1 + tail)) if tail < inf else 0.0


class Detector:
    """Who is silent, as this member hears it. Heartbeats of members that it does not follow are forgotten."""

    def __init__(self, me: int, interval_s: float, now_s: float) -> None:
        self._me = me
        self._interval_s = interval_s
        self._arrivals: dict[int, Arrivals] = {me: Arrivals(interval_s, now_s)}

    def follow(self, members: frozenset[int], now_s: float) -> None:
        """From now on these; a new one is taken for heard now."""
        for member in self._arrivals.keys() - members - {self._me}:
            del self._arrivals[member]
        for member in members - self._arrivals.keys():
            self._arrivals[member] = Arrivals(self._interval_s, now_s)

    def beat(self, member: int, now_s: float) -> None:
        if member in self._arrivals:
            self._arrivals[member].beat(now_s)

    def restart(self, now_s: float) -> None:
        """Nothing could be heard until now (the broker was away, this process stood still): all begin anew."""
        for member in self._arrivals:
            self._arrivals[member] = Arrivals(self._interval_s, now_s)

    def hears_itself(self, now_s: float) -> bool:
        return self._arrivals[self._me].phi(now_s) < THRESHOLD

    def silent(self, now_s: float) -> frozenset[int]:
        """Members that are suspected. Nobody, where the fault is more likely here: this member does not hear itself,
        or fewer than half of all."""
        silent = frozenset(
            member for member, arrivals in self._arrivals.items() if arrivals.phi(now_s) >= THRESHOLD
        )
        if self._me in silent or len(self._arrivals) - len(silent) < _CUT_SHARE * len(self._arrivals):
            return frozenset()
        return silent
