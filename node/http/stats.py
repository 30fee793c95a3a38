"""The shape of `/v1/stats`, and how a census of the record and what members tell of themselves become its rows.

Law: everything here is known without asking the record. Fields are left out, never invented, where a node
does not know them; readers (console, `noria top`) must do without any of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NotRequired

from typing_extensions import TypedDict

from actors.activity import HandlerWork
from actors.cluster import Cluster
from actors.load import Load, read_load
from node.http.cluster import is_live, state_of
from runtime.core.lanes import USUAL_WEIGHT
from runtime.core.task import Band, BandCount, Census, Lane, NodeView

NODES_MAX: Final = 200
TENANTS_MAX: Final = 20


class Counts(TypedDict, total=False):
    """Tasks by state, as the record was last counted."""

    blocked: int
    scheduled: int
    ready: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    succeeded_is_estimate: bool
    age_s: float  # how long ago it was counted


class Series(TypedDict):
    """Events of one kind on this node."""

    per_s: float  # mean of the last 10 s
    last: list[int]  # counts of the last 120 whole seconds, oldest first


class Percentiles(TypedDict, total=False):
    """Seconds; of the last 1,000."""

    p50: float
    p90: float
    p99: float


class Room(TypedDict):
    """How much runs at the same time."""

    limit: int
    taken: int


class LaneRow(TypedDict):
    lane: str  # high, medium, low
    ready: int
    scheduled: int
    running: int
    oldest_s: float  # age of the oldest task that is due


class HandlerRow(TypedDict):
    name: str
    ready: int
    scheduled: int
    running: int
    oldest_s: float
    paused: bool
    per_s: NotRequired[float]  # attempts that succeeded, on all nodes
    failed_per_s: NotRequired[float]  # attempts that failed, to be tried again or not, on all nodes
    p50_s: NotRequired[float]  # how long its bodies ran, of the last 200 on the node that answers
    p95_s: NotRequired[float]


class TenantRow(TypedDict):
    """As the record was last counted. A tenant of weight 3 gets three times the turns of one of weight 1."""

    name: str
    weight: int
    paused: bool
    ready: int
    scheduled: int
    running: int
    oldest_s: float


class NodeRow(TypedDict):
    """A living node, as it told with the last renewal of its lease; null where it has told nothing yet."""

    name: str
    incarnation: int
    state: str  # joining, active, draining, unreachable
    running: int | None
    limit: int | None  # how many it runs at the same time, of all kinds of bodies together
    rates: dict[str, float]  # tasks per second: accepted, succeeded, failed, cancelled


class HotKeyRow(TypedDict):
    """A key of an actor that was among the ten busiest of the last 10 s, on the node that answers."""

    actor: str
    key: str
    per_s: float


class NextFireRow(TypedDict):
    tenant: str
    name: str
    at: str


class RunningRow(TypedDict):
    """A task that runs on this node, the longest-running first, at most 50."""

    id: str
    handler: str
    attempt: int
    for_s: float


class FailureRow(TypedDict):
    """An attempt that failed on this node, newest first, at most 50. `final`: it is a dead letter now."""

    id: str
    handler: str
    attempt: int
    final: bool
    error_type: str
    message: str
    at: str


class Stats(TypedDict, total=False):
    node: str
    incarnation: int
    pid: int
    state: str  # joining, active, draining
    version: str
    started_at: str
    at: str
    backlog: int
    counts: Counts
    rates: dict[str, Series]  # accepted, succeeded, failed, cancelled
    latency_s: Percentiles  # from due to outcome
    capacity: dict[str, Room]  # async, thread, process
    lanes: list[LaneRow]
    handlers: list[HandlerRow]
    running: list[RunningRow]
    failures: list[FailureRow]
    nodes: list[NodeRow]  # by name, at most 200
    tenants: list[TenantRow]  # the 20 with the most that waits and runs
    hot_keys: list[HotKeyRow]
    next_fires: list[NextFireRow]  # the five schedules that fire next, within a day


@dataclass(slots=True)
class _Sum:
    ready: int = 0
    scheduled: int = 0
    running: int = 0
    oldest_s: float = 0.0
    blocked: int = 0

    def add(self, count: BandCount) -> None:
        self.ready += count.ready
        self.scheduled += count.scheduled
        self.running += count.running
        self.blocked += count.blocked
        self.oldest_s = max(self.oldest_s, count.oldest_due_s)


def counted(
    census: Census, bands: Mapping[int, Band], paused: Collection[str], names: Iterable[str]
) -> Stats:
    """`backlog`, `counts`, `lanes` and `handlers` of a census; `names` are handlers to list in any case.

    A band that is not known here yet is counted by state only.
    """
    lanes = {lane: _Sum() for lane in Lane}
    handlers = {name: _Sum() for name in names}
    total = _Sum()
    for count in census.bands:
        sums = [total]
        band = bands.get(abs(count.band))
        if band is not None:
            sums += [lanes[band.lane], handlers.setdefault(band.handler, _Sum())]
        for each in sums:
            each.add(count)
    return {
        "backlog": total.ready,
        "counts": {
            "blocked": total.blocked,
            "scheduled": total.scheduled,
            "ready": total.ready,
            "running": total.running,
            "succeeded": census.succeeded,
            "failed": census.failed,
            "cancelled": census.cancelled,
            "succeeded_is_estimate": census.succeeded_is_estimate,
        },
        "lanes": [{"lane": lane.name.lower(), **_row(each)} for lane, each in lanes.items()],
        "handlers": [
            _handler_row(name, each, paused=name in paused) for name, each in sorted(handlers.items())
        ],
    }


def _handler_row(name: str, each: _Sum, *, paused: bool) -> HandlerRow:
    row = _row(each)
    return {
        "name": name,
        "paused": paused,
        "ready": row["ready"],
        "scheduled": row["scheduled"],
        "running": row["running"],
        "oldest_s": row["oldest_s"],
    }


def _row(each: _Sum) -> _Row:
    return {
        "ready": each.ready,
        "scheduled": each.scheduled,
        "running": each.running,
        "oldest_s": round(each.oldest_s, 3),
    }


class _Row(TypedDict):
    ready: int
    scheduled: int
    running: int
    oldest_s: float


def tenant_rows(
    census: Census | None, bands: Iterable[Band], weights: Mapping[str, int], paused: Collection[str]
) -> list[TenantRow]:
    """All that have a band or a weight or are paused, by name; without a census nothing of them waits."""
    by_id = {band.id: band.tenant for band in bands}
    sums = {name: _Sum() for name in sorted({*by_id.values(), *weights, *paused})}
    for count in () if census is None else census.bands:
        if (tenant := by_id.get(abs(count.band))) is not None:
            sums[tenant].add(count)
    return [
        {"name": name, "weight": weights.get(name, USUAL_WEIGHT), "paused": name in paused, **_row(each)}
        for name, each in sums.items()
    ]


def busiest(rows: Iterable[TenantRow]) -> list[TenantRow]:
    """For whoever watches."""
    return sorted(rows, key=lambda row: (-row["ready"] - row["running"], row["name"]))[:TENANTS_MAX]


def working(stats: Stats, cluster: Cluster, own: Load, handlers: HandlerWork) -> None:
    """Add the nodes, and to each handler how fast it is worked off. `own`: of the node that answers."""
    loads = {lease.incarnation: read_load(lease.load) for lease in cluster.leases if is_live(lease)}
    loads[cluster.incarnation] = own
    for row in stats.get("handlers", []):
        name = row["name"]
        done, failed = handlers.per_s(name)
        for incarnation, load in loads.items():
            if incarnation != cluster.incarnation:
                theirs = load.handlers.get(name, (0.0, 0.0))
                done, failed = done + theirs[0], failed + theirs[1]
        row["per_s"], row["failed_per_s"] = round(done, 1), round(failed, 1)
        if (times := handlers.run_times(name)) is not None:
            row["p50_s"], row["p95_s"] = round(times[0], 6), round(times[1], 6)
    living = sorted((lease for lease in cluster.leases if is_live(lease)), key=lambda lease: lease.node)
    stats["nodes"] = [_node_row(lease, cluster, loads[lease.incarnation]) for lease in living[:NODES_MAX]]


def _node_row(lease: NodeView, cluster: Cluster, load: Load) -> NodeRow:
    return {
        "name": lease.node,
        "incarnation": lease.incarnation,
        "state": state_of(lease, cluster.view.find(lease.incarnation), cluster.view),
        "running": load.running,
        "limit": load.limit,
        "rates": dict(load.rates),
    }
