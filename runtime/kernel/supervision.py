"""When an actor's life is repeated: children as data, strategies, restart intensity, back-off, escalation.

Law: how often and how long is decided by core.restarts; this module applies it to living children. Children
start in order and stop in reverse order. The terms and their meaning are those of OTP's supervisor.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from runtime.core.restarts import GiveUp, RestartPolicy, record
from runtime.errors import ActorStopped, NoriaError
from runtime.kernel.mailbox import Overflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from runtime.core.restarts import History
    from runtime.kernel.actor import Behavior, Ref
    from runtime.kernel.cell import Cell
    from runtime.kernel.clock import Clock

_log = logging.getLogger(__name__)

M = TypeVar("M")


class RestartsExceeded(NoriaError):
    """A child failed more often than the restart policy allows; its supervisor fails with this."""


class Restart(StrEnum):
    """Which ends of a life are followed by a new one."""

    PERMANENT = "permanent"  # all but a stop by its supervisor
    TRANSIENT = "transient"  # failures only
    TEMPORARY = "temporary"  # none


class Strategy(StrEnum):
    """Who is restarted when one child fails."""

    ONE_FOR_ONE = "one_for_one"  # that child
    ONE_FOR_ALL = "one_for_all"  # all children
    REST_FOR_ONE = "rest_for_one"  # that child and those started after it


@dataclass(frozen=True, slots=True)
class Supervision:
    """How an actor (or the system) treats its children; `restarts` bounds all of them together, as in OTP."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


@dataclass(frozen=True, kw_only=True)  # with slots, ChildSpec[M](...) is a TypeError in Python 3.11
class ChildSpec(Generic[M]):
    """A child as data. Raises ValueError, naming field and value."""

    name: str  # unique among its siblings
    make: Callable[[], Behavior[M]]  # called once per life
    capacity: int = 1024  # messages that may wait
    overflow: Overflow = Overflow.REJECT
    restart: Restart = Restart.PERMANENT
    start_s: float = 60.0  # longest `started`; after that this life has failed
    shutdown_s: float = 5.0  # longest last message, then longest `stopped`; after that it is cancelled
    supervision: Supervision = field(default_factory=Supervision)  # of its own children

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"child name {self.name!r}: must be non-empty and without '/'")
        if self.capacity < 1:
            raise ValueError(f"child {self.name}: capacity {self.capacity!r}: must be 1 or more")
        for unit in ("start_s", "shutdown_s"):
            if not getattr(self, unit) > 0:
                raise ValueError(f"child {self.name}: {unit} {getattr(self, unit)!r}: must be above 0")


