"""What a node can run: handlers by name, and the lifespans of their resources.

Law: a Registry is a value that is built, checked whole and passed on; there is no global one. It holds what a
module defines, not what it imports: so where a handler may run is said by which modules a node loads. All
that is wrong is reported at once, each with file and line.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import orjson

from actors.authoring.actor import Actor, actor_methods
from actors.authoring.batching import alone
from actors.authoring.binding import Binding, binding_of
from actors.authoring.lifespans import LifespanDef
from actors.authoring.limits import name_fault
from actors.authoring.loading import load_modules
from actors.authoring.markers import HandlerMark, is_lifespan, mark_of
from actors.authoring.source import refusal, source_of
from actors.authoring.state import ActorDef
from runtime.core.limits import Per
from runtime.core.task import Codec, HandlerEntry
from runtime.errors import RegistrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from actors.authoring.options import HandlerOptions
    from runtime.core.limits import Limit


_LOOKS_S: Final = 0.1  # what a burst should last for


PLACE: Final = 1_000  # parts of what a body takes of a node's limit


class Kind(StrEnum):
    """Where a handler's body runs."""

    ASYNC = "async"  # in the event loop
    THREAD = "thread"
    PROCESS = "process"  # killed at the deadline

    __hash__ = str.__hash__  # Enum's own is a Python function, and capacity is counted by kind for every task


