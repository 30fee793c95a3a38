"""Plays one scenario: Locust in a process of its own, faults at their time, and a line of progress every second."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.rig import percentile, tree_cpu_s
from loadtests.cluster import Cluster, LoadError
from loadtests.journal import Entry, Reader
from loadtests.scenarios import Scenario
from runtime.adapters.embedded.child import Child, exited, spawn

HERE: Final = Path(__file__).parent
PYTHON: Final = HERE.parent / ".venv-load/bin/python"
_TELL_S: Final = 1.0
_FIRST_S: Final = 30.0  # from its start to the first answer
_FINISH_S: Final = 25  # callers end what they have begun; a little more than a caller's patience
_DRAINED_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Unix time; for the pictures."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds so far, by who used them."""

    at_s: float
    cpu_s: dict[str, float]


@dataclass(slots=True)
class Played:
    scenario: Scenario
    users: int
    seconds: float
    entries: list[Entry] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    used: list[Used] = field(default_factory=list)  # the first and the last look while Locust ran
    drained_s: float | None = None
    claimed: Counter[str] = field(
        default_factory=Counter
    )  # attempts, by the way they came; not of killed nodes

    def cores(self) -> dict[str, float]:
        """How many cores each kept busy between the two looks."""
        if len(self.used) < 2:
            return {}
        first, last = self.used
        return {who: (s - first.cpu_s[who]) / (last.at_s - first.at_s) for who, s in last.cpu_s.items()}


class Driver:
    """`tell` gets a line of progress, about once a second."""

    def __init__(self, cluster: Cluster, report: Path, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._report = report
        self._tell = tell

    async def play(self, scenario: Scenario, users: int, seconds: float) -> Played:
        """Everything that it asked for has been answered, and nothing waits or runs any more. Raises LoadError."""
        played = Played(scenario, users, seconds)
        path = self._report / "journal" / f"{scenario.user}.jsonl"
        before = await self._cluster.claims()
        locust = self._start(scenario, users, seconds, path)
        try:
            with Reader(path) as journal:
                await self._follow(locust, played, journal)
                if locust.wait() != 0:
                    raise LoadError(f"Locust failed:\n{self._log(scenario).read_text()[-3000:]}")
                played.entries += journal.more()
        finally:
            if locust.poll() is None:
                locust.kill()
                await exited(locust)
        self._tell(f"{scenario.title}: waiting until all of it is done ...")
        played.drained_s = await self._cluster.until_idle(_DRAINED_S)
        for name, claims in (await self._cluster.claims()).items():
            played.claimed += Counter(claims) - Counter(before.get(name, {}))
        return played

    def _start(self, scenario: Scenario, users: int, seconds: float, journal: Path) -> Child:
        urls = self._cluster.urls
        command = [
            str(PYTHON), "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--only-summary",
            "--host", urls[0], "--hosts", ",".join(urls), "--journal", str(journal), "--exit-code-on-error", "0",
            "-u", str(users), "-r", str(users), "--run-time", f"{seconds:.0f}s", "--stop-timeout", str(_FINISH_S),
            scenario.user,
        ]  # fmt: skip
        with self._log(scenario).open("ab") as log:
            return spawn(command, end_signal=signal.SIGKILL, env=os.environ, output=log)

    def _log(self, scenario: Scenario) -> Path:
        return self._report / "logs" / f"locust-{scenario.user}.log"

    async def _follow(self, locust: Child, played: Played, journal: Reader) -> None:
        """Until Locust has ended."""
        faults = None
        started_s = time.monotonic()
        ended = asyncio.create_task(exited(locust))
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=_TELL_S)
                new = journal.more()
                played.entries += new
                if played.entries and locust.poll() is None:
                    self._look(played, locust)
                if faults is None and played.entries:
                    faults = asyncio.create_task(self._faults(played))
                if not played.entries and time.monotonic() - started_s > _FIRST_S:
                    raise LoadError(f"no caller was answered in {_FIRST_S:g} s")
                self._tell(progress(played, new))
            if faults is not None:
                await faults
        finally:
            for work in (ended, faults):
                if work is not None:
                    work.cancel()

    async def _faults(self, played: Played) -> None:
        began_s = played.entries[0].at_s
        for fault in played.scenario.faults:
            await asyncio.sleep(max(0.0, began_s + fault.at * played.seconds - time.time()))
            at_s = time.time()
            text = await (self._cluster.kill() if fault.kind == "kill" else self._cluster.join())
            played.marks.append(Mark(at_s if fault.kind == "kill" else time.time(), text))
            self._tell(f"{played.scenario.title}: {text}")

    def _look(self, played: Played, locust: Child) -> None:
        used = Used(time.monotonic(), {"Locust": tree_cpu_s(locust.pid), **self._cluster.cpu_s()})
        played.used[1:] = [used]


def progress(played: Played, new: list[Entry]) -> str:
    """One line: where it is, and what came since the last one."""
    title = played.scenario.title
    if not played.entries:
        return f"{title}: starting {played.users} callers ..."
    at_s = min(time.time() - played.entries[0].at_s, played.seconds)
    accepted = sum(len(entry.keys) for entry in new if entry.accepted)
    refused = Counter(entry.status for entry in new if not entry.accepted and not entry.cut)
    took_ms = [entry.took_s * 1e3 for entry in new if entry.accepted] or [0.0]
    return (
        f"{title}: {at_s:3.0f} of {played.seconds:.0f} s  {len(new):5,} requests  {accepted:6,} tasks answered  "
        f"p50 {percentile(took_ms, 50):.0f} ms  p99 {percentile(took_ms, 99):.0f} ms"
        + "".join(
            f"  {count} times {status or 'no answer'}" for status, count in sorted(refused.items(), key=str)
        )
    )
