"""Faults drawn by lot on three real nodes with PostgreSQL, RabbitMQ and etcd of their own, under load; then the whole
history is checked.

    python -m tests.faults.chaos [--minutes M] [--seed N] [--history FILE]

The seed chooses faults, victims and lengths; what meets what is left to the machine. The history is written also where
something went wrong, and `python -m tests.faults.check FILE` judges it again.
"""

# ruff: noqa: T201 - what it prints is for people
from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.faults.disasters import LEASE_S, Disasters
from tests.faults.load import Load
from tests.faults.rig import Rig
from tests.faults.services import services
from tests.faults.stage import Stage
from tests.faults.watch import Watch
from tests.support.events import write_events
from tests.support.history import BURNS_FAILURE, RULES, History, violations

_BETWEEN: Final = 30  # tasks accepted between two faults
_ACCEPTED_WITHIN_S: Final = 60.0
_FINAL_S: Final = 90.0
_CLIENTS: Final = 4
_CANCELLED_EVERY: Final = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.chaos", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument(
        "--history", type=Path, help="where to write it (default: in the folder for temporary files)"
    )
    asked = parser.parse_args()
    path = asked.history or Path(tempfile.gettempdir()) / f"noria-chaos-{asked.seed}.jsonl"
    print(f"seed {asked.seed}; starting PostgreSQL, RabbitMQ, etcd and three nodes ...", flush=True)
    with cluster() as rig:
        chaos = Chaos(rig, random.Random(asked.seed))
        failure = chaos.run(asked.minutes * 60)
        return report(rig, chaos, path, failure)


@contextmanager
def cluster() -> Iterator[Rig]:
    with (
        services() as all_three,
        tempfile.TemporaryDirectory(prefix="noria-chaos-") as folder,
        Stage(Path(folder) / "socket") as stage,
    ):
        rig = Rig(all_three, stage)
        try:
            for name in "abc":
                rig.node(name, start=False, wired=name == "c", LEASE_S=f"{LEASE_S:g}")
            rig.start_all()
            yield rig
        finally:
            rig.close()


class Chaos:
    def __init__(self, rig: Rig, chance: random.Random) -> None:
        self._rig = rig
        self._chance = chance
        self._disasters = Disasters(rig, chance)
        self._began_s = time.monotonic()
        self.counts: Counter[str] = Counter()

    def run(self, seconds: float) -> str:
        """What went wrong on the way; empty where nothing did."""
        self._began_s = time.monotonic()
        load = Load(*self._rig.nodes, clients=_CLIENTS, cancelled_every=_CANCELLED_EVERY)
        try:
            with Watch(self._rig), load:
                load.wait_accepted(_BETWEEN, _ACCEPTED_WITHIN_S)
                while time.monotonic() < self._began_s + seconds:
                    self._disaster(load)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the history is worth more
            return f"{type(failure).__name__}: {failure}"
        return ""

    def _disaster(self, load: Load) -> None:
        names = list(self._disasters.all)
        name = self._chance.choices(names, [self._disasters.weight(name) for name in names])[0]
        self.counts[name] += 1
        self._disasters.all[name]()
        back = self._disasters.revive()
        load.wait_accepted(_BETWEEN, _ACCEPTED_WITHIN_S)
        at_s = time.monotonic() - self._began_s
        also = f"; {', '.join(back)} had been declared dead meanwhile" if back else ""
        print(
            f"{int(at_s) // 60:02d}:{at_s % 60:04.1f}  {load.accepted:7,} accepted  {name}{also}", flush=True
        )
        threading.Event().wait(self._chance.uniform(0, 0.5))  # the moment of the next one


# -- the end --------------------------------------------------------------------------------------------


def report(rig: Rig, chaos: Chaos, path: Path, failure: str) -> int:
    found = [failure] if failure else []
    if not failure:
        print("all faults are over; waiting until all tasks have ended ...", flush=True)
        try:
            rig.services.heal()
            rig.start_all()
            rig.wait_final(_FINAL_S)
        except AssertionError as late:
            found.append(str(late)[:3000])
    history = rig.history(final=not found)
    count = write_events(path, history.events)
    found += violations(history)
    for line in summary(history, chaos.counts):
        print(line)
    for line in found:
        print(f"WRONG {line}")
    print(f"{count:,} events in {path}; python -m tests.faults.check {path}")
    print("sound: every rule holds" if not found else f"{len(found)} things are wrong")
    return 1 if found else 0


def summary(history: History, counts: Counter[str]) -> Iterator[str]:
    yield f"faults           {counts.total()}"
    yield from (f"  {count:4}  {name}" for name, count in counts.most_common())
    requests = len(history.submissions)
    refused = sum(not one.accepted for one in history.submissions)
    yield f"tasks            {len(history.tasks):,} by {requests:,} requests, {refused:,} of them refused or not answered"
    yield f"bodies           {len(history.bodies):,}; {repeated(history):,} repeat one that a fault cut short"
    yield f"processes died   {history.kills}"
    yield f"views            {len(history.views):,}"
    yield f"lost             {broken(history, ('every 2xx is on record', 'a task is in one place, in the end in its outcome'))}"
    yield f"stale commits    {broken(history, ('only the newest attempt commits, and attempts grow by one',))}"
    yield f"false deaths     {broken(history, ('nobody is declared dead without a fault',))}"


def repeated(history: History) -> int:
    """Bodies that ran again though the one before had not failed."""
    ran = {(body.id, body.attempt) for body in history.bodies}
    again = {(one.id, one.attempt) for one in history.attempts if one.kind not in BURNS_FAILURE} & ran
    return sum((task_id, attempt + 1) in ran for task_id, attempt in again)


def broken(history: History, laws: Sequence[str]) -> int:
    return sum(len(list(RULES[law](history))) for law in laws)


if __name__ == "__main__":
    sys.exit(main())
