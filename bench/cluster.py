"""What the cluster costs: 1, 2 and 3 nodes over RabbitMQ, and Celery and Dramatiq on the same RabbitMQ.

    python -m bench cluster[=ROUNDS]

In each round everything is measured once, one after the other; a figure is the median over the rounds of the ratio
within a round, so that a machine that drifts or has other work to do moves both sides. CPU counts all processes but the
producer: nodes, PostgreSQL, RabbitMQ; what they use while nothing is to be done is taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import aiohttp
import orjson

from bench.figures import Cost, Round, lines_of, print_round
from bench.nodes import Nodes, nodes, own_host, rabbit
from bench.peers_rig import Peer, installed, peer
from bench.rig import busy_cpu_s, percentile, quiet_moment, tree_cpu_s, until_idle
from bench.table import print_table

PAYLOAD: Final = {
    "user_id": 123456,
    "email": "someone.with.a.name@example.org",
    "tags": ["alpha", "beta"],
    "note": "x" * 80,
}
_JSON: Final = {"Content-Type": "application/json"}
_ROUNDS: Final = 5
_BATCH: Final = 500
_PACED: Final = 6_000  # tasks, in batches of 250 at 2,000/s: everything finds room where it belongs
_PACED_BATCH: Final = 250
_PACE_S: Final = 0.125
_BURST: Final = 40_000
_PEER: Final = {"Dramatiq": 4_000, "Celery": 3_000}
_ASKED: Final = 200  # posted and waited for, at 100/s


class Bench:
    def __init__(
        self, places: dict[int, Nodes], peers: dict[str, Peer], session: aiohttp.ClientSession
    ) -> None:
        self._places = places
        self._two = places[2]
        self._peers = peers
        self._session = session
        self._idle: dict[str, float] = {}  # cores of the cluster of two

    async def warm_up(self) -> None:
        for place in self._places.values():
            await self._burst(place, 3_000)
        for owner in self._two.urls:
            await self._paced(2_000, owner)
        await self._latency("b")
        before, began_s = self._two.cpu_s(), time.monotonic()
        await asyncio.sleep(4.0)
        after, took_s = self._two.cpu_s(), time.monotonic() - began_s
        self._idle = {who: (after[who] - before[who]) / took_s for who in after}

    def cpu_s(self) -> float:
        """Of everything that runs for this benchmark."""
        own = os.times()
        roots = [pid for place in self._places.values() for pid in (*place.pids.values(), place.postgres_pid)]
        roots += [self._two.rabbit_pid or 0, *(each.worker.pid for each in self._peers.values())]
        return sum(own[:4]) + sum(map(tree_cpu_s, roots))

    async def round(self) -> Round:
        near, far = await self._latency("a"), await self._latency("b")
        accepted = await self._latency("b", wait=False)
        costs = [
            await self._paced(_PACED, "a"),
            await self._paced(_PACED, "b"),
            await self._paced(
                _PACED, "a", delay_s=0.001
            ),  # so that it is not born running, but waits and is pulled
        ]
        bursts = {count: await self._burst(place, _BURST) for count, place in self._places.items()}
        peers = {name: await each.run(_PEER[name]) for name, each in self._peers.items()}
        rates = {count: rate for count, (rate, _) in bursts.items()}
        return Round(
            *costs, near, far, accepted, rates, {count: cpu_s for count, (_, cpu_s) in bursts.items()}, peers
        )

    # -- one measurement ----------------------------------------------------------------------------

    async def _paced(self, count: int, owner: str, **options: Any) -> Cost:
        """Posted to a in batches, at a steady pace; all slots belong to `owner`."""
        place = self._two
        keys = list(itertools.islice(place.keys(owner), count))
        bodies = [_body(keys[n : n + _PACED_BATCH], **options) for n in range(0, count, _PACED_BATCH)]
        counted, before, began_s = await place.counters(self._session), place.cpu_s(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, body in enumerate(bodies):
                await asyncio.sleep(max(0.0, began_s + number * _PACE_S - time.monotonic()))
                group.create_task(self._post(place.urls["a"], body))
        await until_idle(place.dsn)
        after, took_s = place.cpu_s(), time.monotonic() - began_s
        used = {who: after[who] - before[who] - self._idle.get(who, 0.0) * took_s for who in after}
        return _cost(used, count, counted, await place.counters(self._session))

    async def _latency(self, owner: str, *, wait: bool = True) -> float:
        """Median ms from posted (to a) to its result, or to its 202 without `wait`, at 100 tasks/s; all slots belong to
        `owner`."""
        await quiet_moment()
        seen: list[float] = []
        url, status = f"{self._two.urls['a']}/v1/tasks", 202
        if wait:
            url, status = f"{url}?wait=10", 200

        async def one(key: str) -> None:
            body = orjson.dumps({"handler": "noop", "payload": {"data": PAYLOAD}, "idempotency_key": key})
            began_s = time.monotonic()
            async with self._session.post(url, data=body, headers=_JSON) as answer:
                if answer.status != status:
                    raise SystemExit(await answer.text())
                await answer.read()
            seen.append(time.monotonic() - began_s)

        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, key in enumerate(itertools.islice(self._two.keys(owner), _ASKED)):
                await asyncio.sleep(max(0.0, began_s + number / 100 - time.monotonic()))
                group.create_task(one(key))
        return percentile(seen, 50) * 1e3

    async def _burst(self, place: Nodes, count: int) -> tuple[float, float]:
        """As fast as it goes, to all nodes in turn: tasks/s to the last outcome, CPU s per 10,000 of all processes."""
        doors = itertools.cycle(place.urls.values())
        room = asyncio.Semaphore(8)
        body = _body([None] * _BATCH)

        async def one(url: str) -> None:
            async with room:
                await self._post(url, body)

        before, began_s = place.cpu_s(), time.monotonic()
        await asyncio.gather(*(one(next(doors)) for _ in range(count // _BATCH)))
        took_s = await until_idle(place.dsn) - began_s
        after = place.cpu_s()
        return count / took_s, sum(after[who] - before[who] for who in after) * 1e4 / count

    async def _post(self, url: str, body: bytes) -> None:
        while True:
            async with self._session.post(f"{url}/v1/tasks/batch", data=body, headers=_JSON) as answer:
                if answer.status in {200, 202}:
                    return
                if answer.status not in {429, 503}:
                    raise SystemExit(await answer.text())
                await asyncio.sleep(float(answer.headers["Retry-After"]))


def _body(keys: Iterable[str | None], **options: Any) -> bytes:
    task = {"handler": "noop", "payload": {"i": 1, "data": PAYLOAD}} | options
    return orjson.dumps({"tasks": [task if key is None else task | {"idempotency_key": key} for key in keys]})


Counters = dict[str, Counter[tuple[str, str]]]


def _cost(used_s: dict[str, float], count: int, before: Counters, after: Counters) -> Cost:
    via: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for node, counted in after.items():
        for (name, labels), value in counted.items():
            grown = value - before[node][name, labels]
            totals[name] += grown
            if name == "tasks_claimed_total" and grown:
                via[labels.partition('"')[2].rstrip('"')] += grown
    us = {who: seconds * 1e6 / count for who, seconds in used_s.items()}
    return Cost(us, via, totals["offer_messages_total"], totals["tasks_offered_total"])


# -- all of it --------------------------------------------------------------------------------------


async def cluster(rounds: int = _ROUNDS) -> None:
    refused = installed()
    async with _bench(None if refused else tuple(_PEER)) as bench:
        await bench.warm_up()
        busy_s, own_s, began_s = busy_cpu_s(), bench.cpu_s(), time.monotonic()
        measured = []
        for number in range(rounds):
            measured.append(await bench.round())
            print_round(number, measured[-1])
        took_s = time.monotonic() - began_s
        foreign = (busy_cpu_s() - busy_s - (bench.cpu_s() - own_s)) / took_s
    print(f"other work on this machine used {max(0.0, foreign):.2f} of {os.cpu_count()} cores meanwhile")
    print_table(f"cluster: medians of {rounds} rounds", lines_of(measured, refused))


@contextlib.asynccontextmanager
async def _bench(peers: tuple[str, ...] | None) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(rabbit())
        places = {count: await stack.enter_async_context(nodes(count, server)) for count in (1, 2, 3)}
        started = {}
        for name in peers or ():
            url = own_host(server, name)
            started[name] = await stack.enter_async_context(peer(name, server.pid, amqp_url=url))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Bench(places, started, session)
