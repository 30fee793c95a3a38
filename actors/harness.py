"""Handlers under test with no service: the real actors of one node, a record in memory, and time that the test moves.

    async with Harness(scrape, resources=[FakeSession()]) as harness:
        page = await harness.submit(task(scrape, url="x"))
        await harness.advance(60)
        assert page.result == Page(...)

Law: nothing here decides. Tasks are validated, claimed, run, retried and committed by what a node runs, too; only the
record, the clock and the missing chance are a test's: back-off waits its full length. Three things differ from a node
and are said here: `cpu=True` bodies run in threads, resources that the test gives hide those of lifespans, and bodies
wait in real time (`asyncio.sleep`, sockets), for which virtual time stands still, at most `patience_s` at a time.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Self, TypeVar
from uuid import UUID

from actors.activity import Activity
from actors.authoring.exceptions import ResourceNotFound
from actors.authoring.lifespans import open_lifespans
from actors.authoring.registry import HandlerDef, Kind, Registry
from actors.authoring.resources import Resource, Resources
from actors.authoring.task import Task
from actors.authoring.workflow import Workflow
from actors.bands import Bands
from actors.cluster import Cluster
from actors.executor.capacity import Capacity
from actors.executor.messages import Refresh, Tick, Waits
from actors.given import GivenTransactions
from actors.intake.intake import Intake
from actors.intake.requests import spec_of, workflow_specs
from actors.router.messages import Look
from actors.router.submitting import submit
from actors.supervisor.messages import Actors, GetActors, Message
from actors.supervisor.supervisor import Supervisor
from actors.world import Limits, World
from runtime.core.ids import ENTROPY_BYTES, IdSequence
from runtime.core.limits import in_force
from runtime.core.objects import Reference
from runtime.core.task import (
    AttemptView,
    Duplicate,
    ErrorInfo,
    KeyReused,
    NotUnique,
    Progress,
    Refused,
    State,
    Stored,
    TaskFilter,
    TaskView,
)
from runtime.errors import InvalidInput, WrongState
from runtime.kernel.actor import Ref
from runtime.kernel.clock import ManualClock
from runtime.kernel.supervision import ChildSpec
from runtime.kernel.system import ActorSystem
from runtime.ports import Objects, Store

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

PATIENCE_S: Final = 1.0
IDLE_WITHIN_S: Final = 30 * 86_400.0
_LEASE_S: Final = 100 * 365 * 86_400.0  # nobody renews it
_ASK_S: Final = 60.0
_STRIDE_S: Final = 1.0
_MOMENT_S: Final = 0.001
_PAGE: Final = 500
_LONGEST_JITTER: Final = math.nextafter(1.0, 0.0)
_UNFINISHED: Final = (State.BLOCKED, State.SCHEDULED, State.READY, State.RUNNING)


class HarnessTask(Generic[R_co]):
    """A task as it was when the harness was last awaited. A test may read it at any time."""

    def __init__(self, view: TaskView, decode: Callable[..., R_co]) -> None:
        self.view = view
        self.attempts: tuple[AttemptView, ...] = ()  # what each attempt met that committed no outcome
        self._decode = decode

    @property
    def id(self) -> UUID:
        return self.view.id

    @property
    def handler(self) -> str:
        return self.view.handler

    @property
    def state(self) -> State:
        return self.view.state

    @property
    def attempt(self) -> int:
        """How many attempts have begun."""
        return self.view.attempt

    @property
    def failures(self) -> int:
        return self.view.failures

    @property
    def progress(self) -> Progress | None:
        return self.view.progress

    @property
    def result(self) -> R_co:
        """What the handler returned, as its type. Raises WrongState, with the error, unless it has succeeded."""
        if self.view.state is not State.SUCCEEDED or self.view.result is None:
            why = f": {self.error.type}: {self.error.message}" if self.error else ""
            raise WrongState(f"{self.handler} has no result, it is {self.state}{why}", self.state)
        return self._decode(self.view.result, self.view.result_codec)

    @property
    def error(self) -> ErrorInfo | None:
        """The final error; before the end, that of the last attempt that failed."""
        if self.view.state.final:
            return self.view.error
        return next((each.error for each in reversed(self.attempts) if each.error is not None), None)

    def __repr__(self) -> str:
        return f"<{self.handler} {self.id} {self.state}, attempt {self.attempt}>"


class Harness:
    """`members` are handlers and lifespans. `resources` are what `ctx.use` finds first, by their own type, or as a
    mapping by the type that they stand for: `{ClientSession: FakeSession()}`.

    `connection` is what `ctx.transaction()` gives, such as one of asyncpg in a transaction of the test's own.
    `store` makes another record, `start` is when virtual time begins (now), `tags` what the node bears.
    """

    _skipped_s = _STRIDE_S  # a longer time in which nothing is due is not lived through

    def __init__(
        self,
        *members: Callable[..., Any],
        resources: Iterable[object] | Mapping[type, object] = (),
        tags: Iterable[str] = (),
        limits: Limits | None = None,
        start: datetime | None = None,
        patience_s: float = PATIENCE_S,
        connection: object | None = None,
        store: Callable[[Callable[[], datetime]], Store] | None = None,
    ) -> None:
        self.registry: Registry
        self._members = members
        self._given = _resources(resources)
        self._tags = frozenset(tags)
        self._limits = limits or Limits()
        self._start = start or datetime.now(UTC).replace(microsecond=0)
        self._tally = _Tally()
        self._capacity = Capacity({kind: self._limits.of(kind) for kind in Kind})
        patience = _Patience(self._capacity, self._tally, patience_s)
        self._clock = ManualClock(self._start, busy=patience.busy)
        self.store: Store = (store or _memory_store())(self._clock.wall)
        self._objects = _memory_objects(self._clock.wall)
        self._connection = connection
        self._handles: dict[UUID, HarnessTask[Any]] = {}
        self._stack = AsyncExitStack()
        self._system: ActorSystem
        self._supervisor: Ref[Message]
        self._world: World
        self._actors: Actors

    async def __aenter__(self) -> Self:
        self.registry = await asyncio.to_thread(_Threaded, *self._members)  # it reads the sources of handlers
        async with self._stack as stack:
            opened = await stack.enter_async_context(open_lifespans(self.registry.lifespans))
            await self.store.publish(self.registry.entries())
            await self.store.declare_limits(self.registry.limits())
            self._capacity.limits = in_force(await self.store.limits())
            incarnation = await self.store.join("harness", _LEASE_S, {"tags": sorted(self._tags)})
            self._world = world = self._make_world(_first_of(self._given, opened), incarnation)
            self._system = await stack.enter_async_context(ActorSystem(self._clock))
            self._supervisor = await self._system.spawn(
                ChildSpec(name="supervisor", make=lambda: Supervisor(world))
            )
            self._actors = await self._supervisor.ask(GetActors(), _ASK_S)
            await self.store.set_state(incarnation, "active")
            await self._settle()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _make_world(self, resources: Resources, incarnation: int) -> World:
        clock, bands = self._clock, Bands(self.store)
        return World(
            store=self.store,
            registry=self.registry,
            bands=bands,
            capacity=self._capacity,
            intake=Intake(self.registry, bands, lambda: int(clock.wall().timestamp() * 1000)),
            resources=resources,
            activity=Activity(clock.now_s, clock.wall),
            clock=clock,
            telemetry=self._tally,
            jitter=lambda: _LONGEST_JITTER,
            node="harness",
            incarnation=incarnation,
            cluster=Cluster(incarnation),
            lease_s=_LEASE_S,
            objects=self._objects,
            transactions=None
            if self._connection is None
            else GivenTransactions(self.store, self._connection),
            tags=self._tags,
            limits=self._limits,
        )

    # -- for tests ----------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Virtual time, UTC."""
        return self._clock.wall()

    async def submit(self, task: Task[R]) -> HarnessTask[R]:
        """Accept it, and run it as far as it goes without time. One that exists under the same key is returned.

        One that is not unique is the one that exists, too. Raises InvalidInput as a node would refuse it, WrongState
        where a unique task is rejected.
        """
        spec = spec_of(task, created_by="harness")
        _, [answer] = await submit(self._world, self._actors.router, [spec], _ASK_S)
        match answer:
            case Stored() | Duplicate():
                task_id = answer.id
            case KeyReused():
                raise InvalidInput(
                    f"idempotency_key {task.idempotency_key!r} is that of a different request: {answer.id}"
                )
            case NotUnique():
                raise WrongState(f"{task.handler} is unique, and task {answer.id} is there", "rejected")
            case Refused(detail):
                raise InvalidInput(detail)
            case _:
                raise AssertionError(f"one task alone cannot be {answer}")
        view = await self.store.get(task_id)
        assert view is not None, "stored"
        handle: HarnessTask[R] = self._handles.setdefault(task_id, HarnessTask(view, task.decode_result))
        await self._settle()
        await self._refresh()
        return handle

    async def submit_workflow(self, flow: Workflow) -> dict[str, HarnessTask[Any]]:
        """Accept all of its tasks, and run them as far as they go without time; by name. Raises InvalidInput."""
        [own_id] = IdSequence().take(int(self.now.timestamp() * 1000), os.urandom(ENTROPY_BYTES))
        specs = workflow_specs(flow, own_id, created_by="harness")
        _, answers = await submit(self._world, self._actors.router, specs, _ASK_S)
        handles: dict[str, HarnessTask[Any]] = {}
        for (name, each), answer in zip(flow.tasks.items(), answers, strict=True):
            if not isinstance(answer, Stored | Duplicate):
                raise InvalidInput(f"task {name}: {answer}")
            view = await self.store.get(answer.id)
            assert view is not None, "stored"
            handles[name] = self._handles.setdefault(view.id, HarnessTask(view, each.decode_result))
        await self._settle()
        await self._refresh()
        return handles

    async def advance(self, seconds: float) -> None:
        """Move time forward. Whatever is due by then has been started, and has gone as far as it can.

        Raises ValueError for a negative or infinite step.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"advance({seconds!r}): must be a finite number of seconds, 0 or more")
        until_s = self._clock.now_s() + seconds
        await self._settle()
        while self._clock.now_s() < until_s:
            await self._towards(until_s, await self._next_event_s())
        await self._refresh()

    async def run_until_idle(self, within_s: float = IDLE_WITHIN_S) -> None:
        """Move time forward until nothing runs and nothing has a time at which it will.

        What waits for a handler, a tag or the end of a pause does not count. Raises TimeoutError after `within_s`.
        """
        until_s = self._clock.now_s() + within_s
        await self._settle()
        while (event_s := await self._next_event_s()) is not None:
            if self._clock.now_s() >= until_s:
                unfinished = ", ".join(map(repr, (await self.tasks(states=_UNFINISHED))[:5]))
                raise TimeoutError(f"not idle after {within_s:g} s of virtual time: {unfinished}")
            await self._towards(until_s, event_s)
        await self._refresh()

    async def cancel(self, task: HarnessTask[Any]) -> None:
        """As a user would: a task that runs is asked to stop."""
        await self.store.cancel(task.id)
        await self._settle()
        await self._refresh()

    async def tasks(
        self, handler: str | None = None, *, states: Sequence[State] = ()
    ) -> list[HarnessTask[Any]]:
        """All tasks, children too, the oldest first."""
        await self._settle()
        views = await self._views(TaskFilter(handler=handler, states=tuple(states)))
        for view in views:
            self._handles.setdefault(view.id, HarnessTask(view, self._decoder(view.handler)))
        await self._refresh()
        return [self._handles[view.id] for view in sorted(views, key=lambda view: view.id)]

    # -- time ---------------------------------------------------------------------------------------

    async def _towards(self, until_s: float, event_s: float | None) -> None:
        """One step: to the next event, or a stride where it is overdue; long empty times are skipped."""
        now_s = self._clock.now_s()
        step_s = (until_s if event_s is None else min(event_s, until_s)) - now_s
        if step_s <= 0:
            step_s = min(_STRIDE_S, until_s - now_s)
        elif step_s > self._skipped_s:
            self._clock.skip(step_s)
            step_s = 0.0
        await self._clock.advance(step_s)
        await self._settle()

    async def _settle(self) -> None:
        """Let everything happen that needs no time, then look for what is due: nothing waits for a tick."""
        await self._clock.settle()
        executor = self._actors.executor
        self._actors.router.tell(Look())
        executor.tell(Refresh())
        executor.tell(Tick())
        executor.tell(Waits(frozenset(band.id for band in self._world.bands)))
        await self._clock.settle()
        if self._system.failed.done():
            raise RuntimeError("the harness's actors failed for good") from self._system.failed.result()

    async def _next_event_s(self) -> float | None:
        """When time will change something: a due time, an expiry, a deadline; None when nothing will."""
        moments: list[datetime] = []
        for view in await self._views(TaskFilter(states=_UNFINISHED)):
            if view.state is State.RUNNING:
                began = view.started_at or self.now
                moments.append(began + timedelta(seconds=view.timeout_s))
                if (called := began + self._gathers(view.handler)) > self.now:
                    moments.append(called)
            elif view.due is not None and view.due > self.now:
                moments.append(view.due)
            if view.expires_at is not None and view.state is not State.RUNNING:
                moments.append(view.expires_at)
        at_s = [(moment - self._start).total_seconds() for moment in moments]
        if (limited_at_s := self._capacity.limited_at_s) is not None:
            at_s.append(limited_at_s)
        return min(at_s, default=None)

    def _gathers(self, name: str) -> timedelta:
        """How long a task may wait for others of its batch, and a moment more: timers are finer than instants."""
        handler = self.registry.get(name)
        batch = None if handler is None else handler.options.batch
        return timedelta(0) if batch is None else timedelta(seconds=batch.wait_s + _MOMENT_S)

    # -- looking ------------------------------------------------------------------------------------

    async def _views(self, which: TaskFilter) -> list[TaskView]:
        views: list[TaskView] = []
        page = await self.store.list(which, _PAGE)
        views += page.tasks
        while page.next_cursor is not None:
            page = await self.store.list(which, _PAGE, page.next_cursor)
            views += page.tasks
        return views

    async def _refresh(self) -> None:
        for view in await self.store.get_many(list(self._handles)):
            handle = self._handles[view.id]
            handle.view = await self._with_result(view)
            handle.attempts = tuple(await self.store.attempts(view.id))

    async def _with_result(self, view: TaskView) -> TaskView:
        """A large result as its bytes, wherever they lie."""
        if view.result is None or not view.result_codec.is_apart:
            return view
        async with self._objects.read(Reference.from_bytes(view.result).key) as pieces:
            body = b"".join([piece async for piece in pieces])
        return replace(view, result=body, result_codec=view.result_codec.inner)

    def _decoder(self, name: str) -> Callable[..., Any]:
        handler = self.registry.get(name)
        return Task(handler=name).decode_result if handler is None else handler.binding.result.decode


def _memory_store() -> Callable[[Callable[[], datetime]], Store]:
    from runtime.standalone import memory_store  # noqa: PLC0415 - not needed with a record of the test's own

    return memory_store


def _memory_objects(now: Callable[[], datetime]) -> Objects:
    from runtime.standalone import memory_objects  # noqa: PLC0415 - as above

    return memory_objects(now)


# -- what differs from a node -----------------------------------------------------------------------


class _Threaded(Registry):
    """Bodies that a node runs in child processes run in threads."""

    def __init__(self, *members: Callable[..., Any]) -> None:
        super().__init__(*members)
        self._threaded = {
            each.name: replace(each, kind=Kind.THREAD) for each in self if each.kind is Kind.PROCESS
        }

    def get(self, name: str) -> HandlerDef | None:
        return self._threaded.get(name) or super().get(name)


class _Layered(Resources):
    """Looks in one place and then in another."""

    def __init__(self, first: Resources, then: Resources) -> None:
        super().__init__()
        self._first, self._then = first, then

    def find(self, kind: type[R]) -> R:
        try:
            return self._first.find(kind)
        except ResourceNotFound:
            return self._then.find(kind)


def _resources(given: Iterable[object] | Mapping[type, object]) -> Resources:
    if isinstance(given, Mapping):
        return Resources(Resource(kind.__name__, value, kind) for kind, value in given.items())
    return Resources.of(*given)


def _first_of(given: Resources, opened: Resources) -> Resources:
    return _Layered(given, opened) if len(given) and len(opened) else given if len(given) else opened


class _Tally:
    """Telemetry that only counts: by name and labels' values."""

    def __init__(self) -> None:
        self.totals: Counter[tuple[str, ...]] = Counter()

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        self.totals[name, *labels.values()] += int(value)

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def clear(self, name: str) -> None: ...

    def observe(self, name: str, values: Sequence[float], **labels: str) -> None: ...


class _Patience:
    """Whether virtual time has to wait for bodies that are at work: as long as one ends or begins every `limit_s`
    real seconds. One that takes longer is taken to wait for virtual time (its timeout, a cancellation)."""

    def __init__(self, capacity: Capacity, tally: _Tally, limit_s: float) -> None:
        self._capacity = capacity
        self._tally = tally
        self._limit_s = limit_s
        self._seen = (0, 0)
        self._since_s = 0.0

    def busy(self) -> bool:
        if self._capacity.taken <= self._capacity.gathering:
            return False
        seen = (self._capacity.taken, self._tally.totals.total())
        now_s = asyncio.get_running_loop().time()
        if seen != self._seen:
            self._seen, self._since_s = seen, now_s
        return now_s - self._since_s < self._limit_s
