"""The shape of `/v1/stats`, and how a census of the record becomes its counts per state, lane and handler.

Law: everything here is known without asking the record. Fields are left out, never invented, where a node
does not know them; readers (console, `noria top`) must do without any of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from typing_extensions import TypedDict

from runtime.core.task import Band, Census, Lane


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


@dataclass(slots=True)
class _Sum:
    ready: int = 0
    scheduled: int = 0
    running: int = 0
    oldest_s: float = 0.0


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
            each.ready += count.ready
            each.scheduled += count.scheduled
            each.running += count.running
            each.oldest_s = max(each.oldest_s, count.oldest_due_s)
    return {
        "backlog": total.ready,
        "counts": {
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
            {"name": name, "paused": name in paused, **_row(each)} for name, each in sorted(handlers.items())
        ],
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
