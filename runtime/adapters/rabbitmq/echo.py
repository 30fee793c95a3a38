"""Whether a connection still hears: what it sends to itself has to come back. Pure; the time is passed in.

A consumer can go deaf in silence (its queue moved, its channel is stuck, a frozen server keeps the socket open),
and TCP notices after minutes. So a canary goes through the own queue, one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EVERY_S: Final = 2.0
BACK_WITHIN_S: Final = 3.0


@dataclass(slots=True)
class Echo:
    """All times are monotonic seconds."""

    heard: bool = False  # something of ours came back, and nothing is known since that forbids it
    _sequence: int = 0  # of the newest canary
    _oldest: int = 0  # sequence of the first that is out
    _out_s: float | None = None  # since when one is out
    _sent_s: float = float("-inf")
    _alive_s: float = float("-inf")
    _again: bool = False
    _late: bool = False

    def due(self, now_s: float) -> bool:
        """Whether to send a canary now."""
        if self._out_s is not None:
            return self._again
        return not self.heard or now_s - self._sent_s >= EVERY_S

    def send(self, now_s: float) -> int:
        """The next canary's sequence; it is on its way from now on."""
        self._sequence += 1
        self._again, self._sent_s = False, now_s
        if self._out_s is None:
            self._out_s, self._oldest, self._late = now_s, self._sequence, False
        return self._sequence

    def failed(self) -> None:
        """It could not be sent; to be tried again within the same time."""
        self._again = True

    def alive(self, at_s: float) -> None:
        """Something else arrived then, or a canary could not have: that is no silence."""
        self._alive_s = at_s

    def returned(self, sequence: int) -> None:
        if self._out_s is not None and sequence >= self._oldest:
            self._out_s, self.heard = None, True

    def forget(self) -> None:
        """Nothing can be sent now, so nothing can be expected: begin anew."""
        self._out_s, self.heard = None, False

    def deaf(self, now_s: float) -> bool:
        """Ask again and again. True only for the second time in a row that the canary is late: after the loop
        itself stood still, what has arrived meanwhile is read before the second look."""
        late = self._out_s is not None and now_s - max(self._out_s, self._alive_s) >= BACK_WITHIN_S
        twice, self._late = late and self._late, late
        return twice
