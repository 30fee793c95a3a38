"""Metrics for Prometheus: one table of what exists, fed through the Telemetry port.

Counters and gauges are prometheus-client's own. Histograms take samples by the batch (a bisect per sample instead of
a lock per sample) and are handed out through the library's collector interface.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "tasks_accepted_total": ("Tasks stored, duplicates not counted", ()),
    "unique_tasks_total": ("Unique tasks that met another: replaced it, found it, were rejected", ("what",)),
    "tasks_finished_total": ("Tasks that reached a final state", ("handler", "outcome")),
    "tasks_claimed_total": ("Attempts claimed, by the way they came", ("via",)),
    "tasks_offered_total": ("Tasks offered to the nodes that own them", ()),
    "offer_messages_total": ("Messages in which they were", ()),
    "attempts_requeued_total": ("Attempts that went back to waiting", ("handler", "kind")),
    "fenced_commits_total": ("Commits refused because a newer attempt exists", ()),
    "sweep_repaired_total": ("Attempts handed back by repair", ("kind",)),
    "batch_calls_total": ("Calls of batch handlers", ("handler",)),
    "batch_tasks_total": ("Tasks in calls of batch handlers", ("handler",)),
    "abandoned_bodies_total": ("Bodies that did not stop and were ended without", ("handler",)),
    "dead_messages_total": ("Messages between actors that were dropped", ("reason", "actor")),
    "ring_mismatch_total": ("Heartbeats of members that have another slot table for the same view", ()),
    "events_published_total": ("Changes of tasks told to other services", ()),
    "events_lost_total": ("Changes of tasks that were never told, for the broker was away too long", ()),
    "handler_transactions_total": ("Transactions of handlers that ended, and how", ("end",)),
    "results_stored_total": ("Large results stored apart from the record", ()),
    "results_stored_bytes_total": ("Their bytes", ()),
    "results_refused_total": ("Tries to store a large result that failed; each is repeated", ()),
    "results_collected_total": ("Large results deleted because no task refers to them any more", ()),
    "schedules_fired_total": ("Tasks that schedules made on this node", ()),
    "schedules_missed_total": ("Fire times that were left out because no node was there for them", ()),
    "schedules_skipped_total": ("Fire times that were left out because an earlier task had not ended", ()),
    "http_requests_total": ("HTTP requests answered", ("route", "status")),
}
GAUGES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "tasks_backlog": ("Tasks that wait and are due", ("lane", "handler", "requires")),
    "tasks_scheduled": ("Tasks that wait for a later time", ("handler",)),
    "tasks_blocked": ("Tasks that wait for others", ("handler",)),
    "tasks_running": ("Bodies and claims in hand on this node", ()),
    "oldest_due_seconds": ("Age of the oldest task that waits and is due", ("lane", "handler")),
    "actor_activations": ("Instances of keyed actors in memory", ()),
    "actor_key_messages_per_second": ("Messages of the ten busiest keys of this node", ("actor", "key")),
    "node_credit": ("Bodies this node could start now", ("kind",)),
    "results_in_hand_bytes": ("Large results that wait for their store", ()),
    "ring_view": ("Number of the installed view", ()),
    "node_slots": ("Slots of the whole ring that this node owns", ()),
    "broker_reachable": ("1 while what this node sends to itself through the broker arrives", ()),
    "event_loop_lag_seconds": ("Longest time the event loop did not move, in the last interval", ()),
    "mailbox_depth": ("Messages that wait in an actor's mailbox", ("actor",)),
    "lease_left_seconds": ("What was left of this node's lease when it was last renewed", ()),
}
HISTOGRAMS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "task_wait_seconds": ("From due to claimed", ("handler",)),
    "task_run_seconds": ("From start to end of a body", ("handler",)),
    "schedule_late_seconds": ("From fire time to fire", ()),
}
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class PrometheusTelemetry:
    """The Telemetry port. Names that are not in the tables above are a programming error (KeyError)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"noria_{name}", text, labels, registry=self._registry)
            for name, (text, labels) in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"noria_{name}", text, labels, registry=self._registry)
            for name, (text, labels) in GAUGES.items()
        }
        self._histograms = {name: _Histogram(name, *about) for name, about in HISTOGRAMS.items()}
        for histogram in self._histograms.values():
            self._registry.register(histogram)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def clear(self, name: str) -> None:
        """Forget all label values of a gauge, so that what no longer exists is no longer shown."""
        self._gauges[name].clear()

    def observe(self, name: str, values: Sequence[float], **labels: str) -> None:
        self._histograms[name].observe(values, tuple(labels.values()))

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)


class _Histogram(Collector):
    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name = f"noria_{name}"
        self._text = text
        self._labels = labels
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, values: Sequence[float], labels: tuple[str, ...]) -> None:
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = ([0] * (len(BUCKETS_S) + 1), [0.0])
        counts, total = found
        for value in values:
            counts[bisect_left(BUCKETS_S, value)] += 1
        total[0] += sum(values)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, (counts, total) in list(self._series.items()):
            family.add_metric(labels, list(_cumulative(counts)), total[0])
        yield family


def _cumulative(counts: Sequence[int]) -> Iterator[tuple[str, float]]:
    running = 0
    for bound, count in zip((*map(str, map(float, BUCKETS_S)), "+Inf"), counts, strict=True):
        running += count
        yield bound, float(running)
