"""Callers who know all nodes: each request goes to the next one until somebody takes it, and every answer is kept."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Self

from tests.faults.rig import ANSWER_S, Answer, Node, Rig

ACCEPTED: Final = frozenset({200, 202})
_PAUSE_S: Final = 0.02  # between a caller's requests: a load, not a benchmark
_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """`versioned`: nodes of another version may refuse it with 422, and another node is asked."""

    handler: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    versioned: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What a node answered. `why` where nothing came: 'refused' where nobody listens, 'reset' where the connection
    still waited to be accepted when the port was closed."""

    node: str
    request: Request
    status: int | None
    why: str
    leaving: bool  # the node was on its way out, away or on its way in


class Callers:
    """So many threads post `requests` in turn, each under a key and with a name of its own, until the block ends."""

    def __init__(
        self, rig: Rig, nodes: Sequence[Node], requests: Sequence[Request], clients: int = 3
    ) -> None:
        self._rig = rig
        self._numbers = count()
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._leaving: set[str] = set()
        self._failure: BaseException | None = None
        self.nodes = list(nodes)
        self.requests = tuple(requests)
        self.said: list[Said] = []
        self.ids: dict[str, list[str]] = {}  # of accepted tasks, by handler
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def wait_accepted(self, more: int, timeout_s: float = 30) -> None:
        """Until so many more have been accepted from now on."""

        def accepted() -> int:
            return sum(map(len, self.ids.values()))

        with self._news:
            goal = accepted() + more
            enough = self._news.wait_for(lambda: accepted() >= goal or self._failure is not None, timeout_s)
        assert enough, f"not {more} more accepted; the last answers: {self.said[-5:]}"

    @contextmanager
    def without(self, node: Node) -> Iterator[None]:
        """In this block the node may be away."""
        self._leaving.add(node.name)
        yield
        self._leaving.discard(node.name)

    def failed(self) -> list[Said]:
        """Answers that no caller should have met."""
        return [one for one in self.said if not self._is_right(one)]

    def _is_right(self, one: Said) -> bool:
        if one.leaving and (one.status == 503 or one.why in {"refused", "reset"}):
            return True
        return one.status in ACCEPTED or (one.status == 422 and one.request.versioned)

    # -- in threads ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                number = next(self._numbers)
                self._post(self.requests[number % len(self.requests)], number)
                self._stop.wait(_PAUSE_S)
        except BaseException as failure:  # noqa: BLE001 - raised again where the block ends
            self._failure = failure

    def _post(self, request: Request, number: int) -> None:
        payload = {"name": f"{request.handler}-{number}", **request.payload}
        body = {"handler": request.handler, "payload": payload}
        for turn in count(number):
            node = self.nodes[turn % len(self.nodes)]
            if self._ask(node, request, body, f"call-{number}"):
                return
            if self._stop.wait(_AGAIN_S):
                return

    def _ask(self, node: Node, request: Request, body: dict[str, Any], key: str) -> bool:
        leaving, asked_s = node.name in self._leaving, time.time()
        answer, why = post(node, body | {"idempotency_key": key})
        if answer.status != 422 or not request.versioned:
            self._rig.note(key, json.dumps(body, sort_keys=True), answer, asked_s)
        leaving = leaving or node.name in self._leaving
        with self._news:
            self.said.append(Said(node.name, request, answer.status, why, leaving))
            if answer.status in ACCEPTED:
                self.ids.setdefault(request.handler, []).append(answer.id)
            self._news.notify_all()
        return answer.status in ACCEPTED

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        if self._failure is not None:
            raise self._failure


def post(node: Node, body: Mapping[str, Any]) -> tuple[Answer, str]:
    """One POST /v1/tasks on a connection of its own; why there is no answer, where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=ANSWER_S)
    try:
        connection.request("POST", "/v1/tasks", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, json.loads(answer.read())), ""
    except ConnectionRefusedError:
        return Answer(None), "refused"
    except (ConnectionResetError, BrokenPipeError):
        return Answer(None), "reset"
    except (OSError, http.client.HTTPException) as broken:
        return Answer(None), repr(broken)
    finally:
        connection.close()
