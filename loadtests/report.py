"""Figures of what was played, as data (report.json) and as text (report.md, the table on the terminal).

Law: pure. Latencies in milliseconds, of accepted requests; rates per second; times of a scenario from its first
request on. `finished` counts what was asked for, not the receipts that orders make.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.rig import percentile

if TYPE_CHECKING:
    from loadtests.driver import Played
    from loadtests.journal import Entry
    from loadtests.record import Record

LANES: Final = ("high", "medium", "low")


@dataclass(slots=True)
class Latency:
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(slots=True)
class Series:
    """One value per second; latencies are missing (None) where nothing was accepted."""

    requests: list[int]
    accepted: list[int]  # tasks that a caller was told of, duplicates too
    not_accepted: list[int]  # requests
    finished: list[int]
    p50_ms: list[float | None]
    p99_ms: list[float | None]


@dataclass(slots=True)
class Figures:
    """One scenario."""

    user: str
    title: str
    question: str
    users: int
    seconds: float
    load_s: float  # from the first request to the last answer
    requests: int
    tasks: int  # different ones
    duplicates: int
    answers: dict[str, int]  # requests by status; "none": no answer; "cut": its time was over
    requests_per_s: float
    accepted_per_s: float  # different tasks
    finished_per_s: float  # from the first request to the last outcome
    answer: Latency
    outcome: dict[str, Latency]  # from the commit of the task to that of its outcome: all, and by lane
    drained_s: float | None
    cpu_cores: dict[str, float]  # how many cores each kept busy while Locust ran
    marks: list[tuple[float, str]]
    outcomes_by_node: dict[str, int]
    claimed: dict[str, int]  # attempts, by the way they came to their node; not of a killed one
    series: Series


@dataclass(slots=True)
class Report:
    at: str
    machine: dict[str, str]
    scenarios: list[Figures]
    findings: list[str]
    tasks: int = 0
    outcomes: int = 0
    repeated_attempts: int = 0
    taken_over: int = 0  # attempts that a killed node had begun
    taken_over_s: float | None = None  # from the kill until the last of them was given to others
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.findings


# -- figures ------------------------------------------------------------------------------------------


def figures(played: Played, record: Record) -> Figures:
    """Of one scenario that accepted something."""
    entries = played.entries
    began_s = min((entry.at_s for entry in entries), default=0.0)
    spent_s = max((entry.at_s + entry.took_s for entry in entries), default=1.0) - began_s
    ids = {one for entry in entries if entry.accepted for one in entry.ids or ()}
    tasks = [record.tasks[one] for one in ids if one in record.tasks and one in record.ends]
    finished_s = [record.ends[task.id].finished_s for task in tasks]
    waited_ms: dict[str, list[float]] = defaultdict(list)
    for task in tasks:
        took_ms = (record.ends[task.id].finished_s - task.created_s) * 1e3
        waited_ms["all"].append(took_ms)
        waited_ms[task.lane].append(took_ms)
    by_node = Counter(record.ends[task.id].node or "?" for task in tasks)
    return Figures(
        user=played.scenario.user,
        title=played.scenario.title,
        question=played.scenario.question,
        users=played.users,
        seconds=played.seconds,
        load_s=spent_s,
        requests=len(entries),
        tasks=len(ids),
        duplicates=sum(not new for entry in entries if entry.accepted for new in entry.new or ()),
        answers=dict(Counter(_answer(one) for one in entries)),
        requests_per_s=len(entries) / spent_s,
        accepted_per_s=len(ids) / spent_s,
        finished_per_s=len(tasks) / max(1e-3, max(finished_s, default=began_s) - began_s),
        answer=latency([entry.took_s * 1e3 for entry in entries if entry.accepted]),
        outcome={name: latency(waited_ms[name]) for name in ("all", *LANES) if _told_apart(name, waited_ms)},
        drained_s=played.drained_s,
        cpu_cores=played.cores(),
        marks=[(mark.at_s - began_s, mark.text) for mark in played.marks],
        outcomes_by_node=dict(sorted(by_node.items())),
        claimed=dict(sorted(played.claimed.items())),
        series=series(played, finished_s, began_s),
    )


def _answer(entry: Entry) -> str:
    return "cut" if entry.cut else str(entry.status or "none")


def _told_apart(name: str, waited_ms: Mapping[str, list[float]]) -> bool:
    return name == "all" or (len(waited_ms) > 2 and name in waited_ms)  # more than "all" and one lane


def latency(values_ms: Sequence[float]) -> Latency:
    values = list(values_ms) or [0.0]
    return Latency(percentile(values, 50), percentile(values, 99), max(values))


def series(played: Played, finished_s: Iterable[float], began_s: float) -> Series:
    """By the second in which a request was answered, or a task ended."""
    finished = Counter(int(at_s - began_s) for at_s in finished_s)
    took_ms: dict[int, list[float]] = defaultdict(list)
    requests, accepted, others = Counter[int](), Counter[int](), Counter[int]()
    for entry in played.entries:
        second = int(entry.at_s + entry.took_s - began_s)
        requests[second] += 1
        if entry.accepted:
            accepted[second] += len(entry.keys)
            took_ms[second].append(entry.took_s * 1e3)
        elif not entry.cut:
            others[second] += 1
    seconds = range(max([*finished, *requests], default=-1) + 1)
    return Series(
        requests=[requests[s] for s in seconds],
        accepted=[accepted[s] for s in seconds],
        not_accepted=[others[s] for s in seconds],
        finished=[finished[s] for s in seconds],
        p50_ms=[percentile(took_ms[s], 50) if s in took_ms else None for s in seconds],
        p99_ms=[percentile(took_ms[s], 99) if s in took_ms else None for s in seconds],
    )


def takeover(played: Sequence[Played], record: Record) -> tuple[int, float | None]:
    """(attempts that a killed node had begun, seconds from the kill until the last was given to others)."""
    kills_s = [mark.at_s for one in played for mark in one.marks if "killed" in mark.text]
    if not kills_s or not record.crashed_s:
        return len(record.crashed_s), None
    return len(record.crashed_s), max(record.crashed_s) - kills_s[0]
