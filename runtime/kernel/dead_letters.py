"""Every message that reaches nobody is counted here, by reason; a sample is logged.

Law: no drop without a call to `record`. Only the actor's name and the message's type show, never contents.
"""

from __future__ import annotations

import logging
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.kernel.clock import Clock

LOG_EVERY_S: Final = 10.0  # at most one line per (reason, actor) in this time
REMEMBERED_MAX: Final = 1000  # pairs of (reason, actor); then sampling begins anew

_log = logging.getLogger(__name__)


class Drop(StrEnum):
    """Why a message reached nobody."""

    MAILBOX_FULL = "mailbox_full"
    DROPPED_OLD = "dropped_old"  # made room for a newer one
    STOPPED = "stopped"  # the actor is no more
    EXPIRED = "expired"  # its asker no longer waits
    UNHANDLED = "unhandled"  # the actor did not know it, or did not answer


class DeadLetters:
    """Counts by reason since the start; `hook(reason, actor, message_type)` sees each one."""

    def __init__(self, clock: Clock, hook: Callable[[str, str, str], None] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._hook = hook
        self._logged: dict[tuple[Drop, str], tuple[float, int]] = {}  # (last logged at, silent since)

    def record(self, reason: Drop, actor: str, message: object) -> None:
        kind = type(message).__name__
        self.counts[reason] += 1
        self._sample(reason, actor, kind)
        if self._hook is not None:
            self._hook(reason.value, actor, kind)

    def _sample(self, reason: Drop, actor: str, kind: str) -> None:
        now_s = self._clock.now_s()
        if len(self._logged) >= REMEMBERED_MAX:
            self._logged.clear()
        at_s, silent = self._logged.get((reason, actor), (-LOG_EVERY_S, 0))
        if now_s - at_s < LOG_EVERY_S:
            self._logged[reason, actor] = (at_s, silent + 1)
            return
        self._logged[reason, actor] = (now_s, 0)
        _log.warning("dead letter: %s for %s: %s (%d more since the last line)", kind, actor, reason, silent)
