"""Node processes on one database of the fault tests' record, a client that notes every answer, and the history."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from tests.faults.record import Record
from tests.faults.stage import Stage
from tests.support.history import (
    SUCCEEDED,
    Attempt,
    History,
    Member,
    Outcome,
    Stored,
    Submission,
    check,
)
from tests.support.processes import Spawned, free_port, node, wait_until, wait_url

HANDLERS: Final = Path(__file__).with_name("staged_handlers.py")
LEASE_S: Final = 2.0
ANSWER_S: Final = 10.0  # a client's patience; a node answers in 3


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` None: the connection broke, was refused, or nothing came in time."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    took_s: float = 0.0

    @property
    def id(self) -> str:
        return str(self.body["id"])


def ask(port: int, method: str, path: str, body: Any = None, *, timeout_s: float = ANSWER_S) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    data = None if body is None else json.dumps(body).encode()
    began_s = time.monotonic()
    try:
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException):
        return Answer(None, took_s=time.monotonic() - began_s)
    finally:
        connection.close()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    is_json = "json" in headers.get("content-type", "")
    return Answer(answer.status, headers, json.loads(text) if is_json else text, time.monotonic() - began_s)


class Node:
    """One node name: its process may end and be started again, on the same port."""

    def __init__(self, rig: Rig, name: str, settings: Mapping[str, str]) -> None:
        self._rig = rig
        self._stack = ExitStack()
        self.name = name
        self.port = free_port()
        self._environment = {
            "NORIA_POSTGRES_DSN": rig.dsn,
            "NORIA_HANDLERS": str(HANDLERS),
            "NORIA_NODE_NAME": name,
            "NORIA_HTTP_PORT": str(self.port),
            "NORIA_LEASE_S": f"{LEASE_S:g}",
            "NORIA_CPU_PROCESSES": "1",
            "NORIA_TEST_STAGE": str(rig.stage.path),
            **{f"NORIA_{setting}": value for setting, value in settings.items()},
        }
        self.process: Spawned
        self.incarnation = 0

    def start(self, *, wait: bool = True) -> None:
        """Start the process; `wait` until it serves."""
        self.process = self._stack.enter_context(node(self._environment))
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        wait_url(f"http://127.0.0.1:{self.port}/readyz", process=self.process, timeout_s=30)
        rows = self._rig.sql("SELECT max(incarnation) AS own FROM noria.lease WHERE node = $1", self.name)
        self.incarnation = rows[0]["own"]

    def kill(self) -> None:
        """kill -9. The incarnation may be declared dead from now on."""
        self._rig.faulted.add(self.incarnation)
        self._rig.kills += 1
        self.process.kill()

    def died(self, code: int, timeout_s: float = 20) -> None:
        """Wait for its own death with this return code."""
        self._rig.faulted.add(self.incarnation)
        self._rig.kills += 1
        found = self.process.wait_exit(timeout_s)
        assert found == code, f"ended with {found}, not {code}\n{self.process.output}"

    def freeze(self) -> None:
        self._rig.faulted.add(self.incarnation)
        self._rig.frozen.add(self.process.pid)
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        self._stack.close()

    # -- as a client ---------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = ANSWER_S) -> Answer:
        return ask(self.port, method, path, body, timeout_s=timeout_s)

    def post(
        self, handler: str, *, key: str | None = None, timeout_s: float = ANSWER_S, **fields: Any
    ) -> Answer:
        """Submit one task and note the answer. `fields` beside the payload begin with `_`: _delay_s=1."""
        options = {name[1:]: value for name, value in fields.items() if name.startswith("_")}
        payload = {name: value for name, value in fields.items() if not name.startswith("_")}
        body = {"handler": handler, "payload": payload, **options}
        answer = self.ask(
            "POST", "/v1/tasks", body | ({"idempotency_key": key} if key else {}), timeout_s=timeout_s
        )
        self._rig.note(key, json.dumps(body, sort_keys=True), answer)
        return answer

    def post_batch(self, tasks: list[dict[str, Any]], *, timeout_s: float = ANSWER_S) -> Answer:
        """Submit many and note what each came to."""
        answer = self.ask("POST", "/v1/tasks/batch", {"tasks": tasks}, timeout_s=timeout_s)
        found = answer.body["tasks"] if answer.status in {200, 202} else [None] * len(tasks)
        for task, one in zip(tasks, found, strict=True):
            request = dict(task)
            key = request.pop("idempotency_key", None)
            self._rig.note(
                key, json.dumps(request, sort_keys=True), Answer(answer.status, answer.headers, one)
            )
        return answer

    def accepted(self, handler: str, *, key: str | None = None, **fields: Any) -> str:
        """The id of a task that must be accepted."""
        answer = self.post(handler, key=key, **fields)
        assert answer.status in {200, 202}, f"{answer}\n{self.process.output}"
        return answer.id

    def view(self, task_id: str, wait_s: float = 0) -> Any:
        answer = self.ask("GET", f"/v1/tasks/{task_id}?wait={wait_s:g}", timeout_s=ANSWER_S + wait_s)
        assert answer.status == 200, f"{answer}\n{self.process.output}"
        return answer.body

    def attempts(self, task_id: str) -> list[Any]:
        answer = self.ask("GET", f"/v1/tasks/{task_id}/attempts")
        assert answer.status == 200, answer
        found: list[Any] = answer.body["attempts"]
        return found


class Rig:
    def __init__(self, record: Record, stage: Stage) -> None:
        self.record = record
        self.stage = stage
        self.database = record.new_database()
        self.dsn = record.dsn(self.database)
        self.nodes: list[Node] = []
        self.faulted: set[int] = set()
        self.frozen: set[int] = set()
        self.kills = 0
        self._submissions: list[Submission] = []
        self._lock = threading.Lock()

    def node(self, name: str = "a", *, start: bool = True, **settings: str) -> Node:
        made = Node(self, name, settings)
        self.nodes.append(made)
        if start:
            made.start()
        return made

    def two_nodes(self, first: str, second: str) -> tuple[Node, Node]:
        """Started side by side."""
        one, other = self.node(first, start=False), self.node(second, start=False)
        one.start(wait=False)
        other.start()
        one.wait_ready()
        return one, other

    def sql(self, query: str, *values: Any) -> list[Any]:
        return self.record.sql(self.database, query, *values)

    def close(self) -> None:
        for one in self.nodes:
            one.close()

    # -- the history ---------------------------------------------------------------------------------

    def note(self, key: str | None, request: str, answer: Answer) -> None:
        accepted = answer.status in {200, 202}
        one = Submission(
            key=key,
            request=request,
            status=answer.status,
            id=answer.id if accepted else None,
            duplicate=bool(accepted and answer.body["duplicate"]),
            retry_after="retry-after" in answer.headers,
        )
        with self._lock:
            self._submissions.append(one)

    @property
    def submissions(self) -> list[Submission]:
        with self._lock:
            return list(self._submissions)

    def accepted_ids(self) -> set[str]:
        return {str(one.id) for one in self.submissions if one.accepted}

    def wait_final(self, timeout_s: float = 30) -> None:
        """Until every task on record has an outcome."""
        ask_open = "SELECT t.id::text AS id FROM noria.task t LEFT JOIN noria.outcome o ON o.id = t.id WHERE o.id IS NULL"

        def still_open() -> list[str]:
            return [row["id"] for row in self.sql(ask_open)]

        outputs = "\n".join(f"--- {one.name}\n{one.process.output[-3000:]}" for one in self.nodes)
        wait_until(lambda: not still_open(), timeout_s, lambda: f"final: {still_open()[:5]}\n{outputs}")

    def outcome(self, task_id: str) -> Any:
        """The row of noria.outcome, or None."""
        rows = self.sql("SELECT * FROM noria.outcome WHERE id = $1", UUID(task_id))
        return rows[0] if rows else None

    def history(self, *, final: bool = True) -> History:
        rows = self.sql
        outcomes = rows("SELECT id::text, attempt, status, failures, crashes, result FROM noria.outcome")
        return History(
            submissions=self.submissions,
            bodies=self.stage.bodies(),
            tasks=[
                Stored(id=row["id"], key=row["idempotency_key"])
                for row in rows("SELECT id::text, idempotency_key FROM noria.task")
            ],
            waiting=[row["id"] for row in rows("SELECT id::text FROM noria.waiting")],
            running=[row["id"] for row in rows("SELECT id::text FROM noria.running")],
            outcomes=[
                Outcome(
                    id=row["id"],
                    attempt=row["attempt"],
                    status=row["status"],
                    failures=row["failures"],
                    crashes=row["crashes"],
                    result_attempt=int(row["result"]) if row["status"] == SUCCEEDED else None,
                )
                for row in outcomes
            ],
            attempts=[Attempt(**row) for row in rows("SELECT id::text, attempt, kind FROM noria.attempt")],
            members=[Member(**row) for row in rows("SELECT incarnation, node, state FROM noria.lease")],
            faulted=frozenset(self.faulted),
            frozen=frozenset(self.frozen),
            kills=self.kills,
            final=final,
        )

    def check(self, timeout_s: float = 30) -> History:
        """Everything becomes final, and the whole history is as it must be."""
        self.wait_final(timeout_s)
        history = self.history()
        check(history)
        return history
