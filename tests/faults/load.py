"""Clients that go on whatever happens: every task has a key, and what got no answer is sent again."""

from __future__ import annotations

import threading
import time
from itertools import count
from typing import Any, Final, Self

from tests.faults.rig import Answer, Node

HANDLERS: Final = ("act", "quick", "act_in_thread", "fails", "counter.add", "lasts")
ACTORS: Final = 7  # keys
_PAUSE_S: Final = 0.02  # between a client's requests: a load, not a benchmark
_REPEAT_S: Final = 0.1


class Load:
    """`clients` threads post to the nodes in turn until the block ends, each task for as long as nobody has accepted
    it; every answered request is counted. `cancelled_every` such a number, a task is due later, and cancelled."""

    def __init__(self, *nodes: Node, clients: int = 3, cancelled_every: int = 0) -> None:
        self._nodes = nodes
        self._cancelled_every = cancelled_every
        self._numbers = count()
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._failure: BaseException | None = None
        self._accepted = 0
        self.answers: list[Answer] = []
        self.unanswered: list[tuple[str, str]] = []  # (handler, key) whose client gave up at the end
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    @property
    def accepted(self) -> int:
        with self._news:
            return self._accepted

    def wait_accepted(self, more: int, timeout_s: float = 30) -> None:
        """Until so many more have been answered 2xx from now on."""
        goal = self.accepted + more
        with self._news:
            enough = self._news.wait_for(lambda: self._accepted >= goal, timeout_s)
        assert enough, f"{self.accepted} of {goal} accepted; the last answers: {self.answers[-3:]}"

    def wait_answers(self, *, until_s: float) -> None:
        """Let the clients go on until then (time.monotonic), and see that they are answered, whatever it is."""
        seen = len(self.answers)
        with self._news:
            self._news.wait_for(lambda: time.monotonic() >= until_s, max(0.0, until_s - time.monotonic()))
        assert len(self.answers) > seen, "nobody was answered"

    def _run(self, client: int) -> None:
        try:
            while not self._stop.is_set():
                number = next(self._numbers)
                if self._cancelled_every and number % self._cancelled_every == 0:
                    self._post_and_cancel(number + client, f"cancelled-{number}")
                else:
                    handler = HANDLERS[number % len(HANDLERS)]
                    keyed = {"_actor_key": f"k{number % ACTORS}"} if handler == "counter.add" else {}
                    self._post(number + client, handler, f"load-{number}", **keyed)
                self._stop.wait(_PAUSE_S)
        except BaseException as failure:  # noqa: BLE001 - raised again where the block ends
            self._failure = failure

    def _post_and_cancel(self, first: int, key: str) -> None:
        """It may begin before the request to cancel comes, or be over."""
        task_id = self._post(first, "act", key, _delay_s=0.1)
        if task_id is not None:
            self._nodes[(first + 1) % len(self._nodes)].cancel(task_id)

    def _post(self, first: int, handler: str, key: str, **options: Any) -> str | None:
        """The same again, by the next node, until it is answered, as the contract says. Its id."""
        fields: dict[str, Any] = options if handler == "quick" else {"name": key, **options}
        for nth in count(first):
            answer = self._nodes[nth % len(self._nodes)].post(handler, key=key, **fields)
            accepted = answer.status in {200, 202}
            with self._news:
                self.answers.append(answer)
                self._accepted += accepted
                self._news.notify_all()
            if accepted:
                return answer.id
            assert answer.status in {None, 503}, f"{handler} {key}: {answer}"
            if self._stop.wait(_REPEAT_S):
                self.unanswered.append((handler, key))
                return None
        raise AssertionError("counting never ends")

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
