"""What the runtime asks of the world, as small protocols; adapters implement them, `node` chooses which.

Law: no port mentions a technology. Every method may raise `errors.Unavailable` (the service cannot answer now;
what was asked may have happened), and is safe to repeat with the same ids. One contract suite per port runs on
the memory adapter and on the real thing (tests/contract).
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from runtime.core.keyed import Ask, Mail, Turn, TurnEnd
from runtime.core.limits import HandlerLimit, Limit, LimitedPull, LimitedTake
from runtime.core.messages import Message, Offer
from runtime.core.schedule import Firing, Schedule, ScheduleSpec
from runtime.core.task import (
    Acceptance,
    AttemptView,
    Band,
    BandKey,
    Census,
    Claim,
    HandlerEntry,
    Lane,
    NewTask,
    NodeView,
    Orphan,
    Page,
    Paused,
    Progress,
    Settlement,
    Take,
    TaskFilter,
    TaskView,
    Verdict,
)
from runtime.core.view import View
from runtime.core.workflow import ParentView, PassedOn, WorkflowView


class TaskStore(Protocol):
    """The life of a task. Batches in, one answer per item out, in the same order."""

    async def accept(self, groups: Sequence[Sequence[NewTask]]) -> list[list[Acceptance]]:
        """Store groups of tasks durably; each group is stored whole or not at all.

        Equal keys inside the batch count as one. A task whose `born_on` is set becomes a running row of that
        incarnation (attempt 1), if the incarnation is alive; else it waits.
        """
        ...

    async def claim(self, offers: Sequence[tuple[UUID, int]], incarnation: int) -> list[Claim]:
        """Turn those of (id, attempt) that still wait and are due into running rows of `incarnation`."""
        ...

    async def pull(self, takes: Sequence[Take], incarnation: int, *, alone: bool = False) -> list[Claim]:
        """Claim without an offer: of each band the oldest due rows, ordered by (due, seq)."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[Verdict]:
        """Commit how attempts ended. Fence, then write: outcome and children, or back to waiting."""
        ...

    async def orphans(self, limit: int) -> list[Orphan]:
        """Running rows of incarnations that are dead or have left, oldest first."""
        ...

    async def held(self, incarnation: int) -> list[Orphan]:
        """Every running row of this incarnation: what it must know of. A claim whose answer was lost shows here."""
        ...

    async def expire(self, limit: int) -> list[UUID]:
        """Cancel waiting tasks whose `expires_at` has passed (error type `Expired`)."""
        ...

    async def report_progress(self, incarnation: int, reports: Mapping[tuple[UUID, int], Progress]) -> None:
        """Keep the newest progress of running attempts, keyed by (id, attempt); fenced ones are ignored."""
        ...

    async def cancel_requests(self, incarnation: int) -> list[tuple[UUID, int]]:
        """(id, attempt) of this incarnation's running tasks that somebody asked to cancel."""
        ...


class KeyedStore(Protocol):
    """Messages to keyed actors: one turn of a key at a time, in order, with the state of the key.

    A message is a task with an actor type and an actor key; `claim` and `pull` leave it alone.
    """

    async def mail(self, after: UUID, limit: int) -> list[Mail]:
        """Lanes of keys in which something waits, of keys after that one, ascending; fewer than `limit`: no more."""
        ...

    async def begin_turns(
        self, asks: Sequence[Ask], bands: Sequence[int], incarnation: int, *, alone: bool = False
    ) -> list[Turn]:
        """Turn the first messages of these keys into running rows of `incarnation`, of one lane each.

        Only messages of these `bands` (negative: their suspects). Nothing of a key that is busy or held, or whose
        state is of a newer version than the ask `loads`.
        """
        ...

    async def end_turns(self, turns: Sequence[TurnEnd]) -> list[Verdict]:
        """Commit turns, each whole or not at all: outcomes, children, retries, and the state with its version."""
        ...


