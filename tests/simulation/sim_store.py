"""The record as nodes meet it over a bad line: slow, away, and silent about what it did. And what must always hold.

Faults come from one seeded Random. A call may fail before anything happened, after it was committed, or have its
effect only later, when its caller was told that the record is away. After each change all invariants are checked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from random import Random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runtime.adapters.memory import MemoryStore
from runtime.core.task import Status
from runtime.errors import NoriaError, Unavailable

if TYPE_CHECKING:
    from datetime import datetime

    from runtime.adapters.memory.tables import Tables

NODE: ContextVar[str] = ContextVar("node", default="world")
CHANGES: Final = frozenset(
    {"accept", "claim", "pull", "settle", "expire", "cancel", "set_state", "bury", "join", "renew"}
)
_ANSWER_S: Final = 2.0  # after which a node takes the record for away
_TRACE_KEPT: Final = 60


class Violation(AssertionError):
    """Something that must always hold does not."""


class Chaos:
    """How bad the line is; `end` makes it good."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.latency_s = random.choice((0.0, 0.001, 0.01, 0.1))
        self.before = random.choice((0.0, 0.02, 0.1))
        self.after = random.choice((0.0, 0.02, 0.1))
        self.late = random.choice((0.0, 0.02, 0.05))
        self.away = False
        self.frozen = False

    def end(self) -> None:
        self.before = self.after = self.late = 0.0
        self.away = self.frozen = False

    def delay_s(self) -> float:
        return self._random.expovariate(1 / self.latency_s) if self.latency_s else 0.0

    def strikes(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def later_s(self) -> float:
        return self._random.uniform(0.0, 6.0)


class Record:
    """The one record of a world, and everything that was ever seen of it."""

    def __init__(self, now: Callable[[], datetime], chaos: Chaos, now_s: Callable[[], float]) -> None:
        self.store = MemoryStore(now)
        self.chaos = chaos
        self.trace: deque[str] = deque(maxlen=_TRACE_KEPT)
        self.say: Callable[[str], object] | None = None
        self.events = 0
        self.fingerprint = 0
        self.accepted: set[UUID] = set()  # whose caller was told so
        self.dead: set[str] = set()  # incarnations; what they say is of no interest
        self.failures: list[str] = []  # of actors that live
        self._now_s = now_s
        self._attempts: dict[UUID, int] = {}
        self._ended: dict[UUID, tuple[int, Status, bytes | None]] = {}
        self._late: set[asyncio.Task[None]] = set()

    @property
    def tables(self) -> Tables:
        return self.store._tables

    def note(self, what: str) -> None:
        line = f"{self._now_s():9.3f} {NODE.get():>6} {what}"
        self.trace.append(line)
        if self.say is not None:
            self.say(line)
        self.events += 1
        self.fingerprint = hash((self.fingerprint, hash_of(line)))

    def emit(self, record: logging.LogRecord) -> None:
        """A failure that only a log line tells of."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, Unavailable) and NODE.get() not in self.dead:
            self.failures.append(f"{NODE.get()}: {record.getMessage()}: {error!r}")

    async def do(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = await getattr(self.store, method)(*args, **kwargs)
        if method in CHANGES:
            if result and method != "renew":
                self.note(f"{method} {_brief(result)}")
            self.check()
        return result

    def do_later(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The caller has given up, or is dead; the record goes on."""

        async def late() -> None:
            await asyncio.sleep(self.chaos.later_s())
            self.note(f"late {method}")
            with suppress(NoriaError):  # nobody is there to hear of it
                await self.do(method, args, kwargs)

        own = copy_context()
        own.run(NODE.set, "record")
        task = asyncio.get_running_loop().create_task(late(), context=own)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    # -- what must always hold ----------------------------------------------------------------------

    def check(self) -> None:
        tables = self.tables
        for task_id in tables.tasks:
            places = [task_id in place for place in (tables.waiting, tables.running, tables.outcomes)]
            if sum(places) != 1:
                raise Violation(f"{task_id} is in {sum(places)} places: waiting, running, ended = {places}")
            self._check_one(task_id)
        if lost := self.accepted - tables.tasks.keys():
            raise Violation(f"accepted and lost: {lost}")

    def _check_one(self, task_id: UUID) -> None:
        tables = self.tables
        outcome = tables.outcomes.get(task_id)
        row = outcome or tables.running.get(task_id) or tables.waiting[task_id]
        newest = self._attempts.get(task_id, 0)
        attempt = row.attempt - (task_id in tables.waiting)  # begun so far
        if attempt < newest:
            raise Violation(f"attempt of {task_id} went from {newest} to {attempt}")
        self._attempts[task_id] = attempt
        if row.failures > tables.tasks[task_id].new.max_attempts:
            raise Violation(f"{task_id} has failed {row.failures} times")
        ended = self._ended.get(task_id)
        if ended is not None and (
            outcome is None or ended != (outcome.attempt, outcome.status, outcome.result)
        ):
            raise Violation(f"{task_id} had ended as {ended}, and is now {row}")
        if outcome is not None:
            self._ended[task_id] = (outcome.attempt, outcome.status, outcome.result)


class NodeStore:
    """The record as one incarnation of a node reaches it."""

    def __init__(self, record: Record, node: str) -> None:
        self._record = record
        self._node = node
        self.dead = False
        self.cut = False  # from the record, which all others reach

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(method, args, kwargs)

        return call

    async def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._alive()
        record, chaos = self._record, self._record.chaos
        if chaos.frozen or self.cut:
            await asyncio.sleep(_ANSWER_S)
            if method in CHANGES and chaos.strikes(0.5):
                record.do_later(method, args, kwargs)
            raise Unavailable(f"{method}: no answer")
        if (delay_s := chaos.delay_s()) > 0:
            await asyncio.sleep(delay_s)
        self._alive()
        if chaos.away or chaos.strikes(chaos.before):
            raise Unavailable(f"{method}: refused")
        if method in CHANGES and chaos.strikes(chaos.late):
            record.do_later(method, args, kwargs)
            raise Unavailable(f"{method}: no answer, and it happens later")
        result = await record.do(method, args, kwargs)
        if (delay_s := chaos.delay_s()) > 0:
            await asyncio.sleep(delay_s)
        self._alive()
        if chaos.strikes(chaos.after):
            raise Unavailable(f"{method}: the answer was lost")
        return result

    def _alive(self) -> None:
        if self.dead and NODE.get() == self._node:
            raise asyncio.CancelledError("this node is dead")
        if self.dead:
            raise Unavailable("that node is dead")


def hash_of(text: str) -> int:
    """Of text, the same in every process."""
    return int.from_bytes(text.encode()[-8:]) ^ len(text)


def _brief(result: Any) -> str:
    return " ".join(_one(each) for each in result) if isinstance(result, list) else _one(result)


def _one(item: Any) -> str:
    match item:
        case list():
            return f"[{_brief(item)}]"
        case UUID():
            return str(item)[-6:]
        case int():
            return getattr(item, "name", str(item))
    task_id, attempt = getattr(item, "id", None), getattr(item, "attempt", None)
    where = "" if task_id is None else f" {str(task_id)[-6:]}"
    which = "" if attempt is None else f"#{attempt}"
    return f"{getattr(item, 'name', type(item).__name__)}{where}{which}"
