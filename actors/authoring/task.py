"""A call of a handler as a value: what to run, with which arguments, under which options.

Law: a Task is frozen, knows nothing of nodes or clients, and is checked where it is made: arguments against
the handler's signature (by type checkers and at run time), options against the contract's limits.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)
from uuid import UUID

import orjson
from typing_extensions import TypeVar as DefaultTypeVar

from actors.authoring.binding import binding_of
from actors.authoring.limits import (
    METADATA_BYTES_MAX,
    attempts_fault,
    delay_fault,
    key_fault,
    name_fault,
    parents_fault,
    tags_fault,
    timeout_fault,
)
from actors.authoring.markers import mark_of
from actors.authoring.options import LANES, PARENT_POLICIES, ParentPolicy, Priority
from actors.authoring.results import ANY_RESULT, ResultAdapter
from actors.authoring.source import refusal
from actors.authoring.unique import due_faults, unique_faults, unique_of
from runtime.core.canonical import check_numbers, find_nul
from runtime.core.task import Codec
from runtime.core.unique import Unique
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from actors.authoring.batching import BatchContext
    from actors.authoring.context import Context

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
R_co = DefaultTypeVar("R_co", covariant=True, default=Any)


class TaskOptions(TypedDict, total=False):
    """What may be said about one task beside its arguments; what is left out, or None, is the handler's
    default.

    Durations in seconds; instants are aware. `delay_s` counts from acceptance; give it or `run_at`, not both.
    `limit_key` is what a handler with `limit_per="key"` limits it by.
    `requires` are tags a node must bear, `prefers` only orders nodes. `depends_on` are ids of tasks that must have ended
    before; what to do where one failed or was cancelled is `on_parent_failure`.
    """

    idempotency_key: str | None
    actor_key: str | None
    limit_key: str | None
    priority: Priority | None
    requires: Sequence[str]
    prefers: Sequence[str]
    delay_s: float | None
    run_at: datetime | None
    expires_at: datetime | None
    timeout_s: float | None
    max_attempts: int | None
    unique: Unique | None
    metadata: Mapping[str, Any] | None
    depends_on: Sequence[UUID | str]
    on_parent_failure: ParentPolicy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[R_co]):
    """One call, ready to be submitted; made by `task(fn, …)`, or by name where the handler's code is not at
    hand.

    `payload` is a JSON object as Python values. Raises InvalidInput with pointers such as '#/delay_s'.
    """

    handler: str
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any])
    idempotency_key: str | None = None
    actor_key: str | None = None
    limit_key: str | None = None
    priority: Priority | None = None
    requires: Sequence[str] = ()
    prefers: Sequence[str] = ()
    delay_s: float | None = None
    run_at: datetime | None = None
    expires_at: datetime | None = None
    timeout_s: float | None = None
    max_attempts: int | None = None
    unique: Unique | None = None
    metadata: Mapping[str, Any] | None = None
    depends_on: Sequence[UUID | str] = ()
    on_parent_failure: ParentPolicy | None = None
    result: ResultAdapter[R_co] = field(default=ANY_RESULT, repr=False, compare=False)

    def __post_init__(self) -> None:
        if faults := _faults(self):
            brief = "; ".join(f"{pointer[2:]}: {detail}" for pointer, detail in faults)
            raise InvalidInput(f"task {self.handler}: {brief}", tuple(faults))

    def options(self, **options: Unpack[TaskOptions]) -> Task[R_co]:
        """The same task with these options changed. Raises InvalidInput."""
        unknown = options.keys() - TaskOptions.__annotations__.keys()
        if unknown:
            allowed = ", ".join(TaskOptions.__annotations__)
            raise InvalidInput(
                f"task {self.handler}: unknown option {', '.join(sorted(unknown))}; known are {allowed}",
                tuple((f"#/{name}", f"is not an option; known are {allowed}") for name in sorted(unknown)),
            )
        return replace(self, **options)

    @property
    def size(self) -> int:
        """As a workflow has one."""
        return 1

    def decode_result(self, body: bytes, codec: Codec = Codec.JSON) -> R_co:
        """A stored result as the handler's return type. Raises InvalidInput where it is not one."""
        return self.result.decode(body, codec)

    def to_request(self) -> dict[str, Any]:
        """The body of `POST /v1/tasks`: JSON-able, only what was given."""
        request: dict[str, Any] = {"handler": self.handler, "payload": dict(self.payload)}
        for name in TaskOptions.__annotations__:
            value = getattr(self, name)
            if value is not None and value != ():
                request[name] = _plain(value)
        return request

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Task[Any]:
        """Of what `to_request` made. Raises InvalidInput."""
        fields = dict(request)
        for name in ("run_at", "expires_at"):
            if name in fields:
                fields[name] = datetime.fromisoformat(fields[name])
        if fields.get("unique") is not None:
            fields["unique"] = unique_of(fields["unique"])
        return Task(**fields)


