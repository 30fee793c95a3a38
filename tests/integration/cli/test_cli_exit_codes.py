"""Exit codes and purity of stdout, on real processes: what scripts rely on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from actors import task
from tests.integration.cli.conftest import clean_environment
from tests.support.client_handlers import LATER, add, fail, gate
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.client import SyncClient
    from tests.integration.cli.conftest import Done

    Run = Callable[..., Done]

UNKNOWN = "01a20c19-6313-7000-99af-7ef162549394"


def test_0_done(process: Run) -> None:
    done = process("submit", "add", "a:=1", "b:=2", "--wait")
    assert (done.code, done.out) == (0, "3\n")
    assert "succeeded" in done.err
    assert "Traceback" not in done.err


def test_1_only_where_a_task_that_was_waited_for_failed(process: Run, client: SyncClient) -> None:
    done = process("submit", "fail", "message=no such page", "--wait")
    assert (done.code, done.out) == (1, "")
    assert "ValueError: no such page" in done.err
    failed, cancelled = client.submit(task(fail)), client.submit(task(add, a=1).options(run_at=LATER))
    cancelled.cancel()
    assert process("wait", failed.id).code == 1
    assert process("wait", cancelled.id).code == 1
    assert process("status", failed.id).code == 0
    assert process("result", failed.id).code == 5


@pytest.mark.parametrize(
    "arguments",
    [("submit",), ("submit", "add", "a"), ("submit", "add", "a:=x"), ("taks",), ("tasks", "--limit", "0"), ("wait",),
     ("submit", "add", "--timeout", "5s"), ("submit", "add", "--delay", "soon"), ("cancel",), ("dead", "purge"),
     ("submit", "add", "--delay", "5s", "--at", "2030-01-01T00:00"), ("cancel", "x", "--all"), ("--nonsense",),
     ("submit", "add", "--unique-for", "5s"), ("submit", "add", "--unique", "once"),
     ("node", "--http-port", "x"), ("check", "no_such_module"), ("stats", "--url", "nonsense"),
     ("drain",), ("drain", "n1", "--timeout", "5s"), ("locate",), ("views", "--limit", "0")],
    ids=" ".join,
)  # fmt: skip
def test_2_usage(process: Run, arguments: tuple[str, ...]) -> None:
    done = process(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err
    assert "Traceback" not in done.err


def test_3_unreachable_says_where_and_how_to_start_a_node(process: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = process("tasks", "--json", NORIA_URL=url)
    assert (done.code, done.out) == (3, "")
    assert f"no node answers at {url}: Connection refused" in done.err
    assert "noria dev" in done.err


def test_4_not_found(process: Run) -> None:
    for arguments in (
        ("status", UNKNOWN), ("wait", UNKNOWN), ("result", UNKNOWN), ("cancel", UNKNOWN), ("retry", UNKNOWN),
        ("pause", "nobody"), ("handlers", "nobody"), ("drain", "nobody"), ("drain", "nobody", "--wait"), ("status", "nonsense"),
    ):  # fmt: skip
        done = process(*arguments)
        assert (done.code, done.out) == (4, ""), arguments
        assert done.err.startswith("Error: ")


def test_5_refused(process: Run, client: SyncClient) -> None:
    client.submit(task(add, a=1).options(idempotency_key="exit-5"))
    reused = process("submit", "add", "a:=2", "--key", "exit-5")
    assert reused.code == 5
    assert "existing task" in reused.err
    wrong = process("submit", "add", "a=x", "c=1")
    assert wrong.code == 5
    assert [line.split(":")[0] for line in wrong.err.splitlines()[1:]] == ["  #/payload/a", "  #/payload/c"]
    t = client.submit(task(add, a=1))
    t.result(10)
    assert process("retry", t.id).code == 5
    window = ("submit", "add", "a:=1", "--unique-key", "exit-5", "--unique-for", "1h", "--unique")
    first = process(*window, "throttle").out.strip()
    again = process(*window, "throttle")
    assert (again.code, again.out.strip()) == (0, first)
    assert "exists already" in again.err
    rejected = process(*window, "reject")
    assert (rejected.code, rejected.out) == (5, "")
    assert f"noria status {first}" in rejected.err


def test_waiting_tasks_get_another_priority(process: Run, client: SyncClient) -> None:
    t = client.submit(task(add, a=1).options(run_at=LATER))
    assert process("task", "priority", t.id, "high").err.strip() == f"{t.id}  scheduled, high"
    done = process("task", "priority", "low", "--handler", "add", "--yes", "--json")
    assert (done.code, client.get(t.id).priority) == (0, "low")
    assert done.json["changed"] == done.json["matched"] >= 1
    assert process("task", "priority", "low").code == 2
    assert process("task", "priority", t.id, "urgent").code == 2
    t.cancel()
    assert process("task", "priority", t.id, "high").code == 5


def test_6_wait_timed_out(process: Run, client: SyncClient) -> None:
    t = client.submit(task(add, a=1).options(run_at=LATER))
    done = process("wait", t.id, "--timeout", "200ms")
    assert (done.code, done.out) == (6, "")
    assert f"noria wait {t.id}" in done.err


def test_70_asks_for_a_report_and_shows_a_traceback_only_for_debug(process: Run) -> None:
    broken = {"PYTHONPATH": "tests/support/broken_cli"}
    done = process("stats", **broken)
    assert (done.code, done.out) == (70, "")
    assert "please report it" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in process("stats", "--debug", **broken).err
    assert "Traceback" in process("--debug", "stats", **broken).err
    assert "Traceback" in process("stats", NORIA_DEBUG="1", **broken).err


def test_130_after_ctrl_c_and_the_task_goes_on(node_url: str, client: SyncClient) -> None:
    t = client.submit(task(gate, name="ctrl-c"))
    waiting = subprocess.Popen(
        [sys.executable, "-m", "node.cli", "wait", t.id],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(NORIA_URL=node_url),
    )  # fmt: skip
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("gate running")
    os.kill(waiting.pid, signal.SIGINT)
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (130, "")
    assert f"Again: noria wait {t.id}" in err
    assert "Traceback" not in err
    assert client.get(t.id).state == "running"
    t.cancel()


def test_a_reader_that_leaves_is_no_error(node_url: str, client: SyncClient) -> None:
    client.submit_many(task(add, a=n).options(run_at=LATER) for n in range(500))
    command = f"{sys.executable} -m node.cli tasks --limit 500 --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(NORIA_URL=node_url),
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "{\n", "")


@pytest.mark.parametrize(
    "arguments",
    [("tasks",), ("tasks", "--state", "failed"), ("dead", "list"), ("handlers",), ("handlers", "add"), ("nodes",),
     ("stats",), ("submit", "add", "a:=1"), ("submit", "fail", "--wait"), ("pause", "echo"), ("resume", "echo"),
     ("tenant", "pause", "acme"), ("tenant", "resume", "acme"),
     ("cancel", "--handler", "nobody", "--yes"), ("dead", "replay", "--handler", "nobody", "--yes"),
     ("dead", "purge", "--handler", "nobody", "--dry-run")],
    ids=" ".join,
)  # fmt: skip
def test_json_is_all_that_stdout_gets(process: Run, arguments: tuple[str, ...]) -> None:
    done = process(*arguments, "--json")
    assert done.code == (1 if "fail" in arguments else 0)
    assert isinstance(done.json, dict)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom node.cli.app import execute\nexecute(['--help'])\n"
        "heavy = {'asyncio', 'aiohttp', 'rich', 'pydantic', 'orjson', 'asyncpg', 'node.client', 'actors'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == "[]\n"
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert cpu_s < 0.25, "CPU time, so that other work on this machine does not count"


def test_the_script_is_the_same_command() -> None:
    from importlib.metadata import entry_points

    [script] = entry_points(group="console_scripts", name="noria")
    assert script.value == "node.cli:main"