@dataclass(frozen=True, slots=True, eq=False)
class HandlerDef:
    """One handler as a node runs it: `fn(ctx, **bind(payload))`, then `encode_result`.

    Of a batch handler `fn` runs one task alone, and `batch_fn(BatchContext, [value, …])` many; `share` is what one task
    of them takes of the call's place.
    """

    name: str
    fn: Callable[..., Any]
    kind: Kind
    options: HandlerOptions
    source: str  # file:line
    module: str
    doc: str
    binding: Binding
    actor: ActorDef | None = None  # whose method it is
    batch_fn: Callable[..., Any] | None = None
    share: int = PLACE
    is_plain: bool = field(init=False)  # its tasks need no key, and nothing limits it

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_plain", self.actor is None and not self.is_limited)

    def validate(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as `bind` would give them. Raises InvalidInput with pointers '#/payload/…'."""
        return self.binding.accept(payload)[1]

    def accept(self, payload: Mapping[str, Any], *, exact: bool = False) -> tuple[bytes, dict[str, Any]]:
        """Both the bytes to keep and the arguments; `exact` as in Binding.accept. Raises InvalidInput."""
        return self.binding.accept(payload, exact=exact)

    def bind(self, payload: bytes) -> dict[str, Any]:
        """Python values for `fn(ctx, **values)`. Raises InvalidInput."""
        return self.binding.bind(payload)

    def encode_result(self, value: Any) -> tuple[bytes, Codec]:
        """Raises ResultNotSerializable."""
        return self.binding.result.encode(value)

    def with_fn(self, fn: Callable[..., Any]) -> HandlerDef:
        """The same, with another body."""
        return replace(self, fn=fn)

    @property
    def actor_type(self) -> str | None:
        """The name of the actor whose method it is: then every task needs an actor key."""
        return None if self.actor is None else self.actor.name

    @property
    def is_limited(self) -> bool:
        return not self.options.limit.is_open

    @property
    def needs_limit_key(self) -> bool:
        """Whether every task must name the key that it is limited by."""
        return self.options.limit.per is Per.KEY

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the payload."""
        return self.binding.schema

    def entry(self) -> HandlerEntry:
        """As the catalog shows it; the digest is SHA-256 over schema and defaults."""
        defaults = {"kind": self.kind.value, **self.options.describe()}
        if self.actor is not None:
            defaults |= {"actor": self.actor.name, "state_version": self.actor.state_version}
        content = orjson.dumps({"schema": self.schema, "defaults": defaults}, option=orjson.OPT_SORT_KEYS)
        return HandlerEntry(
            name=self.name,
            digest=hashlib.sha256(content).hexdigest(),
            schema=self.schema,
            defaults=defaults,
            source=self.source,
            doc=self.doc,
        )


class Registry:
    """`Registry(scrape, http)` from functions, or `Registry.load(["tasks", "jobs/mail.py"])`.

    Raises RegistrationError, listing everything that is wrong.
    """

    def __init__(self, *members: Callable[..., Any]) -> None:
        self._handlers: dict[str, HandlerDef] = {}
        self._lifespans: list[LifespanDef] = []
        self._problems: list[str] = []
        self.loaded_from: tuple[str, ...] = ()
        for member in members:
            if not self._add(member):
                self._problems.append(
                    str(refusal(member, "is neither a @handler nor a @lifespan", "Registry member"))
                )
        self._finish()

    @classmethod
    def load(cls, names: Sequence[str]) -> Registry:
        """From modules, files, folders and packages (walked); `loaded_from` keeps the names."""
        registry = cls()
        registry.loaded_from = tuple(names)
        for name in names:
            try:
                registry._add_modules(name, load_modules(name))
            except RegistrationError as error:
                registry._problems.append(str(error))
        registry._finish()
        return registry

    def get(self, name: str) -> HandlerDef | None:
        return self._handlers.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(self._handlers)

    @property
    def lifespans(self) -> tuple[LifespanDef, ...]:
        """In the order in which they were found."""
        return tuple(self._lifespans)

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know: bursts so small that nodes cannot look often enough to use the rate."""
        return tuple(
            f"{each.source}: handler {each.name}: {rate} with bursts of {rate.burst} cannot be used up; "
            f"allow bursts of {int(_LOOKS_S / rate.interval_s)} or more"
            for each in self
            if (rate := each.options.limit.rate) is not None and rate.burst * rate.interval_s < _LOOKS_S / 2
        )

    def limits(self) -> dict[str, Limit]:
        """What each handler declares, by name."""
        return {each.name: each.options.limit for each in self}

    def entries(self) -> list[HandlerEntry]:
        """For the catalog."""
        return [each.entry() for each in self]

    def __iter__(self) -> Iterator[HandlerDef]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, name: object) -> bool:
        return name in self._handlers

    # -- building -----------------------------------------------------------------------------------

    def _add_modules(self, name: str, modules: Iterable[ModuleType]) -> None:
        found = 0
        imported: list[str] = []
        for module in modules:
            for member in list(vars(module).values()):
                if getattr(member, "__module__", None) == module.__name__:
                    found += self._add(member)
                elif (mark_of(member) or is_lifespan(member)) and inspect.isfunction(member):
                    imported.append(f"{member.__name__} of {member.__module__}")
        if not found:
            hint = f"; it imports {', '.join(sorted(imported))}: name that module, too" if imported else ""
            self._problems.append(f"{name}: defines no handler, actor or lifespan{hint}")

    def _add(self, member: Any) -> bool:
        """Whether it is something to register; problems are noted."""
        mark = mark_of(member)
        try:
            if mark is not None:
                self._add_handler(member, mark)
            elif is_lifespan(member):
                self._add_lifespan(member)
            elif inspect.isclass(member) and issubclass(member, Actor) and actor_methods(member):
                self._add_actor(member)
            else:
                return False
        except RegistrationError as error:
            self._problems.append(str(error))
        return True

    def _add_handler(self, fn: Callable[..., Any], mark: HandlerMark) -> None:
        name = fn.__name__ if mark.name is None else mark.name
        known = self._handlers.get(name)
        if known is not None:
            if fn in (known.fn, known.batch_fn):
                return
            raise RegistrationError(f"{source_of(fn)}: handler {name!r} is already defined at {known.source}")
        if fault := name_fault(name):
            hint = "" if mark.name is not None else '; name it: @handler("…")'
            raise refusal(fn, f"the name {name!r} cannot be used: {fault}{hint}")
        binding = binding_of(fn)
        if binding.signature.is_method:
            raise refusal(fn, "is a method; handlers with self belong into a class that extends Actor")
        if mark.options.read_only:
            raise refusal(fn, "read_only=True is for methods of actors; a function has no state")
        batch = mark.options.batch
        self._handlers[name] = HandlerDef(
            name=name,
            fn=fn if batch is None else alone(fn, name),
            kind=_kind(fn, mark.options),
            options=mark.options,
            source=source_of(fn),
            module=fn.__module__,
            doc=inspect.getdoc(fn) or "",
            binding=binding,
            batch_fn=None if batch is None else fn,
            share=PLACE if batch is None else -(-PLACE // batch.max),
        )

    def _add_actor(self, kind: type[Actor]) -> None:
        """Its methods, by their full names; all of them, or none."""
        definition = ActorDef.of(kind)
        handlers = [_method(definition, name, fn) for name, fn in definition.methods.items()]
        for handler in handlers:
            known = self._handlers.get(handler.name)
            if known is not None and known.actor is not None and known.actor.cls is kind:
                return
            if known is not None:
                raise refusal(kind, f"handler {handler.name!r} is already defined at {known.source}", "actor")
        self._handlers |= {handler.name: handler for handler in handlers}

    def _add_lifespan(self, fn: Callable[..., Any]) -> None:
        if all(known.fn is not fn for known in self._lifespans):
            self._lifespans.append(LifespanDef.of(fn))

    def _finish(self) -> None:
        if self._problems:
            raise RegistrationError("\n".join(dict.fromkeys(self._problems)))
        self._handlers = dict(sorted(self._handlers.items()))


def _method(definition: ActorDef, name: str, fn: Callable[..., Any]) -> HandlerDef:
    """Raises RegistrationError."""
    mark, binding = mark_of(fn), binding_of(fn)
    assert mark is not None, "found by its mark"
    if fault := name_fault(name):
        raise refusal(fn, f"the name {name!r} cannot be used: {fault}")
    if not binding.signature.is_method:
        raise refusal(fn, "is a method of an actor; its first argument must be self, without annotation")
    if not mark.options.limit.is_open:
        raise refusal(fn, "rate_limit and max_running are for functions: messages to a key run one at a time")
    if mark.options.cpu:
        raise refusal(fn, "cpu=True is for functions: the state of an actor is in the node's own process")
    return HandlerDef(
        name=name,
        fn=fn,
        kind=_kind(fn, mark.options),
        options=mark.options,
        source=source_of(fn),
        module=definition.cls.__module__,
        doc=inspect.getdoc(fn) or "",
        binding=binding,
        actor=definition,
    )


def _kind(fn: Callable[..., Any], options: HandlerOptions) -> Kind:
    if options.cpu:
        return Kind.PROCESS
    return Kind.ASYNC if inspect.iscoroutinefunction(fn) else Kind.THREAD