@overload
def task(
    fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> Task[R]: ...


@overload
def task(fn: Callable[Concatenate[Context, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Task[R]: ...


@overload
def task(fn: Callable[[BatchContext, list[T]], Coroutine[Any, Any, None]], value: T, /) -> Task[None]: ...


@overload  # invariant, so that only the very type matches that asyncio.gather(return_exceptions=True) has
def task(
    fn: Callable[[BatchContext, list[T]], Coroutine[Any, Any, list[R | BaseException]]], value: T, /
) -> Task[R]: ...


@overload
def task(
    fn: Callable[[BatchContext, list[T]], Coroutine[Any, Any, Sequence[R | Exception]]], value: T, /
) -> Task[R]: ...


@overload
def task(fn: Callable[[BatchContext, list[T]], None], value: T, /) -> Task[None]: ...


@overload
def task(fn: Callable[[BatchContext, list[T]], list[R | BaseException]], value: T, /) -> Task[R]: ...


@overload
def task(fn: Callable[[BatchContext, list[T]], Sequence[R | Exception]], value: T, /) -> Task[R]: ...


def task(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task[Any]:
    """A call of the handler `fn` with these arguments (ctx left out), as a value to submit. Of a batch handler, with one
    value of its list.

    Raises InvalidInput naming each wrong argument, RegistrationError where `fn` is no handler.
    """
    binding = binding_of(fn)
    if binding.signature.is_method:
        raise refusal(fn, "is a method of an actor; write actor(TheActor, key).task(…)")
    mark = mark_of(fn)
    name = fn.__name__ if mark is None or mark.name is None else mark.name
    return Task(handler=name, payload=binding.encode(args, kwargs), result=binding.result)


# -- checks ---------------------------------------------------------------------------------------------


def _faults(task: Task[Any]) -> list[tuple[str, str]]:
    faults = [("#/handler", name_fault(task.handler)), ("#/payload", _object_fault(task.payload))]
    for name, check in _CHECKS.items():
        value = getattr(task, name)
        if value is not None:
            faults.append((f"#/{name}", check(value)))
    if task.requires or task.prefers:
        faults += [("#/requires", tags_fault(task.requires)), ("#/prefers", tags_fault(task.prefers))]
    if task.depends_on:
        faults.append(("#/depends_on", parents_fault(task.depends_on)))
    if task.unique is not None:
        below = unique_faults(task.unique) or due_faults(
            task.unique, delay_s=task.delay_s, run_at=task.run_at
        )
        faults += [(f"#{pointer}", detail) for pointer, detail in below]
    if task.delay_s is not None and task.run_at is not None:
        faults.append(("#/run_at", "give delay_s or run_at, not both"))
    return [(pointer, detail) for pointer, detail in faults if detail is not None]


def _priority_fault(value: object) -> str | None:
    return (
        None if isinstance(value, str) and value in LANES else f"{value!r} is not one of {', '.join(LANES)}"
    )


def _policy_fault(value: object) -> str | None:
    allowed = ", ".join(PARENT_POLICIES)
    return (
        None if isinstance(value, str) and value in PARENT_POLICIES else f"{value!r} is not one of {allowed}"
    )


def _instant_fault(value: object) -> str | None:
    if not isinstance(value, datetime):
        return f"{value!r} is not a datetime"
    return (
        None
        if value.tzinfo is not None
        else f"{value.isoformat()} has no time zone; use datetime.now(UTC) + …"
    )


def _object_fault(value: object) -> str | None:
    return (
        None if isinstance(value, Mapping) else f"{type(value).__name__} is not an object of values by name"
    )


def _metadata_fault(value: Any) -> str | None:
    if fault := _object_fault(value):
        return fault
    plain = dict(value)
    try:
        size = len(orjson.dumps(plain))
    except TypeError as error:
        return f"has no JSON form: {error}"
    if faults := check_numbers(plain, "") or find_nul(plain, ""):
        return f"at {faults[0][0]}: {faults[0][1]}"
    return (
        None
        if size <= METADATA_BYTES_MAX
        else f"{size} bytes as JSON; at most {METADATA_BYTES_MAX} are allowed"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Unique):
        return value.to_json()
    if isinstance(value, str | int | float):
        return value
    return [str(each) if isinstance(each, UUID) else each for each in value]


_CHECKS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "idempotency_key": key_fault,
    "actor_key": key_fault,
    "limit_key": key_fault,
    "delay_s": delay_fault,
    "timeout_s": timeout_fault,
    "max_attempts": attempts_fault,
    "priority": _priority_fault,
    "run_at": _instant_fault,
    "expires_at": _instant_fault,
    "metadata": _metadata_fault,
    "on_parent_failure": _policy_fault,
}
