"""How evenly three nodes share the work: `python -m bench load[=SECONDS]`, for each case.

Bodies wait 50 ms and each node runs 10 at a time, so 600/s is what three can do; cases run at half of that and near it.
Counted are the attempts that each node claimed, by the way they came. The most of one node over the average is printed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson

from bench.nodes import Nodes, nodes, rabbit
from bench.rig import until_idle
from bench.table import Row, print_table

_CONCURRENCY: Final = 10
_BODY_S: Final = 0.05
_NODES: Final = 3
_POST: Final = 10  # tasks in one request
_SECONDS: Final = 60.0
_JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Case:
    """`load` is relative to what all nodes can do. `on` names the node that owns all keys, `through` the one that all
    are posted to; None is all of them."""

    name: str
    load: float
    goal: float
    on: str | None = None
    through: str | None = None
    keyed: bool = True


CASES: Final = (
    Case("uniform keys, half load", 0.5, 1.15),
    Case("uniform keys, near saturation", 0.9, 1.15),
    Case("one handler, no keys, through one node", 0.9, 1.35, through="a", keyed=False),
    Case("all keys of one node", 0.9, 1.35, on="b"),
    Case("all keys of one node, through another", 0.9, 1.35, on="b", through="a"),
)


async def load(seconds: float = _SECONDS) -> None:
    with rabbit() as server:
        settings = {"NORIA_CONCURRENCY": str(_CONCURRENCY)}
        async with nodes(_NODES, server, **settings) as place, aiohttp.ClientSession() as session:
            await _run(place, session, Case("warm-up", 0.3, 0.0), 3.0)
            rows = [await _run(place, session, case, seconds) for case in CASES]
    print_table("load: most attempts of one node / average", rows)


async def _run(place: Nodes, session: aiohttp.ClientSession, case: Case, seconds: float) -> Row:
    before = await place.counters(session)
    rate = case.load * _NODES * _CONCURRENCY / _BODY_S
    took_s, count = await _post(place, session, case, rate, seconds)
    after = await place.counters(session)
    await until_idle(place.dsn)
    claimed = {name: after[name] - before[name] for name in after}
    by_node = {name: _claims(of) for name, of in claimed.items()}
    sums = {name: sum(vias.values()) for name, vias in by_node.items()}
    detail = "; ".join(
        f"{name} {sums[name]:,.0f} ({', '.join(f'{via} {n:.0f}' for via, n in sorted(vias.items()))})"
        for name, vias in by_node.items()
    )
    most = max(sums.values()) * len(sums) / max(1.0, sum(sums.values()))
    return Row(
        case.name, f"<= {case.goal}", f"{most:.2f}", most <= case.goal, f"{count / took_s:.0f}/s: {detail}"
    )


def _claims(counters: Counter[tuple[str, str]]) -> dict[str, float]:
    return {
        labels.partition('"')[2].rstrip('"'): n
        for (name, labels), n in counters.items()
        if name == "tasks_claimed_total"
    }


async def _post(
    place: Nodes, session: aiohttp.ClientSession, case: Case, rate: float, seconds: float
) -> tuple[float, int]:
    """At that rate for so long; seconds and tasks."""
    doors = itertools.cycle([place.urls[case.through]] if case.through else list(place.urls.values()))
    keys = place.keys(case.on)
    began_s, count = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while time.monotonic() - began_s < seconds:
            group.create_task(_send(session, next(doors), _body(case, keys)))
            count += _POST
            await asyncio.sleep(max(0.0, began_s + count / rate - time.monotonic()))
    return time.monotonic() - began_s, count


def _body(case: Case, keys: Iterator[str]) -> bytes:
    one = {"handler": "io", "payload": {}}
    tasks = [one | {"idempotency_key": next(keys)} if case.keyed else one for _ in range(_POST)]
    return orjson.dumps({"tasks": tasks})


async def _send(session: aiohttp.ClientSession, url: str, body: bytes) -> None:
    async with session.post(f"{url}/v1/tasks/batch", data=body, headers=_JSON) as answer:
        if answer.status != 202:
            raise SystemExit(await answer.text())