class Supervisor:
    """The children of one life of an actor, or of the system; `escalate` is called at most once."""

    def __init__(
        self,
        supervision: Supervision,
        clock: Clock,
        random: Random,
        make_cell: Callable[[ChildSpec[Any], Supervisor], Cell[Any]],
        escalate: Callable[[Exception], None],
    ) -> None:
        self._supervision = supervision
        self._clock = clock
        self._random = random
        self._make_cell = make_cell
        self._escalate = escalate
        self._children: dict[str, Cell[Any]] = {}  # in order of start
        self._history: History = ()
        self._delays: dict[str, float] = {}  # children that wait for their restart: after how many seconds
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self._given_up: RestartsExceeded | None = None
        self._closing = False

    def __iter__(self) -> Iterator[Cell[Any]]:
        return iter(self._children.values())

    async def spawn(self, spec: ChildSpec[M]) -> Ref[M]:
        """Start a child and wait for its `started`; what it raises is raised here."""
        if self._closing:
            raise ActorStopped(f"cannot start {spec.name}: its supervisor is stopping")
        if spec.name in self._children:
            raise ValueError(f"child name {spec.name!r}: taken by a sibling")
        cell: Cell[M] = self._make_cell(spec, self)
        self._children[spec.name] = cell
        await cell.start()
        return cell.ref

    async def stop(self, name: str) -> None:
        """Stop one child for good (its own name or its whole path) and wait until it is."""
        child = self._children.get(name.rpartition("/")[2])
        if child is not None:
            await child.halt(for_good=True)

    async def stop_all(self) -> None:
        """Stop all children for good, the last started first."""
        self._closing = True
        repairs = list(self._repairs.values())
        for task in repairs:
            task.cancel()
        if repairs:
            await asyncio.wait(repairs)
        for child in reversed(list(self._children.values())):
            await child.halt(for_good=True)

    # -- called by a child as its life ends --------------------------------------------------------------

    def decide(self, child: Cell[Any], error: Exception | None) -> bool:
        """Whether another life follows; counts a failure against the intensity."""
        spec = child.spec
        if self._closing or self._given_up is not None or spec.restart is Restart.TEMPORARY:
            return False
        if spec.restart is Restart.TRANSIENT and error is None:
            return False
        self._history, verdict = record(
            self._history, self._clock.now_s(), self._supervision.restarts, self._random.random()
        )
        if isinstance(verdict, GiveUp):
            self._given_up = _exceeded(child, verdict, self._supervision.restarts, error)
            return False
        self._delays[spec.name] = verdict.delay_s
        what = "failed" if error else "stopped itself"
        _log.warning("%s %s; it restarts in %.3f s", child.name, what, verdict.delay_s, exc_info=error)
        return True

    def ended(self, child: Cell[Any], *, restart: bool) -> None:
        """The life is over and its remains are cleared away."""
        if not restart:
            self._forget(child)
        elif not self._closing and self._given_up is None:
            self._repair_soon(child)

    # -- repair ------------------------------------------------------------------------------------------

    def _forget(self, child: Cell[Any]) -> None:
        if self._children.get(child.spec.name) is child:
            del self._children[child.spec.name]
            self._delays.pop(child.spec.name, None)
        if self._given_up is not None and not self._closing:
            self._closing = True
            for task in self._repairs.values():
                task.cancel()
            self._escalate(self._given_up)

    def _repair_soon(self, child: Cell[Any]) -> None:
        alone = self._supervision.strategy is Strategy.ONE_FOR_ONE
        key = child.spec.name if alone else ""
        if key not in self._repairs:
            task = asyncio.get_running_loop().create_task(self._repair(key), name=f"repair {child.name}")
            self._repairs[key] = task
            task.add_done_callback(lambda done: self._repaired(key, done))

    def _repaired(self, key: str, task: asyncio.Task[None]) -> None:
        self._repairs.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("restarting %s failed", key or "children", exc_info=error)

    async def _repair(self, key: str) -> None:
        """Wait, stop whoever goes along, start all of them in order; again if one fails meanwhile."""
        while group := self._group(key):
            await self._clock.sleep(max(self._delays.get(child.spec.name, 0.0) for child in group))
            group = self._group(key)  # more may have failed during the wait
            for child in reversed(group):
                await child.halt(for_good=child.spec.restart is Restart.TEMPORARY)
            for child in group:
                self._delays.pop(child.spec.name, None)
            for child in group:
                if not (child.stopped or await child.restart()):
                    break  # it is among the delays again, or given up

    def _group(self, key: str) -> list[Cell[Any]]:
        broken = [name for name in self._children if name in self._delays and (not key or name == key)]
        if not broken:
            return []
        children = list(self._children.values())
        match self._supervision.strategy:
            case Strategy.ONE_FOR_ONE:
                return [self._children[name] for name in broken]
            case Strategy.ONE_FOR_ALL:
                return children
            case Strategy.REST_FOR_ONE:
                return children[list(self._children).index(broken[0]) :]


def _exceeded(
    child: Cell[Any], verdict: GiveUp, policy: RestartPolicy, error: Exception | None
) -> RestartsExceeded:
    exceeded = RestartsExceeded(
        f"{child.name}: failure {verdict.failures} among its siblings within {policy.within_s:g} s, "
        f"{policy.max_restarts} are allowed"
    )
    exceeded.__cause__ = error
    return exceeded
