"""What a running handler sees of the runtime.

Law: a Context belongs to one attempt. The executor makes it, asks it to stop, and closes it; the handler does
the rest. Everything here may be called from the handler's thread. Children and progress are only collected:
children are committed with the outcome or not at all.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import UUID

from actors.authoring.exceptions import Cancelled, Snoozed, delay_s
from actors.authoring.limits import CHILDREN_MAX
from actors.authoring.parents import NO_PARENTS, Parents
from actors.authoring.resources import Resources
from runtime.core.task import Progress
from runtime.errors import InvalidInput, NoriaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    import asyncpg

    from actors.authoring.task import Task
    from actors.authoring.workflow import Workflow
    from runtime.ports import Transaction, Transactions

    Connection = asyncpg.Connection[asyncpg.Record]

T = TypeVar("T")

_MESSAGE_CHARS_MAX = 500
_TEST_ID = UUID("00000000-0000-7000-8000-000000000000")
_NO_RESOURCES = Resources()


class Context:
    """One attempt of one task, as its handler sees it.

    `attempt` only grows; `failures` are those before this attempt. `fence` grows with every attempt that
    could touch the same things: pass it to external systems that can refuse an older one. `metadata` is the
    submitter's.
    """

    __slots__ = (
        "_cancel_reason",
        "_children",
        "_closed",
        "_count",
        "_on_progress",
        "_parents",
        "_resources",
        "_transaction",
        "_transaction_used",
        "_transactions",
        "actor_key",
        "attempt",
        "failures",
        "fence",
        "handler",
        "idempotency_key",
        "metadata",
        "task_id",
        "trace_context",
    )

    def __init__(
        self,
        *,
        task_id: UUID,
        attempt: int,
        handler: str,
        failures: int = 0,
        fence: int | None = None,
        idempotency_key: str | None = None,
        actor_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        trace_context: str | None = None,
        resources: Resources | None = None,
        transactions: Transactions | None = None,
        on_progress: Callable[[UUID, int, Progress], None] | None = None,
        parents: Parents = NO_PARENTS,
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.handler = handler
        self.failures = failures
        self.fence = attempt if fence is None else fence
        self.idempotency_key = idempotency_key
        self.actor_key = actor_key
        self.metadata: Mapping[str, Any] = {} if metadata is None else metadata
        self.trace_context = trace_context  # W3C traceparent
        self._resources = _NO_RESOURCES if resources is None else resources
        self._transactions = transactions
        self._transaction: Transaction | None = None
        self._transaction_used = False
        self._on_progress = on_progress
        self._parents = parents
        self._children: list[Task[Any] | Workflow] = []
        self._count = 0
        self._cancel_reason = ""
        self._closed = False

    @classmethod
    def for_test(
        cls,
        *resources: object,
        handler: str = "test",
        attempt: int = 1,
        failures: int = 0,
        task_id: UUID = _TEST_ID,
        **others: Any,
    ) -> Context:
        """To call a handler directly in a unit test: `await scrape(Context.for_test(FakeSession()),
        url="x")`.

        `resources` are what `use` finds, by type; `others` as in the constructor. Afterwards `children` holds
        what the handler submitted.
        """
        return cls(
            task_id=task_id,
            attempt=attempt,
            handler=handler,
            failures=failures,
            resources=Resources.of(*resources),
            **others,
        )

    # -- for handlers -------------------------------------------------------------------------------

    def use(self, kind: type[T]) -> T:
        """The resource that is a `kind`. Raises ResourceNotFound, naming what exists."""
        return self._resources.find(kind)

    @property
    def parents(self) -> Parents:
        """The tasks that this one waited for, with their results, in the order of `depends_on`."""
        return self._parents

    def submit(self, *tasks: Task[Any] | Workflow) -> None:
        """Tasks, and workflows of tasks, to be committed together with this attempt's outcome; dropped if it does not
        succeed.

        Raises InvalidInput beyond 10,000 of one attempt, NoriaError when the attempt has ended.
        """
        if self._closed:
            raise NoriaError(
                f"attempt {self.attempt} of {self.handler} has ended; what it submits now would be lost"
            )
        for each in tasks:
            if not hasattr(each, "to_request"):
                raise TypeError(f"submit takes tasks, such as task(fn, …), not {each!r}")
        count = self._count + sum(each.size for each in tasks)
        if count > CHILDREN_MAX:
            raise InvalidInput(f"more than {CHILDREN_MAX} tasks submitted by one attempt of {self.handler}")
        self._count = count
        self._children.extend(tasks)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction in Noria's own database, which commits together with this attempt's outcome or not at all.

            async with ctx.transaction() as connection:
                await connection.execute("UPDATE account SET …")

        The end of the block does not commit: the attempt does, when its handler returns and while it is still the one
        that runs. An error that leaves the block, or the handler, takes back what was written. One per attempt, in
        `async def` handlers without an actor key. `connection` is asyncpg's.

        Raises NoriaError where there can be none; Unavailable.
        """
        begun = await self._begin()
        try:
            yield begun.connection
        except BaseException:
            self._transaction = None
            await begun.roll_back()
            raise

    async def _begin(self) -> Transaction:
        transactions = self._may_begin()
        self._transaction_used = True
        begun = await transactions.begin()
        if self._closed:  # meanwhile
            await begun.roll_back()
            raise NoriaError(f"{self.handler}: ctx.transaction(): the attempt has ended")
        self._transaction = begun
        return begun

    def _may_begin(self) -> Transactions:
        if self.actor_key is not None:
            raise NoriaError(
                f"{self.handler}: ctx.transaction() is not for tasks with an actor key: they commit with their turn"
            )
        if self._transactions is None:
            raise NoriaError(
                f"{self.handler}: ctx.transaction() needs a database (a Harness takes connection=…), "
                "and is not for batch handlers: each of their tasks commits by itself"
            )
        if self._closed or self._transaction_used:
            why = "the attempt has ended" if self._closed else "it was used before"
            raise NoriaError(f"{self.handler}: ctx.transaction() is there once in each attempt; {why}")
        return self._transactions

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """How far the work is; the newest is shown, some times a second. Raises ValueError for what is no
        number.
        """
        _check_number("done", done)
        if total is not None:
            _check_number("total", total)
        if self._on_progress is not None and not self._closed:
            told = Progress(done=done, total=total, message=str(message)[:_MESSAGE_CHARS_MAX])
            self._on_progress(self.task_id, self.attempt, told)

    def snooze(self, after_s: float) -> NoReturn:
        """End this attempt and run again after `after_s`; counts as no failure. Raises ValueError below 0."""
        raise Snoozed(delay_s(after_s))

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should stop (cancelled, past its deadline, or the node drains). For loops in
        threads.
        """
        return self._cancel_reason != ""

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled when the attempt should stop."""
        if self._cancel_reason:
            raise Cancelled(self._cancel_reason)

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits of the submitter's trace, or empty."""
        parts = self.trace_context.split("-") if self.trace_context else []
        return parts[1] if len(parts) >= 4 else ""

    # -- for the executor ---------------------------------------------------------------------------

    @property
    def children(self) -> Sequence[Task[Any] | Workflow]:
        """What was submitted so far."""
        return self._children

    def take_transaction(self) -> Transaction | None:
        """The one that was begun, for whoever ends it: the attempt has ended."""
        taken, self._transaction = self._transaction, None
        if taken is not None or self._transactions is not None:
            self._closed = True
        return taken

    def adopt(self, children: Sequence[Task[Any] | Workflow]) -> None:
        """Children that another process collected for this attempt."""
        self.submit(*children)

    def meet(self, parents: Parents) -> None:
        """Before the body begins."""
        self._parents = parents

    def request_cancel(self, reason: str) -> None:
        """Ask the handler to stop; may be called from any thread, and again."""
        self._cancel_reason = self._cancel_reason or reason or "cancelled"

    def close(self) -> Sequence[Task[Any] | Workflow]:
        """The attempt has ended: its children. What is submitted or reported later has no effect, and submit
        says so.
        """
        self._closed = True
        return tuple(self._children)

    def __repr__(self) -> str:
        return f"<Context {self.handler} {self.task_id} attempt {self.attempt}>"


def _check_number(name: str, value: object) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value)):
        raise ValueError(f"progress {name}={value!r} is not a finite number")
