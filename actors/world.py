"""What the actors of one node are made of. Built by `node.wiring`, or by a Harness; actors import no adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.activity import Activity
from actors.authoring.limits import RESULT_BYTES_MAX
from actors.authoring.registry import HandlerDef, Kind, Registry
from actors.authoring.resources import Resources
from actors.bands import Bands
from actors.cluster import Cluster
from actors.executor.capacity import Capacity
from actors.intake.intake import Intake
from actors.keyed.fence import Fence
from actors.publishing import Told
from runtime.core.task import Band
from runtime.core.versions import may_serve
from runtime.kernel.clock import Clock
from runtime.ports import Broker, Coordinator, Objects, Store, Telemetry, Transactions


@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs at the same time, by kind of body, and how large the buffers are."""

    concurrency: int = 100
    threads: int = 8
    processes: int = 1
    accept_waiting_max: int = 20_000  # tasks that wait for their commit; more is Overloaded
    waiters_max: int = 10_000
    result_bytes: int = 64 << 20  # of one result, where there is a store for large ones
    results_in_hand_bytes: int = 256 << 20  # while more wait to be stored, nothing is claimed

    def of(self, kind: Kind) -> int:
        return {Kind.ASYNC: self.concurrency, Kind.THREAD: self.threads, Kind.PROCESS: self.processes}[kind]


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long finished tasks, and tasks with an idempotency key, are kept."""

    finished_s: float = 7 * 86400.0
    keys_s: float = 86400.0
    orphans_s: float = 6 * 3600.0  # large results that nobody refers to are left alone as long


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    store: Store
    registry: Registry
    bands: Bands
    capacity: Capacity
    intake: Intake
    resources: Resources
    activity: Activity
    clock: Clock
    telemetry: Telemetry
    jitter: Callable[[], float]  # uniform in [0, 1)
    node: str
    incarnation: int
    lease_s: float
    fence: Fence = field(default_factory=Fence)
    cluster: Cluster
    coordinator: Coordinator | None = None  # None: a node by itself, as in a Harness
    broker: Broker | None = None  # None: others are found through the record only
    events: Told = Told.FINAL  # what other services hear of, through the broker
    transactions: Transactions | None = None  # None: handlers have none
    objects: Objects | None = None  # None: results are at most as large as fits in the record
    heartbeat_s: float = 1.0
    sources: tuple[str, ...] = ()  # modules or files that child processes load handlers from
    tags: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    keeping: Keeping = field(default_factory=Keeping)

    @property
    def result_max(self) -> int:
        """Bytes that a result may have."""
        return RESULT_BYTES_MAX if self.objects is None else self.limits.result_bytes

    def serves(self, band: Band) -> HandlerDef | None:
        """The handler of a band, when this node may run it: loaded in a version that may bind it, and all tags borne."""
        handler = self.registry.get(band.handler)
        if handler is None or self.tags.issuperset(band.requires):
            return handler
        version = handler.entry().digest
        return handler if may_serve(band.requires, self.tags, version, self.incarnation) else None
