"""`python -m tests.simulation.replay SEED [COUNT]`: one history in full, or whether COUNT seeds from there on hold."""

from __future__ import annotations

import logging
import sys
from collections import Counter

from tests.simulation.sim_history import Violation
from tests.simulation.sim_world import simulate

_PROGRESS_EVERY = 100


def main(first: int, rest: list[str]) -> int:
    logging.lastResort = None
    if rest == ["--fingerprint"]:
        print(simulate(first).history.fingerprint)  # noqa: T201 - a command
        return 0
    if not rest:
        return _replay(first)
    return _run(first, int(rest[0]))


def _replay(seed: int) -> int:
    try:
        simulate(seed, lambda line: sys.stdout.write(line + "\n"))
    except Violation as violation:
        sys.stdout.write(f"{violation}\n".partition("\n")[0] + "\n")
        return 1
    return 0


def _run(first: int, count: int) -> int:
    totals: Counter[str] = Counter()
    for done, seed in enumerate(range(first, first + count), start=1):
        try:
            totals += simulate(seed).history.counts
        except Violation as violation:
            sys.stdout.write(f"{violation}\n")
            return 1
        if done % _PROGRESS_EVERY == 0:
            sys.stdout.write(f"{done} of {count} worlds are sound\n")
            sys.stdout.flush()
    sys.stdout.write(f"seeds {first} to {first + count - 1}: every promise was kept, while there were\n")
    for name, number in sorted(totals.items()):
        sys.stdout.write(f"{number:12,} {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
