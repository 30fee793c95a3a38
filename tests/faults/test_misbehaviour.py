"""Handlers and clients that misbehave: the node names them, bounds them, and goes on for everybody else."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

import pytest

from tests.faults.record import Record
from tests.faults.rig import Answer, Node, Rig
from tests.faults.stage import Stage
from tests.support.history import BURNS_CRASH
from tests.support.processes import wait_until

MEGABYTES: Final = 100
LATE_S: Final = 5.0


@pytest.fixture(scope="module")
def shared(record_server: Record) -> Iterator[Rig]:
    """One node for the module: it must outlive every test here, under the same incarnation."""
    with TemporaryDirectory(prefix="noria-stage-") as folder, Stage(Path(folder) / "socket") as stage:
        rig = Rig(record_server, stage)
        try:
            rig.node(CPU_PROCESSES="2")
            yield rig
        finally:
            rig.close()


@pytest.fixture
def node(shared: Rig) -> Iterator[Node]:
    """The node; when the test is over it still serves, and the history is sound."""
    [node] = shared.nodes
    yield node
    assert node.process.process.poll() is None, node.process.output
    assert node.view(node.accepted("act", name="after"), wait_s=10)["state"] == "succeeded"
    shared.check()


@pytest.mark.timeout(180)
def test_a_body_that_blocks_the_loop_is_named(node: Node) -> None:
    task_id = node.accepted("blocks_the_loop", seconds=1)
    named = node.process.wait_line(
        r"event loop stands since .* holds it: .*staged_handlers\.py:\d+ in blocks_the_loop"
    )
    node.process.wait_line(r"event loop moves again after [01]\.\d\d s")
    assert node.view(task_id, wait_s=10)["attempt"] == 1
    assert named


@pytest.mark.timeout(180)
def test_a_process_that_does_not_end_is_killed_at_its_deadline(node: Node) -> None:
    began_s = time.monotonic()
    task_id = node.accepted("spins")
    beside = node.accepted("act_in_process", name="beside")
    assert node.view(beside, wait_s=10)["state"] == "succeeded", "the other process is free"
    view = node.view(task_id, wait_s=20)
    took_s = time.monotonic() - began_s
    assert (view["state"], view["error"]["type"]) == ("failed", "TimedOut")
    assert 1 <= took_s <= 1 + LATE_S, f"killed after {took_s:.1f} s"
    assert node.view(node.accepted("act_in_process", name="next"), wait_s=10)["state"] == "succeeded"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("handler", ["huge", "huge_in_process"])
def test_a_result_of_100_megabytes_fails_its_task_alone(node: Node, handler: str) -> None:
    view = node.view(node.accepted(handler, megabytes=MEGABYTES), wait_s=30)
    assert (view["state"], view["attempt"]) == ("failed", 1), view
    assert view["error"]["type"] == "ResultTooLarge"
    assert re.search(r"at most \d+ fit", view["error"]["message"])


@pytest.mark.timeout(180)
def test_a_commit_that_comes_late_is_refused_and_counted(shared: Rig, node: Node) -> None:
    """Somebody else has taken the task over; this node does not know it."""
    shared.stage.hold("late")
    task_id = node.accepted("act", name="late")
    body = shared.stage.wait_id(task_id)
    shared.sql(
        "WITH mine AS (UPDATE noria.running SET attempt = 2, crashes = 1, incarnation = 0 WHERE id = $1 RETURNING id)"
        " INSERT INTO noria.attempt (id, attempt, kind, ended_at) SELECT id, 1, $2, now() FROM mine",
        UUID(task_id),
        BURNS_CRASH,
    )
    shared.befall("nobody dies: the rows say so", processes=2).over()
    shared.stage.tell(body)
    node.process.wait_line(f"fenced: attempt 1 of {task_id} is not the newest")
    metrics = node.ask("GET", "/metrics").body.decode()
    assert re.search(r"^noria_fenced_commits_total(\{.*\})? 1\.0$", metrics, re.MULTILINE)
    shared.stage.release("late")
    view = node.view(task_id, wait_s=20)
    assert (view["state"], view["attempt"]) == ("succeeded", 3)


@pytest.mark.timeout(180)
def test_what_is_accepted_under_a_lapsed_lease_runs_once(shared: Rig, node: Node) -> None:
    """It is stored as waiting, so nobody may run it before it is claimed; or its first attempt would run twice."""
    shared.stage.hold("lapsed")
    with shared.record.lapsed(shared.database, node.incarnation):
        task_id = node.accepted("act", name="lapsed", _priority="high")
        assert node.view(task_id)["state"] == "ready"
    body = shared.stage.wait_id(task_id)
    shared.stage.tell(body)
    assert node.view(task_id, wait_s=10)["attempt"] == 1
    assert len(shared.stage.seen("lapsed")) == 1


@pytest.mark.timeout(180)
def test_what_was_born_without_an_answer_is_found_soon(shared: Rig, node: Node) -> None:
    """PostgreSQL has committed it as running here, and this node was never told: two looks find it, 3 s apart."""
    node.view(node.accepted("act", name="first", _priority="low"), wait_s=10)  # the band exists
    with shared.record.unanswered():
        refused = node.post("act", key="unanswered", name="unanswered", _priority="low")
        assert refused.status == 503
        assert "may have happened" in refused.body["detail"]
    began_s = time.monotonic()
    answer = node.post("act", key="unanswered", name="unanswered", _priority="low")
    assert (answer.status, answer.body["duplicate"], answer.body["state"]) == (200, True, "running")
    view = node.view(answer.id, wait_s=20)
    assert (view["state"], view["attempt"], view["crashes"], view["failures"]) == ("succeeded", 2, 0, 0)
    assert time.monotonic() - began_s < 3 + 3 + LATE_S


_POST: Final = b"POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
GARBAGE: Final = {
    "nothing": b"",
    "no http": b"\x00\xff\x16\x03\x01" * 50,
    "half a head": _POST + b"Content-Le",
    "half a body": _POST + b'Content-Length: 500\r\n\r\n{"handler',
    "bad chunks": _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "bad chunks, later": _POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}zz\r\n",
    "two lengths": _POST + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
    "length and chunks": _POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": _POST + b"Content-Length: -1\r\n\r\n{}",
    "a header without end": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000,
    "a path without end": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no text": _POST + b'Content-Length: 14\r\n\r\n{"handler":"\xff"}',
    "depth": _POST + b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000,
    "another's host": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
}


def send_raw(port: int, data: bytes) -> bytes:
    """What comes back on a connection whose sender then closes its side."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while more := connection.recv(65536):
                answer += more
    return answer


