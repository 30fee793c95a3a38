"""How long it takes, with the settings that are the default: three real nodes, PostgreSQL, RabbitMQ and etcd of their own.

    python -m tests.faults.figures [--times 3] [--waiting 1000000]

kill -9 until everything that ran there runs elsewhere · heartbeats stop until the ring is rebalanced · the share of the
slots that moves when one joins or leaves · what a change of the view writes with that many tasks waiting
"""

# ruff: noqa: T201 - what it prints is for people
from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from runtime.core.ring import build_table, moved
from runtime.core.slots import SLOTS
from tests.faults.load import Load
from tests.faults.rig import Node, Rig
from tests.faults.services import services
from tests.faults.stage import Stage
from tests.support.history import MOVED_SLACK, check
from tests.support.processes import wait_until

LEASE_S: Final = 6.0
HEARTBEAT_S: Final = 1.0
_WAIT_S: Final = 60.0
_HELD: Final = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.figures")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    asked = parser.parse_args()
    shares()
    with (
        services() as all_three,
        tempfile.TemporaryDirectory(prefix="noria-figures-") as folder,
        Stage(Path(folder) / "socket") as stage,
    ):
        rig = Rig(all_three, stage)
        try:
            for name in "abc":
                rig.node(name, start=False, LEASE_S=f"{LEASE_S:g}", HEARTBEAT_S=f"{HEARTBEAT_S:g}")
            rig.start_all()
            with Load(*rig.nodes[:2]):
                show(f"kill -9 → all its tasks run elsewhere (lease {LEASE_S:g} s, goal {LEASE_S + 2:g} s)",
                     [killed_s(rig, f"killed-{n}") for n in range(asked.times)])  # fmt: skip
                show(f"heartbeats stop → ring rebalanced (heartbeat {HEARTBEAT_S:g} s, goal 5 s)",
                     [stopped_s(rig) for _ in range(asked.times)])  # fmt: skip
            rig.wait_final(_WAIT_S)
            check(rig.history())
            writes(rig, asked.waiting)
        finally:
            rig.close()
    return 0


def show(what: str, seconds: list[float]) -> None:
    print(
        f"{what}: median {median(seconds):.1f} s of {len(seconds)}, {min(seconds):.1f} to {max(seconds):.1f}",
        flush=True,
    )


def shares() -> None:
    print("slots that move when one of N joins or leaves (goal: 1/N and 15 % of that)")
    for count in (2, 3, 4, 5, 8, 10):
        names = [f"node-{n}" for n in range(count)]
        tables = [build_table(dict.fromkeys(some, 1.0)) for some in (names[:-1], names)]
        share = len(moved(*tables)) / SLOTS
        print(f"  N = {count:2}: {share:6.2%}   1/N {1 / count:6.2%}, most {(1 + MOVED_SLACK) / count:6.2%}")


def wait_owners(seen_by: list[Node], owners: set[str]) -> None:
    wait_until(
        lambda: all({n for n, slots in one.slots().items() if slots} == owners for one in seen_by), _WAIT_S,
        lambda: f"{[one.ring() for one in seen_by]}",
    )  # fmt: skip


def rest(rig: Rig) -> None:
    """All run, and a lease has gone by without a fault."""
    rig.start_all()
    wait_owners(rig.nodes, {"a", "b", "c"})
    ask = "SELECT count(*) AS fit FROM noria.lease WHERE state < 8 AND unbroken_since < clock_timestamp() - interval '7 s'"
    wait_until(lambda: rig.sql(ask)[0]["fit"] >= 3, _WAIT_S, lambda: "leases are broken")


def killed_s(rig: Rig, name: str) -> float:
    rest(rig)
    victim = rig.nodes[2]
    rig.stage.hold(name)
    posts = zip(range(_HELD), itertools.cycle(rig.nodes))
    ids = [node.accepted("act", key=f"{name}-{n}", name=name) for n, node in posts]
    bodies = [rig.stage.wait_id(task_id) for task_id in ids]
    lost = [body for body in bodies if body.pid == victim.process.pid]
    victim.kill()
    began_s = time.monotonic()
    late = [rig.stage.wait_id(body.id, attempt=2, timeout_s=_WAIT_S) for body in lost]
    rig.stage.release(name)
    return max(body.started_s for body in late) - began_s


def stopped_s(rig: Rig) -> float:
    """Stopped for as long as it takes; back before its lease runs out, or dead: the time is that of the ring."""
    rest(rig)
    victim = rig.nodes[2]
    victim.freeze()
    began_s = time.monotonic()
    wait_owners(rig.nodes[:2], {"a", "b"})
    seconds = time.monotonic() - began_s
    victim.kill()
    return seconds


def writes(rig: Rig, waiting: int) -> None:
    rest(rig)
    assert rig.nodes[0].ask("POST", "/v1/handlers/huge/pause").status == 200
    [band] = rig.sql(
        "INSERT INTO noria.band (lane, keyed, handler, tenant) VALUES (1, false, 'huge', 'default') RETURNING id"
    )
    for first in range(0, waiting, 50_000):
        rig.sql(
            "INSERT INTO noria.waiting (id, due, seq, band, attempt, slot) SELECT gen_random_uuid(), clock_timestamp(),"
            " n, $1, 1, n % 4096 FROM generate_series($2::integer, $3::integer) n",
            band["id"], first, min(waiting, first + 50_000) - 1,
        )  # fmt: skip
    rig.sql("CHECKPOINT")
    look = (
        "SELECT count(*) AS rows, sum(hashtext(ctid::text || ' ' || xmin::text || ' ' || xmax::text)::bigint) AS sum,"
        " pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal FROM noria.waiting WHERE band = $1"
    )
    rig.sql(look, band["id"])  # the first look at a row may note that its transaction has committed
    before: Any = rig.sql(look, band["id"])[0]
    joiner = rig.node("d", LEASE_S=f"{LEASE_S:g}")
    wait_owners(rig.nodes, {"a", "b", "c", "d"})
    joiner.ask_to_drain()
    assert joiner.process.wait_exit(60) == 0, joiner.process.output
    wait_owners(rig.nodes[:3], {"a", "b", "c"})
    after: Any = rig.sql(look, band["id"])[0]
    untouched = "none of them was written or locked" if after["sum"] == before["sum"] else "ROWS WERE WRITTEN"
    kib = int(after["wal"] - before["wal"]) / 1024
    print(
        f"one joins and leaves while {before['rows']:,} tasks wait: {untouched}; {kib:,.0f} KiB of WAL in all"
    )


if __name__ == "__main__":
    sys.exit(main())
