"""What may be said about a handler, validated where it is said.

Errors name the field, the value and what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from actors.authoring.batching import Batch, batch_fault
from actors.authoring.limits import attempts_fault, count_fault, timeout_fault
from actors.authoring.unique import unique_faults, unique_of
from runtime.core.backoff import Backoff
from runtime.core.limits import BURST_MAX, RUNNING_MAX, Limit, Per, Rate
from runtime.core.task import Lane, OnParentFailure
from runtime.core.unique import Unique
from runtime.errors import InvalidInput, RegistrationError

Priority = Literal["high", "medium", "low"]
LimitPer = Literal["handler", "tenant", "key"]
LANES: Final[dict[str, Lane]] = {lane.name.lower(): lane for lane in Lane}
ParentPolicy = Literal["fail", "skip", "run_anyway"]
PARENT_POLICIES: Final = {policy.name.lower(): policy for policy in OnParentFailure}


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """A handler's defaults; a task may override timeout, attempts, priority and unique.

    `give_up_on`: these exceptions are final. `retry_on`: where given, only these are tried again.
    Raises RegistrationError.
    """

    timeout_s: float = 300.0
    max_attempts: int = 3  # failures, the first included
    backoff: Backoff = field(default_factory=Backoff)
    give_up_on: tuple[type[BaseException], ...] = ()
    retry_on: tuple[type[BaseException], ...] = ()
    priority: Lane = Lane.MEDIUM
    limit: Limit = Limit()
    unique: Unique | None = None  # of what is posted; children and schedules are not unique
    cpu: bool = False
    read_only: bool = False
    batch: Batch | None = None

    def __post_init__(self) -> None:
        _require("timeout_s", timeout_fault(self.timeout_s))
        _require("max_attempts", attempts_fault(self.max_attempts))
        _require("backoff", _backoff_fault(self.backoff))
        for name in ("give_up_on", "retry_on"):
            _require(name, _exceptions_fault(getattr(self, name)))
        for place, fault in () if self.unique is None else unique_faults(self.unique):
            _require(place.lstrip("/").replace("/", "."), fault)
        for name in ("cpu", "read_only"):
            if not isinstance(getattr(self, name), bool):
                _require(name, f"{getattr(self, name)!r} is neither True nor False")
        if self.batch is not None:
            _require("batch", batch_fault(self.batch))
        if self.batch is not None and self.cpu:
            _require("batch", "is for async def and for def in threads, not for cpu=True")

    @classmethod
    def make(
        cls,
        *,
        priority: str = "medium",
        rate_limit: str | None = None,
        burst: int | None = None,
        max_running: int | None = None,
        limit_per: str = "handler",
        unique: Unique | dict[str, Any] | None = None,
        **others: Any,
    ) -> HandlerOptions:
        """From what an author writes. Raises RegistrationError."""
        if priority not in LANES:
            _require("priority", f"{priority!r} is not one of {', '.join(LANES)}")
        try:
            limit = limit_of(rate_limit, burst, max_running, limit_per)
        except InvalidInput as error:
            raise RegistrationError(str(error)) from None
        by = None if unique is None else unique_of(unique)
        return cls(priority=LANES[priority], limit=limit, unique=by, **others)

    def retries(self, error: BaseException) -> bool:
        """Whether an attempt that raised this may be tried again. A group is as final as its worst member."""
        if isinstance(error, BaseExceptionGroup) and not isinstance(error, self.give_up_on + self.retry_on):
            return all(self.retries(inner) for inner in error.exceptions)
        if isinstance(error, self.give_up_on):
            return False
        return not self.retry_on or isinstance(error, self.retry_on)

    def describe(self) -> dict[str, Any]:
        """JSON-able, as the catalog shows it."""
        batch = self.batch
        described = {
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
            "rate_limit": None if self.limit.rate is None else str(self.limit.rate),
            "unique": None if self.unique is None else self.unique.to_json(),
            "read_only": self.read_only,
            **({} if self.limit.is_open else _rest_of(self.limit)),
        }
        if batch is not None:  # else the digests of all other handlers would be those of new versions
            described["batch"] = {"max": batch.max, "wait_s": float(batch.wait_s)}
        return described


def limit_of(
    rate_limit: object, burst: object = None, max_running: object = None, per: object = "handler"
) -> Limit:
    """A limit from what people write. Raises InvalidInput that names what is wrong."""
    if burst is not None and rate_limit is None:
        raise _invalid("burst", "goes with rate_limit, and there is none")
    if fault := count_fault(burst, BURST_MAX):
        raise _invalid("burst", fault)
    if fault := count_fault(max_running, RUNNING_MAX):
        raise _invalid("max_running", fault)
    if per not in _PERS:
        raise _invalid("limit_per", f"{per!r} is not one of {', '.join(_PERS)}")
    try:
        rate = None if rate_limit is None else Rate.parse(rate_limit, burst)  # type: ignore[arg-type] # it checks
    except ValueError as error:
        raise _invalid("rate_limit", str(error)) from None
    limit = Limit(rate, max_running, Per(per))  # type: ignore[arg-type] # checked above
    if limit.is_open and limit.per is not Per.HANDLER:
        raise _invalid("limit_per", f"{per!r} needs a rate_limit or max_running, and there is none")
    return limit


_PERS: Final = tuple(per.value for per in Per)


def _invalid(name: str, fault: str) -> InvalidInput:
    return InvalidInput(f"{name}: {fault}", ((f"#/{name}", fault),))


def _rest_of(limit: Limit) -> dict[str, Any]:
    rest: dict[str, Any] = {"max_running": limit.max_running, "limit_per": limit.per.value}
    return rest if limit.rate is None else rest | {"burst": limit.rate.burst}


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
