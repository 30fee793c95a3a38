"""What may be said about a handler, validated where it is said.

Errors name the field, the value and what is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from actors.authoring.limits import attempts_fault, timeout_fault
from runtime.core.backoff import Backoff
from runtime.core.task import Lane
from runtime.errors import RegistrationError

Priority = Literal["high", "medium", "low"]
LANES: Final[dict[str, Lane]] = {lane.name.lower(): lane for lane in Lane}

_PERIOD_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?(s|min|h|d)")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` starts per `period_s` seconds."""

    count: int
    period_s: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """`"100/s"`, `"5/min"`, `"1000/10min"`. Raises ValueError."""
        match = _RATE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f"{text!r} is not a count per period, such as '100/s', '5/min', '1000/h' or '10/30s'"
            )
        count, periods, unit = match.groups()
        return cls(int(count), int(periods or 1) * _PERIOD_S[unit])


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """A handler's defaults; a task may override timeout, attempts and priority.

    `give_up_on`: these exceptions are final. `retry_on`: where given, only these are tried again.
    Raises RegistrationError.
    """

    timeout_s: float = 300.0
    max_attempts: int = 3  # failures, the first included
    backoff: Backoff = field(default_factory=Backoff)
    give_up_on: tuple[type[BaseException], ...] = ()
    retry_on: tuple[type[BaseException], ...] = ()
    priority: Lane = Lane.MEDIUM
    rate_limit: Rate | None = None
    cpu: bool = False
    read_only: bool = False

    def __post_init__(self) -> None:
        _require("timeout_s", timeout_fault(self.timeout_s))
        _require("max_attempts", attempts_fault(self.max_attempts))
        _require("backoff", _backoff_fault(self.backoff))
        for name in ("give_up_on", "retry_on"):
            _require(name, _exceptions_fault(getattr(self, name)))
        for name in ("cpu", "read_only"):
            if not isinstance(getattr(self, name), bool):
                _require(name, f"{getattr(self, name)!r} is neither True nor False")

    @classmethod
    def make(
        cls, *, priority: str = "medium", rate_limit: str | None = None, **others: Any
    ) -> HandlerOptions:
        """From what an author writes. Raises RegistrationError."""
        if priority not in LANES:
            _require("priority", f"{priority!r} is not one of {', '.join(LANES)}")
        try:
            rate = None if rate_limit is None else Rate.parse(rate_limit)
        except ValueError as error:
            raise RegistrationError(f"rate_limit: {error}") from None
        return cls(priority=LANES[priority], rate_limit=rate, **others)

    def retries(self, error: BaseException) -> bool:
        """Whether an attempt that raised this may be tried again. A group is as final as its worst member."""
        if isinstance(error, BaseExceptionGroup) and not isinstance(error, self.give_up_on + self.retry_on):
            return all(self.retries(inner) for inner in error.exceptions)
        if isinstance(error, self.give_up_on):
            return False
        return not self.retry_on or isinstance(error, self.retry_on)

    def describe(self) -> dict[str, Any]:
        """JSON-able, as the catalog shows it."""
        rate = self.rate_limit
        return {
            "timeout_s": float(self.timeout_s),
            "max_attempts": self.max_attempts,
            "priority": self.priority.name.lower(),
            "backoff": {
                "first_s": float(self.backoff.first_s),
                "factor": float(self.backoff.factor),
                "max_s": float(self.backoff.max_s),
            },
            "give_up_on": [_qualified(kind) for kind in self.give_up_on],
            "retry_on": [_qualified(kind) for kind in self.retry_on],
            "rate_limit": None if rate is None else {"count": rate.count, "period_s": rate.period_s},
            "read_only": self.read_only,
        }


def _require(name: str, fault: str | None) -> None:
    if fault is not None:
        raise RegistrationError(f"{name}: {fault}")


def _backoff_fault(value: object) -> str | None:
    return None if isinstance(value, Backoff) else f"{value!r} is not a Backoff(first_s=…, factor=…, max_s=…)"


def _exceptions_fault(kinds: Any) -> str | None:
    fine = isinstance(kinds, tuple) and all(
        isinstance(k, type) and issubclass(k, BaseException) for k in kinds
    )
    return None if fine else f"{kinds!r} is not a tuple of exception classes, such as (ValueError, OSError)"


def _qualified(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
