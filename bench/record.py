"""What one task costs the record: CPU microseconds of PostgreSQL and of this process, by step.

    python -m bench.record [--dsn postgresql://…] [--tasks 50000] [--batch 500]

CPU counts every process of the server (read from /proc, so it has to run on this machine), wall time the
calls alone. Without --dsn an own embedded server is started, with fsync on. Ratios count; absolute figures
drift with the machine.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import uvloop

from runtime.adapters.embedded import EmbeddedPostgres
from runtime.adapters.postgres import PostgresStore, migrate
from runtime.core.ids import ENTROPY_BYTES, IdSequence
from runtime.core.task import BandKey, Claim, Finish, Lane, NewTask, Settlement, Status, Stored, Take

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_LONG_S: Final = 3600.0


@dataclass
class Meter:
    """Adds up what happens inside `measure`."""

    server: int
    rows: int = 0
    wall_s: float = 0.0
    own_s: float = 0.0
    server_s: float = 0.0

    async def measure(self, rows: int, work: Callable[[], Awaitable[None]]) -> None:
        server = server_cpu_s(self.server)  # outermost: reading /proc is not part of it
        wall, own = time.perf_counter(), time.process_time()
        await work()
        self.own_s += time.process_time() - own
        self.wall_s += time.perf_counter() - wall
        self.server_s += server_cpu_s(self.server) - server
        self.rows += rows

    def line(self, name: str) -> str:
        each = 1e6 / max(1, self.rows)
        return (
            f"{name:<22}{self.rows:>9,}{self.server_s * each:>14.1f}{self.own_s * each:>14.1f}"
            f"{self.wall_s * each:>14.1f}"
        )


def server_cpu_s(postmaster: int) -> float:
    """CPU seconds of the postmaster and its living and reaped children."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(folder.name) == postmaster:
                total += sum(map(int, fields[11:15])) * _TICK_S
            elif int(fields[1]) == postmaster:
                total += sum(map(int, fields[11:13])) * _TICK_S
    return total


