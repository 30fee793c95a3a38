"""What happened in a world: told line by line, counted, and the first thing that must not be."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from runtime.errors import Unavailable
from tests.simulation.sim_loop import NODE

_TRACE_KEPT: Final = 60


class Violation(AssertionError):
    """Something that must always hold does not."""


class History:
    """`say` gets every line. The same seed has the same `fingerprint`."""

    def __init__(self, now_s: Callable[[], float], say: Callable[[str], object] | None = None) -> None:
        self.now_s = now_s
        self.trace: deque[str] = deque(maxlen=_TRACE_KEPT)
        self.counts: Counter[str] = Counter()  # of what happened, by name
        self.failure: Violation | None = None
        self.broken = asyncio.Event()
        self.dead: set[str] = set()  # processes; what they say is of no interest
        self._say = say
        self._digest = blake2b(digest_size=16)

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def note(self, what: str, count: str | None = None) -> None:
        """A line; `count` is what it is counted as."""
        line = f"{self.now_s():9.3f} {NODE.get():>6} {what}"
        self.trace.append(line)
        self._digest.update(line.encode())
        if count is not None:
            self.counts[count] += 1
        if self._say is not None:
            self._say(line)

    def fail(self, what: str) -> None:
        """The world ends here; what comes after the first failure says nothing."""
        if self.failure is None:
            self.failure = Violation(what)
            self.note(f"VIOLATION: {what}")
            self.broken.set()


class Listener(logging.Handler):
    """A failure that only a log line tells of: an actor that failed, a task whose exception nobody took."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.WARNING)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.msg.startswith("view %d: incarnation %d has the slot table"):
            self._history.fail(record.getMessage())
        if error is not None and not isinstance(error, Unavailable) and NODE.get() not in self._history.dead:
            self._history.fail(f"{NODE.get()}: {record.getMessage()}: {error!r}")