class LimitedStore(Protocol):
    """Handlers with limits: `claim` and `pull` know nothing of them, so who serves such a handler claims here."""

    async def limits(self) -> builtins.list[HandlerLimit]:
        """Of all handlers that ever had one, by name. Every node asks once a second."""
        ...

    async def declare_limits(self, limits: Mapping[str, Limit]) -> None:
        """What the code of handlers says, by name; what was set by hand stays before it."""
        ...

    async def set_limit(self, handler: str, limit: Limit, by: str) -> None:
        """Limit a handler, whatever its code says (but not per what: that stays)."""
        ...

    async def unset_limit(self, handler: str) -> bool:
        """Back to what the code says. False: nothing was set."""
        ...

    async def pull_limited(
        self, takes: Sequence[LimitedTake], limit: int, incarnation: int, *, alone: bool = False
    ) -> LimitedPull:
        """Claim at most `limit` rows of these bands, of each limiter as many as it lets begin now, by (due, seq)
        within a band. Counting and claiming are one step: never more run, and never more begin, than the limit says.

        Never repeated by itself, as a claim is not.
        """
        ...

    async def forget_limiters(self, older_than_s: float, limit: int) -> int:
        """Delete state that has said nothing for as long; at most `limit`. How many went."""
        ...


class Workflows(Protocol):
    """Tasks that wait for others, which are called their parents. `accept`, `settle` and `replay` link them."""

    async def pass_on(self, limit: int) -> PassedOn:
        """Tell the ends of parents to at most `limit` children: who waits for none any more is due, or ends."""
        ...

    async def tidy_dependences(self) -> None:
        """Forget those of children that have ended, whose parents may then be forgotten, too; and tell ends that were
        missed. Does a bounded part at a time."""
        ...

    async def parents(self, ids: Sequence[UUID], inline_bytes: int) -> list[ParentView]:
        """In this order, with results as long as all of them together have no more bytes."""
        ...

    async def workflow(self, workflow_id: UUID, tasks: int) -> WorkflowView | None:
        """With at most so many of its tasks, the oldest first."""
        ...

    async def workflows(self, tenant: str, limit: int, before: UUID | None = None) -> list[WorkflowView]:
        """Newest first, without tasks."""
        ...


class TaskControl(Protocol):
    """What people do to tasks."""

    async def cancel(self, task_id: UUID) -> TaskView:
        """Waiting: cancelled at once. Running: marked, and the view has `cancel_requested_at`. Final: as it is.

        Raises TaskNotFound.
        """
        ...

    async def cancel_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        """(matched, changed) of at most `limit` tasks that are not final."""
        ...

    async def prioritize(self, task_id: UUID, lane: Lane) -> TaskView:
        """Let a waiting task wait in this lane from now on, until it is replayed. Raises TaskNotFound, WrongState."""
        ...

    async def prioritize_matching(
        self, which: TaskFilter, limit: int, *, lane: Lane, dry_run: bool = False
    ) -> tuple[int, int]:
        """(matched, changed) of at most `limit` tasks that wait in another lane."""
        ...

    async def replay(self, task_id: UUID) -> TaskView:
        """Open a new run of a failed or cancelled task: failures and crashes start anew, attempt goes on.

        Raises TaskNotFound, WrongState.
        """
        ...

    async def replay_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        """(matched, changed) of at most `limit` dead letters (failed tasks; cancelled ones if states say so)."""
        ...

    async def purge_matching(
        self, which: TaskFilter, limit: int, *, dry_run: bool = False
    ) -> tuple[int, int]:
        """Delete dead letters for good: (matched, changed) of at most `limit`."""
        ...

    async def forget(self, *, finished_before_s: float, keys_before_s: float, limit: int) -> int:
        """Retention: delete tasks that ended more than `finished_before_s` ago and, where they have an
        idempotency key, were created more than `keys_before_s` ago. Returns how many went."""
        ...


class TaskQueries(Protocol):
    """Reading. Nothing here takes a lock."""

    async def get(self, task_id: UUID) -> TaskView | None: ...

    async def get_many(self, ids: Sequence[UUID]) -> list[TaskView]:
        """Those that exist, in no order."""
        ...

    async def finished(self, ids: Sequence[UUID]) -> list[TaskView]:
        """Those of `ids` that are final (with results); one query for all waiters of a node."""
        ...

    async def attempts(self, task_id: UUID) -> list[AttemptView]:
        """Unsuccessful attempts, oldest first."""
        ...

    async def list(self, which: TaskFilter, limit: int, before: UUID | None = None) -> Page:
        """Newest first, results left out. Looks at a bounded number of rows: a page may be short."""
        ...

    async def census(self) -> Census: ...

    async def results_in_use(self, attempts: Sequence[tuple[UUID, int]]) -> builtins.list[tuple[UUID, int]]:
        """Those of (id, attempt) that run, or that committed an outcome whose result lies apart from the record."""
        ...


