"""Checks a history of a cluster, as `make chaos` writes it: one JSON object per line (tests/support/events.py).

    python -m tests.faults.check FILE [--unfinished]

Prints what is in it and what is wrong with it. Exit code 1 when something is.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.support.events import read_events
from tests.support.history import RULES, History, violations


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.check", description="Check a history.")
    parser.add_argument("file", type=Path, help="JSON lines, one event each")
    parser.add_argument(
        "--unfinished", action="store_true", help="faults have not healed, so tasks may still be open"
    )
    asked = parser.parse_args()
    events = list(read_events(asked.file))
    counts = Counter(type(event).__name__.lower() for event in events)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))  # noqa: T201 - its output
    found = violations(History.of(events, final=not asked.unfinished))
    for line in found:
        print(f"WRONG {line}")  # noqa: T201 - its output
    if not found:
        print(f"sound: all {len(RULES)} rules hold")  # noqa: T201 - its output
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
