"""Faults drawn by lot, under load, on real processes, until the rounds are over; then the whole history is checked.

    python -m tests.faults.chaos [--seed N] [--rounds N]

The seed chooses faults and moments; what meets what is left to the machine. Bounded: a round takes a few seconds.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.faults.load import Load
from tests.faults.record import Record
from tests.faults.rig import LEASE_S, Node, Rig
from tests.faults.stage import Stage

_BETWEEN: Final = 10  # tasks accepted between two faults
_FINAL_S: Final = 60.0


class Chaos:
    def __init__(self, rig: Rig, nodes: list[Node], chance: random.Random) -> None:
        self._rig = rig
        self._record = rig.record
        self._nodes = nodes
        self._chance = chance

    def faults(self) -> dict[str, Callable[[], None]]:
        return {
            "a node is killed": self._kill,
            "all nodes are killed": self._kill_all,
            "a node and PostgreSQL are killed": self._kill_both,
            "a node drains": self._drain,
            "a node stops for a moment": self._pause,
            "a node wakes after its death": self._zombie,
            "PostgreSQL restarts fast": lambda: self._restart(signal.SIGINT),
            "PostgreSQL crashes": lambda: self._restart(signal.SIGQUIT),
            "PostgreSQL freezes": self._freeze,
        }

    def _some_node(self) -> Node:
        return self._chance.choice(self._nodes)

    def _last(self, *lengths_s: float) -> None:
        """How long the fault lasts."""
        threading.Event().wait(self._chance.choice(lengths_s))

    def _kill(self) -> None:
        node = self._some_node()
        node.kill()
        node.start()

    def _kill_all(self) -> None:
        for node in self._nodes:
            node.kill()
        for node in self._nodes:
            node.start()

    def _kill_both(self) -> None:
        node = self._some_node()
        node.kill()
        self._restart(signal.SIGQUIT)
        node.start()

    def _drain(self) -> None:
        node = self._some_node()
        node.process.signal(signal.SIGTERM)
        code = node.process.wait_exit(40)
        assert code == 0, f"drained with {code}\n{node.process.output}"
        node.start()

    def _pause(self) -> None:
        node = self._some_node()
        node.freeze()
        self._last(LEASE_S * 0.15, LEASE_S * 0.4, LEASE_S * 0.6)
        node.thaw()

    def _zombie(self) -> None:
        node = self._some_node()
        node.freeze()
        self._last(LEASE_S * 3)
        node.thaw()
        node.died(75)
        node.start()

    def _restart(self, how: signal.Signals) -> None:
        self._record.stop(how)
        self._last(0, 0, LEASE_S / 2, LEASE_S * 2)
        self._record.start()

    def _freeze(self) -> None:
        self._record.freeze()
        self._last(0.5, LEASE_S, LEASE_S * 1.5, LEASE_S * 4)
        self._record.thaw()


def run(rig: Rig, seed: int, rounds: int) -> str:
    """Raises AssertionError; else says what it came to."""
    chance = random.Random(seed)
    nodes = list(rig.two_nodes("a", "b"))
    faults = Chaos(rig, nodes, chance).faults()
    with Load(*nodes, clients=4) as load:
        for number in range(rounds):
            load.wait_accepted(_BETWEEN)
            threading.Event().wait(chance.uniform(0, 0.5))  # the moment of the fault
            name = chance.choice(list(faults))
            print(f"{number + 1}/{rounds} {name}", flush=True)  # noqa: T201 - this is its output
            faults[name]()
            for node in nodes:
                assert node.process.process.poll() is None, f"{node.name} ended\n{node.process.output}"
        load.wait_accepted(_BETWEEN)
    history = rig.check(_FINAL_S)
    return (
        f"sound: {len(history.tasks)} tasks, {len(history.bodies)} bodies, {len(history.attempts)} attempts that "
        f"committed no outcome, {len(history.submissions)} requests, {rig.kills} processes died"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Faults drawn by lot, under load; then the history is checked."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)  # noqa: T201 - this is its output
    with tempfile.TemporaryDirectory(prefix="noria-chaos-") as folder:
        record = Record(Path(folder) / "pg")
        record.start()
        with Stage(Path(folder) / "socket") as stage:
            rig = Rig(record, stage)
            try:
                print(run(rig, asked.seed, asked.rounds))  # noqa: T201 - this is its output
            finally:
                rig.close()
                record.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