class Members(Protocol):
    """Leases: which incarnations are alive, by the record's own clock."""

    async def join(self, node: str, lease_s: float, about: Mapping[str, object]) -> int:
        """A new incarnation of `node`, alive for `lease_s`."""
        ...

    async def renew(
        self, incarnation: int, lease_s: float, load: Mapping[str, object] | None = None
    ) -> float:
        """Seconds granted. Raises IncarnationDead when it was declared dead (or has left).

        `load` is what others read of its work in their NodeView; None leaves what was told before.
        """
        ...

    async def set_state(self, incarnation: int, state: str) -> None:
        """joining, active, draining or left; `left` is terminal and hands its running rows to repair."""
        ...

    async def bury(self, by: int, lease_s: float) -> list[int]:
        """Declare dead every member whose lease has run out; only a `by` unbroken for `lease_s` may. Returns whom."""
        ...

    async def request_drain(self, node: str) -> bool:
        """Ask the living incarnations of `node` to drain; they see it in their NodeView. False: there is none."""
        ...

    async def nodes(self) -> list[NodeView]:
        """All that have not left or died, and those that did within the last hour."""
        ...


class Catalog(Protocol):
    """Names that all nodes share."""

    async def intern(self, keys: Iterable[BandKey]) -> list[Band]:
        """The bands of these keys, made where they did not exist."""
        ...

    async def bands(self, after: int = 0) -> list[Band]:
        """Bands with a greater id, ascending."""
        ...

    async def place_unbanded(self, most: int) -> list[int]:
        """Tasks that were stored without a band, because theirs did not exist, get it and wait from now on: in which."""
        ...

    async def publish(self, entries: Sequence[HandlerEntry]) -> None:
        """Store what this node's handlers look like; the newest digest wins."""
        ...

    async def handlers(self) -> list[HandlerEntry]: ...

    async def paused(self) -> Paused:
        """What is paused. Every node asks once a second."""
        ...

    async def set_paused(self, handler: str, *, paused: bool) -> bool:
        """False when no such handler is known."""
        ...

    async def set_tenant_paused(self, tenant: str, *, paused: bool) -> None:
        """Also of one that has no tasks yet."""
        ...

    async def tenant_weights(self) -> dict[str, int]:
        """Of tenants that have another than the usual 1 (core.lanes). Every node asks every few seconds."""
        ...

    async def set_tenant_weight(self, tenant: str, weight: int) -> None:
        """Also of one that has no tasks yet. Raises InvalidInput."""
        ...


class Schedules(Protocol):
    """What makes tasks at given times. Changes are judged by `revision`, which each of them raises."""

    async def put_schedule(self, spec: ScheduleSpec, next_fire_at: datetime | None) -> None:
        """Make or change it. Where cron, interval and zone stay, its next fire time stays, too; a pause stays."""
        ...

    async def schedule(self, tenant: str, name: str) -> Schedule | None: ...

    async def schedules(self, tenant: str, limit: int, after: str = "") -> list[Schedule]:
        """Those with a greater name, by name."""
        ...

    async def due_schedules(self, within_s: float, limit: int) -> tuple[datetime, list[Schedule]]:
        """The record's time, and those not paused that fire by then and `within_s`, the earliest first."""
        ...

    async def fire(self, firing: Firing) -> list[UUID] | None:
        """Ids of the tasks that were stored (not those whose key was taken); None: it has another revision, so
        nothing was done. After Unavailable it may have happened; it is never to be repeated as it was."""
        ...

    async def set_schedule_paused(
        self, tenant: str, name: str, revision: int, *, paused: bool, next_fire_at: datetime | None
    ) -> bool:
        """False: there is none of this revision."""
        ...

    async def delete_schedule(self, tenant: str, name: str) -> bool:
        """False: there was none. Its tasks stay."""
        ...


class Store(
    TaskStore,
    KeyedStore,
    LimitedStore,
    Workflows,
    TaskControl,
    TaskQueries,
    Members,
    Catalog,
    Schedules,
    Protocol,
):
    """The whole record, as one adapter offers it."""

    async def now(self) -> datetime:
        """The record's clock; raises Unavailable when the record is away (used by readiness)."""
        ...

    async def identity(self) -> UUID:
        """Of this record, from its first day on: what lies outside of it is kept under this name."""
        ...


