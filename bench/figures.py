"""What the rounds of the cluster's benchmark come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.table import Row

_PEER_GOALS: Final = {"Dramatiq": 5, "Celery": 12}  # times as fast as they are


@dataclass(slots=True)
class Cost:
    """Of one task: microseconds of CPU by process, and how its attempt came to its node."""

    cpu_us: dict[str, float]
    via: Counter[str]
    messages: float = 0.0  # with offers
    offered: float = 0.0  # ids in them

    @property
    def total_us(self) -> float:
        return sum(us for who, us in self.cpu_us.items() if who != "producer")


@dataclass(slots=True)
class Round:
    born: Cost
    offered: Cost
    pulled: Cost
    near_ms: float  # posted to its result
    far_ms: float
    accepted_ms: float
    rates: dict[int, float]  # tasks/s by number of nodes
    cpu_s: dict[int, float]  # s per 10,000 tasks, the producer too
    peers: dict[str, tuple[float, float]]  # the same two


def print_round(number: int, one: Round) -> None:
    costs = ", ".join(
        f"{name} {cost.total_us:.0f}"
        for name, cost in (("born", one.born), ("offered", one.offered), ("waited", one.pulled))
    )
    rates = ", ".join(f"{count}: {rate:,.0f}" for count, rate in one.rates.items())
    peers = ", ".join(f"{name} {rate:,.0f}" for name, (rate, _) in one.peers.items())
    print(
        f"round {number + 1}: us a task: {costs}; ms: near {one.near_ms:.1f}, far {one.far_ms:.1f}, accepted {one.accepted_ms:.1f}; "
        f"tasks/s by nodes: {rates}; {peers}",
        flush=True,
    )


def lines_of(rounds: list[Round], refused: str | None) -> list[Row]:
    """`refused` says why there are no peers."""
    return [*_costs(rounds), *_latencies(rounds), *_rates(rounds), *_peers(rounds, refused)]


def _costs(rounds: list[Round]) -> Iterator[Row]:
    waited = median(r.offered.total_us / r.pulled.total_us for r in rounds)
    born = median(r.offered.total_us / r.born.total_us for r in rounds)
    share = median(r.offered.cpu_us["RabbitMQ"] / r.offered.total_us for r in rounds)
    ids = median(r.offered.offered / max(1.0, r.offered.messages) for r in rounds)
    via = sum((r.offered.via for r in rounds), Counter[str]())
    mix = ", ".join(f"{name} {n / via.total():.0%}" for name, n in sorted(via.items()))
    goal = "<= 1.15"
    yield Row(
        "CPU of a task offered / claimed where accepted", goal, f"{waited:.2f}", waited <= 1.15,
        f"{ids:.0f} ids in a message; {mix}",
    )  # fmt: skip
    yield Row(
        "CPU of a task offered / born running", goal, f"{born:.2f}", born <= 1.15, "a birth needs no claim"
    )
    yield Row("RabbitMQ's share of the CPU of a task offered", "< 10 %", f"{share:.1%}", share < 0.1)


def _latencies(rounds: list[Round]) -> Iterator[Row]:
    near, far, accepted = (
        median(values)
        for values in (
            [r.near_ms for r in rounds],
            [r.far_ms for r in rounds],
            [r.accepted_ms for r in rounds],
        )
    )
    best = min(r.far_ms - r.accepted_ms for r in rounds)
    figure = far - accepted
    yield Row(
        "p50 accepted -> result at 100/s, another node's", "<= 8 ms", f"{figure:.1f} ms", figure <= 8.0,
        f"best round {best:.1f}; posted -> accepted {accepted:.1f}, posted -> result {far:.1f}, the node's own {near:.1f}",
    )  # fmt: skip


def _rates(rounds: list[Round]) -> Iterator[Row]:
    two, three = (median(r.rates[count] / r.rates[1] for r in rounds) for count in (2, 3))
    cpu = median(r.cpu_s[2] / r.cpu_s[1] for r in rounds)
    one = f"{median(r.rates[1] for r in rounds):,.0f}/s with one; {cpu:.2f} x its CPU per task"
    yield Row("rate of 2 nodes / of 1", ">= 1", f"{two:.2f}", two >= 1.0, one)
    yield Row("rate of 3 nodes / of 1", "", f"{three:.2f}", None)


def _peers(rounds: list[Round], refused: str | None) -> Iterator[Row]:
    for name, goal in _PEER_GOALS.items():
        if refused:
            yield Row(f"rate of 2 nodes / of {name}", f">= {goal}", "left out", None, refused)
            continue
        rate = median(r.rates[2] / r.peers[name][0] for r in rounds)
        cpu = median(r.peers[name][1] / r.cpu_s[2] for r in rounds)
        detail = f"{median(r.peers[name][0] for r in rounds):,.0f}/s; a task there takes {cpu:.1f} x the CPU"
        yield Row(f"rate of 2 nodes / of {name}", f">= {goal}", f"{rate:.1f}", rate >= goal, detail)
