"""Node processes on one database of the fault tests' record, with a RabbitMQ and an etcd where there are some; a client
that notes every answer, a note of every fault, and the history."""

from __future__ import annotations

import http.client
import json
import re
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from tests.faults.reading import read_record, read_views
from tests.faults.record import Record
from tests.faults.services import Services
from tests.faults.stage import Stage
from tests.faults.wire import Wire
from tests.support.events import Cancelling, Event, Fault, Submission
from tests.support.history import History, check
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


@dataclass(slots=True, eq=False)
class Befallen:
    """A fault that goes on until it is `over`."""

    fault: Fault
    ended_s: float | None = None

    def over(self) -> None:
        self.ended_s = time.time()


class Node:
    """One node name: its process may end and be started again, on the same port.

    `wired`: its ways to PostgreSQL and RabbitMQ can be cut, see `to_record` and `to_rabbitmq`.
    """

    def __init__(self, rig: Rig, name: str, settings: Mapping[str, str], *, wired: bool = False) -> None:
        self._rig = rig
        self._stack = ExitStack()
        self._freeze: Befallen | None = None
        self.name = name
        self.port = free_port()
        self.lease_s = float(settings.get("LEASE_S", LEASE_S))
        dsn, amqp_url = rig.dsn, rig.amqp_url
        if wired:
            self.to_record = self._wire(dsn)
            dsn = self.to_record.url
            if amqp_url is not None:
                self.to_rabbitmq = self._wire(amqp_url)
                amqp_url = self.to_rabbitmq.url
        self._environment = {
            "NORIA_POSTGRES_DSN": dsn,
            **({} if amqp_url is None else {"NORIA_AMQP_URL": amqp_url}),
            **({} if rig.etcd_url is None else {"NORIA_ETCD_URL": rig.etcd_url}),
            "NORIA_HANDLERS": str(HANDLERS),
            "NORIA_NODE_NAME": name,
            "NORIA_HTTP_PORT": str(self.port),
            "NORIA_LEASE_S": f"{LEASE_S:g}",
            "NORIA_CPU_PROCESSES": "1",
            "NORIA_TEST_STAGE": str(rig.stage.path),
            **{f"NORIA_{setting}": value for setting, value in settings.items()},
        }
        self.process: Spawned
        self.incarnation = 0  # known once it serves

    def _wire(self, url: str) -> Wire:
        wire = Wire(url)
        self._stack.callback(wire.close)
        return wire

    def start(self, *, wait: bool = True) -> None:
        """Start the process; `wait` until it serves."""
        self.incarnation = 0
        self.process = self._stack.enter_context(node(self._environment))
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        wait_url(f"http://127.0.0.1:{self.port}/readyz", process=self.process, timeout_s=30)
        rows = self._rig.sql("SELECT max(incarnation) AS own FROM noria.lease WHERE node = $1", self.name)
        self.incarnation = rows[0]["own"]

    @property
    def alive(self) -> bool:
        return self.process.process.poll() is None

    def kill(self) -> None:
        """kill -9. The incarnation may be declared dead from now on."""
        killed = self._rig.befall("kill", self, processes=1)
        self.process.kill()
        killed.over()

    def died(self, code: int, timeout_s: float = 20) -> None:
        """Wait for its own death with this return code."""
        found = self.process.wait_exit(timeout_s)
        self._rig.befall("die", self, processes=1).over()
        assert found == code, f"ended with {found}, not {code}\n{self.process.output}"

    def freeze(self) -> None:
        self._freeze = self._rig.befall("freeze", self)
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.signal(signal.SIGCONT)
        if self._freeze is not None:
            self._freeze.over()

    def ask_to_drain(self) -> None:
        self.process.signal(signal.SIGTERM)

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
        asked_s = time.time()
        answer = self.ask(
            "POST", "/v1/tasks", body | ({"idempotency_key": key} if key else {}), timeout_s=timeout_s
        )
        self._rig.note(key, json.dumps(body, sort_keys=True), answer, asked_s)
        return answer

    def post_batch(self, tasks: list[dict[str, Any]], *, timeout_s: float = ANSWER_S) -> Answer:
        """Submit many and note what each came to."""
        asked_s = time.time()
        answer = self.ask("POST", "/v1/tasks/batch", {"tasks": tasks}, timeout_s=timeout_s)
        found = answer.body["tasks"] if answer.status in {200, 202} else [None] * len(tasks)
        for task, one in zip(tasks, found, strict=True):
            request = dict(task)
            key = request.pop("idempotency_key", None)
            told = Answer(answer.status, answer.headers, one)
            self._rig.note(key, json.dumps(request, sort_keys=True), told, asked_s)
        return answer

    def accepted(self, handler: str, *, key: str | None = None, **fields: Any) -> str:
        """The id of a task that must be accepted."""
        answer = self.post(handler, key=key, **fields)
        assert answer.status in {200, 202}, f"{answer}\n{self.process.output}"
        return answer.id

    def cancel(self, task_id: str) -> Answer:
        """Ask to cancel, and note what was answered."""
        answer = self.ask("POST", f"/v1/tasks/{task_id}/cancel")
        self._rig.note_cancel(task_id, answer)
        return answer

    def ring(self) -> Any:
        """What it goes by: {view, table_hash, nodes}. None where it does not answer."""
        answer = self.ask("GET", "/v1/cluster/ring", timeout_s=2)
        return answer.body if answer.status == 200 else None

    def metric(self, line: str) -> float | None:
        """The value of what stands before it in /metrics; None where there is none."""
        answer = self.ask("GET", "/metrics", timeout_s=2)
        text = answer.body.decode() if answer.status == 200 else ""
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return None if found is None else float(found[1])

    def slots(self) -> dict[str, int]:
        """How many each member owns, as it knows."""
        ring = self.ring()
        return {} if ring is None else {one["name"]: one["slots"] for one in ring["nodes"]}

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
    """`services` may be the record alone: then nodes have neither RabbitMQ nor etcd."""

    def __init__(self, services: Services | Record, stage: Stage) -> None:
        self.services = Services(services) if isinstance(services, Record) else services
        self.record = self.services.record
        self.stage = stage
        self.database = self.record.new_database()
        self.dsn = self.record.dsn(self.database)
        rabbitmq, etcd = self.services.rabbitmq, self.services.etcd
        self.amqp_url = None if rabbitmq is None else rabbitmq.url
        self.etcd_url = None if etcd is None else etcd.url_of(prefix=f"/{self.database}")
        self.nodes: list[Node] = []
        self._submissions: list[Submission] = []
        self._cancels: list[Cancelling] = []
        self._faults: list[Befallen] = []
        self._seen: list[Event] = []
        self._lock = threading.Lock()

    def node(self, name: str = "a", *, start: bool = True, wired: bool = False, **settings: str) -> Node:
        made = Node(self, name, settings, wired=wired)
        self.nodes.append(made)
        if start:
            made.start()
        return made

    def two_nodes(self, first: str, second: str) -> tuple[Node, Node]:
        """Started side by side."""
        one, other = self.node(first, start=False), self.node(second, start=False)
        self.start_all()
        return one, other

    def start_all(self) -> None:
        """Side by side: those that do not run."""
        starting = [node for node in self.nodes if not (hasattr(node, "process") and node.alive)]
        for one in starting:
            one.start(wait=False)
        for one in starting:
            one.wait_ready()

    def sql(self, query: str, *values: Any) -> list[Any]:
        return self.record.sql(self.database, query, *values)

    def close(self) -> None:
        for one in self.nodes:
            one.close()

    # -- the history ---------------------------------------------------------------------------------

    def note(self, key: str | None, request: str, answer: Answer, asked_s: float) -> None:
        accepted = answer.status in {200, 202}
        one = Submission(
            key=key,
            request=request,
            status=answer.status,
            id=answer.id if accepted else None,
            duplicate=bool(accepted and answer.body["duplicate"]),
            retry_after="retry-after" in answer.headers,
            asked_s=asked_s,
            answered_s=time.time() if answer.status is not None else None,
        )
        with self._lock:
            self._submissions.append(one)

    def note_cancel(self, task_id: str, answer: Answer) -> None:
        if answer.status == 200:
            with self._lock:
                self._cancels.append(Cancelling(id=task_id, state=answer.body["state"]))

    def note_seen(self, event: Event) -> None:
        """What a watcher saw: Installed, Memory."""
        with self._lock:
            self._seen.append(event)

    def befall(self, kind: str, node: Node | None = None, *, processes: int = 0) -> Befallen:
        """Note a fault that begins now. Kinds that let a node be declared dead: history.OF_A_NODE."""
        now_s = time.time()
        incarnation, pid = (None, None) if node is None else (node.incarnation, node.process.pid)
        fault = Fault(
            kind=kind, began_s=now_s, ended_s=now_s, incarnation=incarnation, pid=pid, processes=processes
        )
        noted = Befallen(fault)
        with self._lock:
            self._faults.append(noted)
        return noted

    @property
    def faults(self) -> list[Fault]:
        with self._lock:
            now_s = time.time()
            return [
                replace(one.fault, ended_s=now_s if one.ended_s is None else one.ended_s)
                for one in self._faults
            ]

    @property
    def submissions(self) -> list[Submission]:
        with self._lock:
            return list(self._submissions)

    def accepted_ids(self) -> set[str]:
        return {str(one.id) for one in self.submissions if one.accepted}

    def wait_final(self, timeout_s: float = 30) -> None:
        """Until every task on record has an outcome."""
        ask_open = "SELECT id::text AS id FROM noria.waiting UNION ALL SELECT id::text FROM noria.running"

        def still_open() -> list[str]:
            return [row["id"] for row in self.sql(ask_open)]

        def why() -> str:
            outputs = "\n".join(f"--- {one.name}\n{one.process.output[-3000:]}" for one in self.nodes)
            return f"final: {still_open()[:5]}\n{outputs}"

        wait_until(lambda: not still_open(), timeout_s, why)

    def outcome(self, task_id: str) -> Any:
        """The row of noria.outcome, or None."""
        rows = self.sql("SELECT * FROM noria.outcome WHERE id = $1", UUID(task_id))
        return rows[0] if rows else None

    def history(self, *, final: bool = True) -> History:
        with self._lock:
            told = [*self._submissions, *self._cancels, *self._seen]
        events = [*told, *self.faults, *self.stage.bodies(), *read_record(self.sql)]
        return History.of([*events, *read_views(self)], final=final)

    def check(self, timeout_s: float = 30) -> History:
        """Everything becomes final, and the whole history is as it must be."""
        self.wait_final(timeout_s)
        succeeded = self.sql("SELECT id::text, attempt FROM noria.outcome WHERE status = 0")
        self.stage.wait_ends({(row["id"], row["attempt"]) for row in succeeded})
        history = self.history()
        check(history)
        return history
