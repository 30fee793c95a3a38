"""`python -m tests.simulation.replay SEED [COUNT]`: one history in full, or whether COUNT seeds from there on hold."""

from __future__ import annotations

import logging
import sys

from tests.simulation.sim_handlers import registry
from tests.simulation.sim_store import Violation
from tests.simulation.sim_world import simulate


def main(first: int, rest: list[str]) -> int:
    logging.lastResort = None
    handlers, count = registry(), int(rest[0]) if rest and rest[0].isdigit() else 1
    for seed in range(first, first + count):
        try:
            record = simulate(seed, handlers, None if rest else lambda line: sys.stdout.write(line + "\n"))
        except Violation as violation:
            sys.stdout.write(f"{violation}\n")
            return 1
        if rest == ["--fingerprint"]:
            sys.stdout.write(f"{record.fingerprint}\n")
        if count > 1 and (seed - first + 1) % 100 == 0:
            sys.stdout.write(f"{seed - first + 1} of {count} worlds are sound\n")
            sys.stdout.flush()
    if count > 1:
        sys.stdout.write(f"seeds {first} to {first + count - 1}: every promise was kept\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
