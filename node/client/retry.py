"""When to try a request again, and after how long. Pure: time and jitter are passed in.

Repeated are requests that got no answer, 502 and 504 (a proxy's word for the same), 429 and 503. A request is
repeated only if a second arrival changes nothing (reads, cancels, tasks under an idempotency key) or if the first
one certainly stored nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.core.backoff import Backoff, delay_s

MAX_TRIES = 100  # whatever the clock says, a loop has a limit


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Back off with full jitter; give up once `total_s` would have passed since the first try."""

    total_s: float = 15.0
    backoff: Backoff = Backoff(first_s=0.1, factor=2.0, max_s=2.0)

    def pause_s(
        self,
        tries: int,
        elapsed_s: float,
        jitter: float,
        advice_s: float | None = None,
        patience_s: float = 0.0,
    ) -> float | None:
        """Seconds to wait after `tries` tries, None to give up. `advice_s` (Retry-After) is a lower bound.

        Under advice the policy lasts for `patience_s` if that is longer: the caller is slowed down, not refused.

        `jitter` is in [0, 1). Under advice the jitter comes on top, so that callers refused together come back apart.
        """
        backoff_s = delay_s(self.backoff, tries, jitter)
        pause_s = backoff_s if advice_s is None else max(advice_s, 0.0) + backoff_s
        total_s = self.total_s if advice_s is None else max(self.total_s, patience_s)
        if tries >= MAX_TRIES or elapsed_s + pause_s > total_s:
            return None
        return pause_s


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header; its other form, a date, is not used by nodes and counts as absent."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
