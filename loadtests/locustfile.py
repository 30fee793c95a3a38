"""The callers. Which class runs is chosen on the command line:

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 SinglePosts

The cluster must have loadtests/handlers.py loaded. `--hosts` names further nodes; `--journal` a file in which every
request and its answer is noted. All keys are new with each start. What is not accepted is sent again with the same
key, to another node, as the contract says; each try is a request of its own in all figures.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gevent
import orjson
from journal import Entry, Journal
from locust import FastHttpUser, between, constant, events, task

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from locust.env import Environment

JSON: Final = {"Content-Type": "application/json"}
TEXT: Final = "x" * 120
BATCH: Final = 100
SAME: Final = 24  # posts of one key, by whoever comes
WAIT_S: Final = 10
ANSWER_S: Final = 20.0  # a node answers within seconds, and a wait within WAIT_S
TRY_FOR_S: Final = 15.0
AWAY_S: Final = 1.0  # how long a node that did not answer is left alone
PAUSE_S: Final = 0.2
KNOWN_MAX: Final = 10_000
LANES: Final = ("high", *["medium"] * 3, *["low"] * 6)

RUN: Final = f"{time.time_ns():x}"
NUMBERS: Final = count()


@dataclass(slots=True)
class Place:
    """Where the requests go, for all callers of this process."""

    urls: list[str]
    away_until_s: list[float]
    journal: Journal | None
    turns: Any

    def choose(self) -> int:
        """The next node in turn that answered lately; any when none did."""
        now_s = time.monotonic()
        for _ in self.urls:
            node = next(self.turns) % len(self.urls)
            if self.away_until_s[node] <= now_s:
                return node
        return next(self.turns) % len(self.urls)


place = Place([], [], None, count())


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--hosts", default="", help="URLs of all nodes, separated by commas (default: --host)"
    )
    parser.add_argument(
        "--journal", default="", help="file to which every request and its answer is appended"
    )


@events.init.add_listener
def _begin(environment: Environment, **_: object) -> None:
    options = environment.parsed_options
    place.urls = [url for url in options.hosts.split(",") if url] or [options.host or environment.host]
    place.away_until_s = [0.0] * len(place.urls)
    place.journal = Journal(Path(options.journal)) if options.journal else None


class Caller(FastHttpUser):
    """Posts tasks until they are accepted, and notes what it was told."""

    abstract = True
    network_timeout = ANSWER_S
    connection_timeout = 2.0
    wait_time = constant(0)

    def post(self, path: str, handler: str, keys: list[str], body: dict[str, Any]) -> Entry:
        """The same again until it is accepted, refused for good, or TRY_FOR_S have passed; the last try."""
        data = orjson.dumps(body)
        until_s = time.monotonic() + TRY_FOR_S
        while True:
            entry = self._try(path, handler, keys, data)
            if entry.status not in {None, 429, 503} or time.monotonic() > until_s:
                return entry
            gevent.sleep(PAUSE_S)

    def _try(self, path: str, handler: str, keys: list[str], data: bytes) -> Entry:
        node = place.choose()
        entry = Entry(time.time(), 0.0, node, handler, keys)
        began_s = time.perf_counter()
        try:
            with self.client.post(
                place.urls[node] + path, data=data, headers=JSON, name=path, catch_response=True
            ) as answer:
                entry.took_s = time.perf_counter() - began_s
                _read(entry, answer)
        except gevent.GreenletExit:  # the time is over; whether it was stored is not known
            entry.cut = True
            raise
        finally:
            entry.took_s = entry.took_s or time.perf_counter() - began_s
            if entry.status is None:
                place.away_until_s[node] = time.monotonic() + AWAY_S
            if place.journal is not None:
                place.journal.note(entry)
        return entry


def _read(entry: Entry, answer: Any) -> None:
    """Fill in what was answered, and tell Locust what is wrong with it."""
    if not answer.status_code or answer.content is None:
        return
    body = orjson.loads(answer.content)
    entry.retry_after = bool(answer.headers.get("Retry-After"))
    if answer.status_code in {200, 202}:
        tasks = body.get("tasks", [body])
        entry.ids = [one["id"] for one in tasks]
        entry.new = [not one["duplicate"] for one in tasks]
        if len(entry.ids) != len(entry.keys):
            answer.failure(f"{len(entry.keys)} tasks asked for, {len(entry.ids)} answered")
    entry.status = answer.status_code  # last: what could not be read was no answer


def _key() -> tuple[str, int]:
    n = next(NUMBERS)
    return f"{RUN}-{n}", n


class SinglePosts(Caller):
    """One POST per task. Closed: each caller posts again as soon as it is answered. Expected: every answer is 202."""

    @task
    def one(self) -> None:
        key, n = _key()
        body = {"handler": "load.note", "payload": {"n": n, "text": TEXT}, "idempotency_key": key}
        self.post("/v1/tasks", "load.note", [key], body)


class Batches(Caller):
    """Batches of 100. Closed. Expected: more comes in than can be run at once; it waits in PostgreSQL and drains."""

    @task
    def batch(self) -> None:
        named = [_key() for _ in range(BATCH)]
        tasks = [
            {"handler": "load.note", "payload": {"n": n, "text": TEXT}, "idempotency_key": key}
            for key, n in named
        ]
        self.post("/v1/tasks/batch", "load.note", [key for key, _ in named], {"tasks": tasks})


class PostAndWait(Caller):
    """One POST that is answered with the outcome. Callers pause: about 5 a second each. Expected: 200, within milliseconds."""

    wait_time = between(0.1, 0.3)

    @task
    def one(self) -> None:
        key, n = _key()
        body = {"handler": "load.note", "payload": {"n": n, "text": TEXT}, "idempotency_key": key}
        self.post(f"/v1/tasks?wait={WAIT_S}", "load.note", [key], body)


class DuplicateStorm(Caller):
    """Each key is posted 24 times by whoever comes, all at once. Closed. Expected: one 202, and 200 with its id after."""

    _seen: OrderedDict[str, str] = OrderedDict()  # noqa: RUF012 - shared by all callers on purpose

    @task
    def one(self) -> None:
        n = next(NUMBERS) // SAME
        key = f"{RUN}-storm-{n}"
        body = {"handler": "load.note", "payload": {"n": n, "text": TEXT}, "idempotency_key": key}
        found = self.post("/v1/tasks", "load.note", [key], body).ids
        if found and self._seen.setdefault(key, found[0]) != found[0]:
            wrong = AssertionError(f"{key} is task {self._seen[key]} and task {found[0]}")
            self.environment.events.request.fire(
                request_type="CHECK",
                name="one key, one id",
                response_time=0,
                response_length=0,
                exception=wrong,
            )
        while len(self._seen) > KNOWN_MAX:
            self._seen.popitem(last=False)


class MixedPriorities(Caller):
    """Batches of 20 of which 2 are high, 6 medium, 12 low; each takes 200 ms. Callers pause: about 4
    batches a second each. Expected: with 20 callers and more a backlog grows, low waits, high does not."""

    wait_time = between(0.15, 0.35)

    @task
    def batch(self) -> None:
        tasks = []
        for lane in LANES * 2:
            key, n = _key()
            payload = {"n": n, "ms": 200}
            tasks.append(
                {"handler": "load.rest", "payload": payload, "priority": lane, "idempotency_key": key}
            )
        keys = [one["idempotency_key"] for one in tasks]
        self.post("/v1/tasks/batch", "load.rest", keys, {"tasks": tasks})


class Orders(Caller):
    """Tasks of 50 ms that each make a receipt; one of 50 asks to be run again. Callers pause: about 9 a second each.
    Expected, with nodes killed: broken answers at that moment, one receipt per order in the end."""

    wait_time = between(0.05, 0.15)

    @task
    def one(self) -> None:
        key, n = _key()
        body = {"handler": "load.order", "payload": {"n": n, "ms": 50}, "idempotency_key": key}
        self.post("/v1/tasks", "load.order", [key], body)