class Transaction(Protocol):
    """One that a handler writes in. It ends by `commit` or `roll_back`, whichever comes first."""

    connection: Any  # of the record's own driver

    async def commit(self, settlement: Settlement) -> Verdict:
        """Commit what was written together with the outcome and its children. Not COMMITTED: nothing of it is there.

        Raises TransactionRefused (nothing is there, for what was written); Unavailable (all or nothing of it is there).
        """
        ...

    async def roll_back(self) -> None:
        """Never fails; whoever is at it meanwhile loses the connection."""
        ...


class Transactions(Protocol):
    """Transactions in the record's database, a bounded number at a time."""

    async def begin(self) -> Transaction:
        """As soon as there is a place for one. Raises Unavailable."""
        ...


class Coordinator(Protocol):
    """The agreed view. Any member proposes; the compare-and-set on its number decides."""

    async def view(self) -> View:
        """The present view; NO_VIEW before the first."""
        ...

    async def propose(self, view: View) -> bool:
        """Make `view` the present one if the present number is `view.number - 1`, and log it in the same step.

        False: somebody else was faster, nothing was changed. After Unavailable it may have happened.
        """
        ...

    async def newer(self, number: int, timeout_s: float) -> View | None:
        """The present view as soon as its number is greater than `number`; None when the time is over."""
        ...

    async def history(self, limit: int) -> list[View]:
        """The newest views, newest first. The log has no gaps; old entries may be gone."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """An offer that arrived. `ack` it once its claim has committed (or was given up); never fails, also when the
    connection that it came by is gone."""

    offer: Offer
    ack: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a task's state, for other services. `body` is what they get to read about it."""

    id: str  # "<task id>:<attempt>:<state>"
    handler: str
    state: str
    body: Mapping[str, object]


class Broker(Protocol):
    """Messages between incarnations. Everything here is a hint: lost, doubled or late messages cost time only.

    Sending never blocks longer than 2 s. What cannot be decoded is set aside and counted by the adapter.
    """

    witness: bool  # whether silence here tells anything that the record does not
    reachable: bool  # connected, not blocked, and what it sends to itself arrives

    def receive(self, on_offer: Callable[[Delivery], None], on_message: Callable[[Message], None]) -> None:
        """Who gets what arrives, from now on: offers, and everything else (which overtakes them)."""
        ...

    async def offer(self, to: int, offer: Offer) -> None:
        """To that incarnation's inbox. Raises Unavailable, also when there is no such inbox or it is full."""
        ...

    async def tell(self, to: int, message: Message) -> None:
        """To one incarnation, overtaking offers. Raises Unavailable; may be lost in silence too."""
        ...

    async def broadcast(self, message: Message) -> None:
        """To all incarnations, this one too, overtaking offers. Raises Unavailable."""
        ...

    async def publish(self, events: Sequence[Event]) -> None:
        """To other services. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """`age_s` since it was stored, by the clock of the store."""

    key: str
    size: int
    age_s: float


class Objects(Protocol):
    """Bodies that are too large for the record, by key ([a-z0-9./-], no part begins with a dot)."""

    async def put(self, key: str, body: bytes) -> None:
        """Durable and whole once this returns, checked by a checksum on the way. The same key again replaces it."""
        ...

    def read(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes from `start` to before `end`, in pieces of at most 1 MiB. Entering raises ObjectNotFound.

        Unavailable may come in the midst of it too.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Those that are not there count as deleted."""
        ...

    async def list(self, after: str, limit: int) -> builtins.list[ObjectEntry]:
        """In the order of keys, those greater than `after`; fewer than `limit` only at the end."""
        ...

    async def tidy(self, older_than_s: float) -> int:
        """Remove what puts that never ended left behind; how many there were."""
        ...


class Telemetry(Protocol):
    """Counters and gauges. Calls are cheap and never fail; labels are resolved once, outside hot paths."""

    def count(self, name: str, value: float = 1, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def clear(self, name: str) -> None:
        """Forget all label values of a gauge, so that what no longer exists is no longer shown."""
        ...

    def observe(self, name: str, values: Sequence[float], **labels: str) -> None:
        """Add samples to a histogram (seconds)."""
        ...
