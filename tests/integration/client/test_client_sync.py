"""The client without an event loop: same words, same results, many threads, forks, Ctrl-C."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from actors import task
from node.client import (
    Client,
    InvalidTask,
    NotFound,
    SyncClient,
    SyncTaskHandle,
    TaskFailed,
    TaskHandle,
    WaitTimeout,
)
from tests.support.client_handlers import LATER, REGISTRY, Page, add, fail, page
from tests.support.threaded_node import threaded_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors import TaskOptions


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with threaded_node(REGISTRY) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[SyncClient]:
    with SyncClient(url) as made:
        yield made


def test_submit_and_wait(client: SyncClient) -> None:
    t = client.submit(task(page, url="u", day=date(2030, 1, 1)))
    result: Page = t.result(timeout_s=10)
    assert result.day == date(2030, 1, 2)
    assert client.call(task(add, a=1, b=2), timeout_s=10) == 3
    assert client.call("add", {"a": 4}, timeout_s=10) == 4
    assert t.status().state == "succeeded"
    assert (t.ended, t.duplicate) == (True, False)
    assert client.handle(t.id, like=task(page, url="u", day=date(2030, 1, 1))).result(5) == result


def test_errors_are_the_same(client: SyncClient) -> None:
    t = client.submit(task(fail))
    with pytest.raises(TaskFailed, match="boom"):
        t.result(10)
    assert [attempt.kind for attempt in t.attempts()] == ["failed"]
    t.retry()
    with pytest.raises(NotFound):
        client.get("01a20c19-6313-7000-99af-7ef162549394")
    waits = client.submit("add", {"a": 1}, run_at=LATER)
    with pytest.raises(WaitTimeout):
        waits.result(0.05)
    assert waits.cancel().state == "cancelled"


def test_many(client: SyncClient) -> None:
    handles = client.submit_many(task(add, a=n) for n in range(100))
    assert client.results(handles, 20) == list(range(100))
    assert {t.id for t in client.as_ended(handles, 10)} == {t.id for t in handles}
    failed = client.submit(task(fail))
    [met] = client.results([failed], 10, return_errors=True)
    assert isinstance(met, TaskFailed)
    assert failed.id in {info.id for info in client.dead()}
    assert [info.id for info in client.tasks(limit=1)] == [failed.id]


def test_many_are_read_in_the_callers_thread(client: SyncClient) -> None:
    """A queryset of Django belongs to its thread, and refuses to be read where an event loop runs."""
    here = threading.get_ident()

    def work() -> Iterator[tuple[str, dict[str, Any], TaskOptions]]:
        for n in range(6_000):
            assert threading.get_ident() == here
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            yield "add", {"a": n}, {"run_at": LATER}

    handles = client.submit_many(work())
    assert len({t.id for t in handles}) == 6_000
    listed = [info.id for info in client.tasks(limit=6_000)]
    assert sorted(listed) == sorted(t.id for t in handles)


def test_many_with_a_wrong_one_tell_what_is_stored(client: SyncClient) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [("add", {"a": n}) for n in range(2_600)]
    wrong[2_555] = ("add", {"b": 1})
    with pytest.raises(InvalidTask) as caught:
        client.submit_many(wrong)
    assert caught.value.errors[0][0] == "#/tasks/2555/payload/a"
    assert [type(t) for t in caught.value.handles] == [SyncTaskHandle] * 2_500 + [type(None)] * 100
    with pytest.raises(InvalidTask):
        client.submit_many([("echo", {"value": {1}})])


def test_events_are_an_iterator_that_ends_when_it_is_left(client: SyncClient) -> None:
    seen = threading.Event()

    def submit_until_seen() -> None:
        while not seen.is_set():
            client.call(task(add, a=1))

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(submit_until_seen)
        for event in client.events(handler=["add"]):
            assert event.data["handler"] == "add"
            break
        seen.set()
        busy.result(10)


def test_one_client_serves_many_threads(client: SyncClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: client.call(task(add, a=n), timeout_s=20), range(40))) == list(
            range(40)
        )


def test_it_opens_again_after_close(url: str) -> None:
    client = SyncClient(url)
    assert client.ready()
    client.close()
    client.close()
    assert not [t for t in threading.enumerate() if t.name == "noria-client"]


FORKED = """
import os, sys
from node.client import SyncClient
client = SyncClient(sys.argv[1])
assert client.call("add", {"a": 1}, timeout_s=10) == 1
pid = os.fork()
if pid == 0:
    assert client.call("add", {"a": 2}, timeout_s=10) == 2   # a thread and connections of its own
    os._exit(7)
assert client.call("add", {"a": 3}, timeout_s=10) == 3
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
print("both")
"""

FORGOTTEN = """
import sys
from node.client import SyncClient
client = SyncClient(sys.argv[1])   # as in a settings module: nobody closes it
print(client.call("add", {"a": 1}, timeout_s=10))
"""

INTERRUPTED = """
import sys
from node.client import SyncClient
with SyncClient(sys.argv[1]) as client:
    t = client.submit("gate", {"name": "sync"})
    try:
        print("waiting", flush=True)
        t.result()
    except KeyboardInterrupt:
        print("interrupted", t.cancel().handler)
"""


def start(program: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "printed"), [(FORKED, "both\n"), (FORGOTTEN, "1\n")], ids=["fork", "no close"]
)
def test_in_a_process_of_its_own(url: str, program: str, printed: str) -> None:
    out, err = (process := start(program, url)).communicate(timeout=30)
    assert (process.returncode, out, err) == (0, printed, "")


def test_ctrl_c_ends_a_wait(url: str) -> None:
    process = start(INTERRUPTED, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "interrupted gate\n", "")


# -- the twins ---------------------------------------------------------------------------------------


def public(kind: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"), [(Client, SyncClient), (TaskHandle, SyncTaskHandle)]
)
def test_both_have_the_same_methods_with_the_same_parameters(asynchronous: type, synchronous: type) -> None:
    theirs, ours = public(asynchronous), public(synchronous)
    assert theirs.keys() == ours.keys()
    for name, member in theirs.items():
        if inspect.isfunction(member):
            assert (
                inspect.signature(ours[name]).parameters.keys() == inspect.signature(member).parameters.keys()
            ), name
    init = inspect.signature(synchronous).parameters
    if synchronous is SyncClient:
        assert init == inspect.signature(Client).parameters
