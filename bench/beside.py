"""One node beside PgQueuer, Dramatiq and Celery with one worker process each: `python -m bench peers[=ROUNDS]`.

No-op tasks with the same payload, as fast as they go in: to the node in batches over HTTP, each recorded with its result;
to the others in their fastest way, none of which records a result. In each round everything is measured once, one after
the other; a figure is the median over the rounds of the ratio within a round. CPU counts all processes, the producer too.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from statistics import median
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from bench.node import measure, post_batches
from bench.nodes import own_host, rabbit
from bench.peers_rig import Peer, installed, peer
from bench.rig import Rig, rig
from bench.table import Row, print_table

_ROUNDS: Final = 5
_TASKS: Final = 40_000
_PEER_TASKS: Final = {"PgQueuer": 30_000, "Dramatiq": 5_000, "Celery": 4_000}
_RATE_GOALS: Final = {"PgQueuer": 2.0, "Dramatiq": 5.0, "Celery": 12.0}
_CPU_GOALS: Final = {"PgQueuer": 0.6}
_Figures = dict[str, tuple[float, float]]  # tasks/s, CPU s per 10,000


async def beside(rounds: int = _ROUNDS) -> None:
    if refused := installed():
        raise SystemExit(refused)
    async with rig() as place, _peers(place) as peers:
        await _noria(place)
        measured = [await _round(number, place, peers) for number in range(rounds)]
    rows = [row for name in _PEER_TASKS for row in _rows(name, measured)]
    print_table(f"one node beside others: medians of {rounds} rounds", rows)


async def _round(number: int, place: Rig, peers: dict[str, Peer]) -> _Figures:
    figures = {"Noria": await _noria(place)}
    for name, each in peers.items():
        figures[name] = await each.run(_PEER_TASKS[name])
    texts = (f"{name} {rate:,.0f}/s at {cpu_s:.2f} s" for name, (rate, cpu_s) in figures.items())
    print(f"round {number + 1}: tasks/s and CPU s per 10,000: {', '.join(texts)}", flush=True)
    return figures


async def _noria(place: Rig) -> tuple[float, float]:
    figures = await measure(place, _TASKS, lambda session: post_batches(session, place.url, "noop", _TASKS))
    return figures.rate, sum(figures.cpu_s.values())


def _rows(name: str, measured: list[_Figures]) -> Iterator[Row]:
    rate = median(each["Noria"][0] / each[name][0] for each in measured)
    cpu = median(each["Noria"][1] / each[name][1] for each in measured)
    goal, its = _RATE_GOALS[name], f"{median(each[name][0] for each in measured):,.0f}/s"
    yield Row(f"rate / {name}'s", f">= {goal:g}", f"{rate:.1f}", rate >= goal, f"its own {its}")
    most = _CPU_GOALS.get(name)
    yield Row(
        f"CPU per task / {name}'s", "" if most is None else f"<= {most:g}", f"{cpu:.2f}", most and cpu <= most
    )


@contextlib.asynccontextmanager
async def _peers(place: Rig) -> AsyncIterator[dict[str, Peer]]:
    """PgQueuer on the node's PostgreSQL, in a database of its own; the others on a RabbitMQ."""
    connection = await asyncpg.connect(place.dsn)
    await connection.execute("CREATE DATABASE pgqueuer")
    await connection.close()
    dsn = urlsplit(place.dsn)._replace(path="/pgqueuer").geturl()
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(rabbit())
        started = {
            "PgQueuer": await stack.enter_async_context(
                peer("PgQueuer", place.postgres_pid, postgres_dsn=dsn)
            )
        }
        for name in ("Dramatiq", "Celery"):
            url = own_host(server, name)
            started[name] = await stack.enter_async_context(peer(name, server.pid, processes=1, amqp_url=url))
        yield started