def tasks(
    ids: IdSequence, band: int, count: int, *, keyed: bool, born_on: int | None = None
) -> list[NewTask]:
    made = ids.take(time.time_ns() // 1_000_000, os.urandom(ENTROPY_BYTES * count))
    return [
        NewTask(
            id=one,
            band=band,
            slot=one.int & 4095,
            payload=b'{"url":"https://example.org/a/b/c","depth":3}',
            max_attempts=3,
            timeout_s=300.0,
            idempotency_key=f"order-{one.hex}" if keyed else None,
            digest=one.bytes * 2 if keyed else None,
            born_on=born_on,
        )
        for one in made
    ]


class Bench:
    def __init__(self, store: PostgresStore, postmaster: int, batch: int, count: int) -> None:
        self._store = store
        self._server = postmaster
        self._batch = batch
        self._count = count
        self._ids = IdSequence()
        self.band = 0
        self.me = 0

    async def set_up(self) -> None:
        self.me = await self._store.join("bench", _LONG_S, {})
        [band] = await self._store.intern([BandKey("bench", Lane.MEDIUM)])
        self.band = band.id

    def meter(self) -> Meter:
        return Meter(self._server)

    async def accept(self, *, keyed: bool, group: int, born: bool = False) -> tuple[Meter, list[Stored]]:
        meter = self.meter()
        stored: list[Stored] = []
        for _ in range(self._count // self._batch):
            batch = tasks(self._ids, self.band, self._batch, keyed=keyed, born_on=self.me if born else None)
            groups = [batch[start : start + group] for start in range(0, len(batch), group)]

            async def work(groups: Sequence[Sequence[NewTask]] = groups) -> None:
                for answers in await self._store.accept(groups):
                    stored.extend(answer for answer in answers if isinstance(answer, Stored))

            await meter.measure(self._batch, work)
        return meter, stored

    async def claim(self, offers: Sequence[tuple[Stored, int]]) -> tuple[Meter, list[Claim]]:
        meter, claims = self.meter(), []
        for start in range(0, len(offers), self._batch):
            some = [(stored.id, attempt) for stored, attempt in offers[start : start + self._batch]]

            async def work(some: Sequence[tuple] = some) -> None:  # type: ignore[type-arg]  # as claim takes them
                claims.extend(await self._store.claim(some, self.me))

            await meter.measure(len(some), work)
        return meter, claims

    async def pull(self) -> tuple[Meter, list[Claim]]:
        meter, claims = self.meter(), []
        for _ in range(self._count // self._batch):

            async def work() -> None:
                claims.extend(await self._store.pull([Take(self.band, self._batch)], self.me))

            await meter.measure(self._batch, work)
        return meter, claims

    async def settle(self, attempts: Sequence[tuple]) -> Meter:  # type: ignore[type-arg]  # (id, attempt)
        meter = self.meter()
        move = Finish(status=Status.SUCCEEDED, result=b'{"ok":true}')
        for start in range(0, len(attempts), self._batch):
            some = [
                Settlement(i, attempt, self.me, move) for i, attempt in attempts[start : start + self._batch]
            ]

            async def work(some: Sequence[Settlement] = some) -> None:
                verdicts = await self._store.settle(some)
                if any(verdicts):
                    raise RuntimeError("a settlement was not committed")

            await meter.measure(len(some), work)
        return meter


async def run(dsn: str, count: int, batch: int) -> None:
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    folder = await connection.fetchval("SHOW data_directory")
    version = await connection.fetchval("SHOW server_version")
    await connection.close()
    postmaster = int((Path(folder) / "postmaster.pid").read_text().split()[0])
    async with PostgresStore.open(dsn) as store:
        bench = Bench(store, postmaster, batch, count)
        await bench.set_up()
        gc.freeze()  # as a node does
        print(f"PostgreSQL {version}, {count:,} tasks a step, batches of {batch}; microseconds a task")
        print(f"{'step':<22}{'tasks':>9}{'PostgreSQL CPU':>14}{'Python CPU':>14}{'wall':>14}")
        sums: list[tuple[str, tuple[Meter, ...]]] = []
        for keyed, group in ((False, 1), (True, 1), (True, batch)):
            name = "accept" + (" keyed" if keyed else "") + (" whole" if group > 1 else "")
            accepted, stored = await bench.accept(keyed=keyed, group=group)
            print(accepted.line(name))
            claimed, claims = await bench.claim([(one, 1) for one in stored])
            print(claimed.line("claim"))
            settled = await bench.settle([(claim.id, claim.attempt) for claim in claims])
            print(settled.line("settle"))
            sums.append((name, (accepted, claimed, settled)))
        accepted, stored = await bench.accept(keyed=False, group=1)
        pulled, claims = await bench.pull()
        print(pulled.line("pull"))
        settled = await bench.settle([(claim.id, claim.attempt) for claim in claims])
        sums.append(("accept, pull", (accepted, pulled, settled)))
        born, stored = await bench.accept(keyed=False, group=1, born=True)
        print(born.line("accept born running"))
        settled = await bench.settle([(one.id, 1) for one in stored])
        sums.append(("born running", (born, settled)))
        for name, meters in sums:
            whole = Meter(postmaster, count)
            whole.wall_s, whole.own_s = sum(m.wall_s for m in meters), sum(m.own_s for m in meters)
            whole.server_s = sum(m.server_s for m in meters)
            print(whole.line(f"all: {name}"))


async def main(dsn: str | None, count: int, batch: int) -> None:
    async with AsyncExitStack() as stack:
        if dsn is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noria-bench-")))
            postgres = EmbeddedPostgres(folder / "data")
            dsn = await postgres.start()
            stack.push_async_callback(postgres.stop)
        await run(dsn, count, batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dsn")
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=500)
    options = parser.parse_args()
    uvloop.run(main(options.dsn, options.tasks, options.batch))