@pytest.mark.timeout(180)
def test_garbage_instead_of_http(node: Node) -> None:
    for name, data in GARBAGE.items():
        answer = send_raw(node.port, data)
        assert re.match(rb"$|HTTP/1\.[01] 4\d\d ", answer), (name, answer)
    noise = random.Random(1)
    for _ in range(50):
        send_raw(node.port, noise.randbytes(noise.randrange(1, 2_000)))
    assert node.ask("GET", "/readyz").status == 200
    assert "Traceback" not in node.process.output


@pytest.mark.timeout(180)
def test_full_means_503_and_when_to_come_back(shared: Rig, node: Node) -> None:
    """PostgreSQL takes nothing for a moment, and more comes than may wait for it."""
    batches = [[{"handler": "quick", "idempotency_key": f"full-{n}"}] * 10_000 for n in range(6)]
    found: Queue[Answer] = Queue()
    enough = threading.Event()

    def fill(batch: list[dict[str, Any]]) -> None:
        while not enough.is_set():
            answer = node.post_batch(batch)
            assert answer.status in {202, 503}, answer
            if answer.status == 503 and answer.body["type"] == "urn:noria:error:overloaded":
                found.put(answer)

    with ThreadPoolExecutor(len(batches)) as clients:
        with shared.record.locked(shared.database, "noria.task"):
            fillers = [clients.submit(fill, batch) for batch in batches]
            try:
                full = found.get(timeout=30)
            finally:
                enough.set()
            assert node.ask("GET", "/livez").status == 200
        for filler in fillers:
            filler.result()
    assert int(full.headers["retry-after"]) >= 1
    for batch in batches:
        assert node.post_batch(batch[:2]).status in {200, 202}


@pytest.mark.timeout(180)
def test_slow_bodies_fill_the_node_and_nobody_waits_behind_them(node: Node) -> None:
    head = b"POST /v1/tasks/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with ExitStack() as slow:
        for _ in range(4):
            connection = slow.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=10))
            connection.sendall(head + b"Content-Length: 16777216\r\n\r\n{")
        refused: list[Answer] = []

        def full() -> bool:
            refused[:] = [node.post("quick")]
            return refused[0].status == 503

        wait_until(full, 5, lambda: f"{refused}")
        assert refused[0].body["type"] == "urn:noria:error:overloaded"
        assert int(refused[0].headers["retry-after"]) >= 1
        assert refused[0].took_s < 1
        assert node.ask("GET", "/readyz").status == 200
    wait_until(lambda: node.post("quick").status == 202, 5, lambda: "the bodies that broke off still count")
