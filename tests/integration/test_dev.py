"""`noria dev` on real processes: a launcher, its PostgreSQL, and a stub where a node will be."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from runtime.adapters.embedded.orphans import postmaster_pid, server_processes
from tests.support.processes import ROOT, Spawned, spawned, wait_until, wait_url

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LAUNCHER: Final = """
import sys
from node.dev import DevOptions, run_dev
stub, nodes, fresh, *handlers = sys.argv[1:]
command = {"node_command": (sys.executable, stub)} if stub else {}
sys.exit(run_dev(DevOptions(handlers=tuple(handlers), nodes=int(nodes), fresh=fresh == "fresh", **command)))
"""
STUB: Final = ROOT / "tests/support/stub_node.py"
TASKS: Final = """
from actors import Context, handler

@handler("greet")
async def greet(ctx: Context, name: str, times: int = 1) -> str:
    return f"hello {name}" * times
"""


class Dev:
    """A folder to run `noria dev` in, with one handler in tasks.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks = folder / "tasks.py"
        self.tasks.write_text(TASKS)
        self.cluster = folder / ".noria" / "postgres"

    def run(
        self, *handlers: str, nodes: int = 1, fresh: bool = False, stub: bool = True, **env: str
    ) -> AbstractContextManager[Spawned]:
        words = [
            str(STUB) if stub else "",
            str(nodes),
            "fresh" if fresh else "keep",
            *(handlers or ["tasks.py"]),
        ]
        environment = {"NORIA_HTTP_PORT": "0", "NORIA_NODE_NAME": "here", **env}
        return spawned(sys.executable, "-c", LAUNCHER, *words, env=environment, cwd=self.folder)


@pytest.fixture
def dev(tmp_path: Path) -> Dev:
    return Dev(tmp_path)


def opened(process: Spawned) -> str:
    """Its URL, once it is open."""
    url = process.wait_line(r"^  (http://\S+)")[1]
    process.wait_line("Ctrl-C stops everything")
    return url


def stub_pid(process: Spawned, after: int = 0) -> int:
    return int(process.wait_line(r"stub \S+ start \d+ pid (\d+)", after=after)[1])


def interrupt(process: Spawned) -> int:
    process.signal(signal.SIGINT)
    code = process.wait_exit()
    process.wait_no_survivors()
    return code


def test_it_opens_with_url_handlers_and_a_curl_line_and_ctrl_c_ends_it_in_order(dev: Dev) -> None:
    with dev.run() as process:
        url = opened(process)
        assert process.wait_line(r"greet  tasks\.py:(\d+)")[1] == "4"
        curl = process.wait_line("curl .*")[0]
        assert f"'{url}/v1/tasks?wait=30'" in curl
        assert """'{"handler": "greet", "payload": {"name": "..."}}'""" in curl
        assert interrupt(process) == 0
        process.wait_line("stub here drained, PostgreSQL answers 1")
        process.wait_line("^stopped")
    assert server_processes(dev.cluster) == []


def test_sigterm_and_the_end_of_the_terminal_stop_it_the_same_way(dev: Dev) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        with dev.run() as process:
            opened(process)
            process.signal(number)
            assert process.wait_exit() == 0
            process.wait_line("stub here drained, PostgreSQL answers 1")
            process.wait_no_survivors()


def test_kill_9_leaves_nothing_running_and_nothing_lost(dev: Dev) -> None:
    for start in (1, 2):
        with dev.run() as process:
            opened(process)
            process.wait_line(f"stub here start {start} ")
            process.kill()
            process.wait_no_survivors()
            assert server_processes(dev.cluster) == []


def test_a_save_reloads_and_a_mistake_keeps_the_old_node(dev: Dev) -> None:
    with dev.run() as process:
        opened(process)
        first = stub_pid(process)
        mark = process.lines_read
        dev.tasks.write_text(TASKS + "\ndef broken(:\n")
        process.wait_line(r"tasks\.py:8: .*SyntaxError", after=mark)
        process.wait_line("the node goes on with the code it has", after=mark)
        os.kill(first, 0)
        mark = process.lines_read
        dev.tasks.write_text(TASKS.replace('"greet"', '"welcome"'))
        process.wait_line(r"reloaded in \S+ s: welcome", after=mark)
        process.wait_line("stub here drained", after=mark)
        assert stub_pid(process, after=mark) != first
        assert interrupt(process) == 0


def test_a_save_of_what_the_handlers_import_reloads_and_a_save_beside_it_does_not(dev: Dev) -> None:
    helper, other, imports = dev.folder / "helper.py", dev.folder / "other.py", dev.folder / "imports"
    helper.write_text("NAME = 'a'\n")
    other.write_text("")
    counted = "import helper\nprint('imported', file=open('imports', 'a'))\n" + TASKS
    dev.tasks.write_text(counted)
    with dev.run() as process:
        opened(process)
        mark = process.lines_read
        helper.with_suffix(".tmp").write_text("NAME = 'an editor saves by renaming'\n")
        helper.with_suffix(".tmp").rename(helper)
        process.wait_line("reloaded in .*: greet", after=mark)
        mark, seen = process.lines_read, imports.stat().st_size
        other.write_text("changed = 1\n")
        wait_until(lambda: imports.stat().st_size > seen, 20, lambda: process.output)  # it was looked into
        dev.tasks.write_text(counted.replace('"greet"', '"last"'))
        process.wait_line("reloaded in .*: last", after=mark)
        assert "greet" not in "".join(process.output.splitlines()[mark:])
        assert interrupt(process) == 0


def test_handlers_that_write_python_files_when_imported_do_not_reload_for_ever(dev: Dev) -> None:
    dev.tasks.write_text("open('version.py', 'w').write('VERSION = 1')\nimport version\n" + TASKS)
    with dev.run() as process:
        opened(process)
        mark = process.lines_read
        dev.tasks.write_text(dev.tasks.read_text() + "\n")
        process.wait_line("reloaded in", after=mark)
        dev.tasks.write_text(dev.tasks.read_text().replace('"greet"', '"last"'))
        process.wait_line("reloaded in .*: last", after=mark)
        assert process.output.count("stub here start") == 3
        assert interrupt(process) == 0


def test_a_crash_of_the_node_does_not_end_it(dev: Dev) -> None:
    with dev.run() as process:
        url = opened(process)
        first = stub_pid(process)
        for code, words in (
            ("7", "exited with code 7"),
            ("75", "exited with code 75; it starts again in 0 s"),
        ):
            mark = process.lines_read
            with pytest.raises(AssertionError):
                wait_url(f"{url}/exit/{code}", timeout_s=0)
            process.wait_line(f"node here {words}", after=mark)
            assert stub_pid(process, after=mark) != first
            wait_url(f"{url}/readyz", process=process)
        assert interrupt(process) == 0


def test_a_save_ends_the_wait_of_a_node_that_crashes_at_its_start(dev: Dev) -> None:
    with dev.run(NORIA_POSTGRES_DSN="postgresql://elsewhere") as process:
        process.wait_line("NORIA_POSTGRES_DSN is set, but")
        url = opened(process)
        for _ in range(3):  # 0.5, 1, 2 s: the next one would wait for 4 s
            mark = process.lines_read
            with pytest.raises(AssertionError):
                wait_url(f"{url}/exit/1", timeout_s=0)
            stub_pid(process, after=mark)
            wait_url(f"{url}/readyz", process=process)
        mark = process.lines_read
        with pytest.raises(AssertionError):
            wait_url(f"{url}/exit/1", timeout_s=0)
        process.wait_line("starts again in 4 s", after=mark)
        dev.tasks.write_text(TASKS.replace('"greet"', '"repaired"'))
        assert float(process.wait_line(r"reloaded in (\S+) s: repaired", after=mark)[1]) < 3
        assert interrupt(process) == 0


def test_postgresql_that_is_killed_starts_again(dev: Dev) -> None:
    with dev.run() as process:
        opened(process)
        pid = postmaster_pid(dev.cluster)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        process.wait_line("PostgreSQL was ended by SIGKILL; it starts again")
        wait_until(lambda: postmaster_pid(dev.cluster) not in {pid, None}, 20, lambda: process.output)
        process.wait_line("PostgreSQL: ready again")
        assert interrupt(process) == 0
        process.wait_line("stub here drained, PostgreSQL answers 1")


def test_a_mistake_at_the_start_waits_for_its_repair(dev: Dev) -> None:
    dev.tasks.write_text("import no_such_module\n" + TASKS)
    with dev.run() as process:
        process.wait_line(r"tasks\.py:1: .*no_such_module")
        process.wait_line("waiting for you to save a change")
        (dev.folder / "no_such_module.py").write_text("")
        opened(process)
        assert interrupt(process) == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [("import os; os._exit(3)", "ended the process with code 3"), ("raise SystemExit(4)", "SystemExit: 4")],
)
def test_handlers_that_end_the_process_at_import_are_reported(dev: Dev, code: str, words: str) -> None:
    dev.tasks.write_text("print('noise on stdout')\n" + code)
    with dev.run() as process:
        process.wait_line(words)
        dev.tasks.write_text("print('noise on stdout')\n" + TASKS)
        opened(process)
        assert interrupt(process) == 0


def test_two_on_one_folder_the_second_says_so_and_the_first_goes_on(dev: Dev) -> None:
    with dev.run() as first:
        url = opened(first)
        with dev.run() as second:
            second.wait_line(f"in use by process {first.pid}.*NORIA_DATA_DIR")
            assert second.wait_exit() == 2
        wait_url(f"{url}/readyz", process=first)
        assert interrupt(first) == 0


def test_fresh_starts_empty_and_spares_what_is_not_ours(dev: Dev) -> None:
    for start, fresh in ((1, False), (2, False), (1, True)):
        with dev.run(fresh=fresh) as process:
            process.wait_line(f"stub here start {start} ")
            assert interrupt(process) == 0
    precious = dev.folder / "precious"
    precious.mkdir()
    (precious / "photo.jpg").write_text("x")
    with dev.run(fresh=True, NORIA_DATA_DIR=str(precious)) as process:
        process.wait_line("precious is not empty and not a Noria data folder")
        assert process.wait_exit() == 2
    assert [p.name for p in precious.iterdir()] == ["photo.jpg"]


def test_several_nodes_have_ports_and_names_of_their_own_and_reload_in_turn(dev: Dev) -> None:
    with dev.run(nodes=2) as process:
        opened(process)
        for name in ("here-1", "here-2"):
            process.wait_line(f"stub {name} start")
        mark = process.lines_read
        dev.tasks.write_text(TASKS.replace('"greet"', '"two"'))
        process.wait_line("reloaded in .*: two", after=mark)
        lines = [line for line in process.output.splitlines()[mark:] if line.startswith("stub")]
        names = [line.split()[1:3] for line in lines]
        assert names == [
            ["here-1", "drained,"],
            ["here-1", "start"],
            ["here-2", "drained,"],
            ["here-2", "start"],
        ]
        assert interrupt(process) == 0


def test_a_node_that_leaves_stays_away_and_the_others_go_on(dev: Dev) -> None:
    with dev.run(nodes=2) as process:
        opened(process)
        urls = re.findall(r"^  (http\S+)  here-", process.output, re.MULTILINE)
        for number, url in enumerate(urls, 1):
            mark = process.lines_read
            with pytest.raises(AssertionError):
                wait_url(f"{url}/exit/0", timeout_s=0)  # as one that was asked to drain
            process.wait_line(f"node here-{number} has left; it is not started again", after=mark)
            if number == 1:
                wait_url(f"{urls[1]}/readyz", process=process)
                dev.tasks.write_text(TASKS.replace('"greet"', '"later"'))
                process.wait_line("reloaded in .*: later", after=mark)
        assert process.wait_exit() == 0  # nobody is left
        process.wait_no_survivors()
        assert process.output.count("stub here-1 start") == 1
        assert process.output.count("stub here-2 start") == 2


def test_several_nodes_without_a_name_are_numbered_and_told_of_broker_and_etcd(dev: Dev) -> None:
    services = {"NORIA_AMQP_URL": "amqp://user:pass@broker/", "NORIA_ETCD_URL": "http://etcd:2379"}
    with dev.run(nodes=3, NORIA_NODE_NAME="", **services) as process:
        opened(process)
        assert re.findall(r"^  http\S+  (\S+)", process.output, re.MULTILINE) == [
            "node-1",
            "node-2",
            "node-3",
        ]
        for name in ("node-1", "node-2", "node-3"):
            started = process.wait_line(rf"^stub {name} start \d pid (\d+)")
            inherited = Path(f"/proc/{started[1]}/environ").read_text().split("\0")
            assert {f"{name}={url}" for name, url in services.items()} <= set(inherited)
        assert interrupt(process) == 0


def test_a_port_that_is_taken_is_told_before_anything_starts(dev: Dev) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, dev.run(NORIA_HTTP_PORT=str(taken.getsockname()[1])) as process:
        process.wait_line("cannot listen on 127.0.0.1:.*NORIA_HTTP_PORT")
        assert process.wait_exit() == 2
    assert server_processes(dev.cluster) == []


def test_what_can_never_work_ends_with_code_2(dev: Dev) -> None:
    with dev.run("nowhere.py") as process:
        process.wait_line(r"nowhere\.py: no such file")
        assert process.wait_exit() == 2
    with dev.run(STUB_REFUSES="1") as process:
        assert process.wait_exit() == 2
        process.wait_no_survivors()


def test_it_is_not_silent_while_the_node_starts_and_ctrl_c_works_then_too(dev: Dev) -> None:
    hold = dev.folder / "hold"
    hold.touch()
    with dev.run(STUB_HOLD=str(hold)) as process:
        process.wait_line(r"starting the node \.\.\. 2 s")
        hold.unlink()
        opened(process)
        assert interrupt(process) == 0
    hold.touch()
    with dev.run(STUB_HOLD=str(hold)) as process:
        process.wait_line(r"starting the node \.\.\.")
        assert interrupt(process) == 0


def test_a_second_ctrl_c_does_not_wait_for_the_drain(dev: Dev) -> None:
    with dev.run(STUB_DEAF="1") as process:
        opened(process)
        process.signal(signal.SIGINT)
        process.wait_line("Ctrl-C again: at once")
        process.signal(signal.SIGINT)
        assert process.wait_exit(10) == 0
        process.wait_line("node here does not end: killed")
        process.wait_no_survivors()


WORK: Final = """
import os, time
from pathlib import Path
from actors import Context, handler

@handler("greet")
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"

@handler("burn", cpu=True)
def burn(ctx: Context, seconds: float) -> int:
    Path("burning").touch()
    time.sleep(seconds)
    return 1

@handler("die", max_attempts=1)
async def die(ctx: Context) -> None:
    os._exit(9)
"""


def submit(url: str, handler: str, wait_s: int = 20, **payload: object) -> dict[str, Any]:
    """What the node says of a new task."""
    body = json.dumps({"handler": handler, "payload": payload}).encode()
    request = urllib.request.Request(url + f"/v1/tasks?wait={wait_s}", body)  # noqa: S310 - our node on loopback
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        task: dict[str, Any] = json.load(answer)
    return task


def test_with_a_real_node_tasks_are_done_and_outlive_kill_9(dev: Dev) -> None:
    dev.tasks.write_text(WORK)
    with dev.run(stub=False) as process:
        url = opened(process)
        done = submit(url, "greet", name="world")
        assert done["result"] == "hello world"
        submit(url, "burn", wait_s=0, seconds=300)
        wait_until((dev.folder / "burning").exists, 20, lambda: process.output)
        process.kill()  # in the middle of a body that runs in a process of its own
        process.wait_no_survivors()
    with dev.run(stub=False) as process:
        again = json.loads(wait_url(f"{opened(process)}/v1/tasks/{done['id']}", process=process))
        assert (again["state"], again["result"]) == ("succeeded", "hello world")
        process.signal(signal.SIGINT)
        process.wait_line("Ctrl-C again: at once")
        process.signal(signal.SIGINT)  # the burning one, taken up again, would hold up the drain
        assert process.wait_exit() == 0
        process.wait_no_survivors()


def test_with_a_real_node_a_handler_that_ends_the_process_does_not_end_the_session(dev: Dev) -> None:
    dev.tasks.write_text(WORK)
    with dev.run(stub=False) as process:
        url = opened(process)
        with suppress(OSError):  # the node dies with the question
            submit(url, "die")
        process.wait_line("exited with code 9; it starts again in 0.5 s")
        wait_url(f"{url}/readyz", process=process)
        assert submit(url, "greet", name="again")["result"] == "hello again"
        process.signal(signal.SIGTERM)
        assert process.wait_exit() == 0
        process.wait_no_survivors()


def test_with_three_real_nodes_one_that_is_killed_comes_back_and_the_others_serve(dev: Dev) -> None:
    dev.tasks.write_text(WORK)
    with dev.run(stub=False, nodes=3, NORIA_LEASE_S="2") as process:
        opened(process)
        urls = re.findall(r"^  (http\S+)  here-", process.output, re.MULTILINE)
        before = [stats(url, process) for url in urls]
        assert [seen["node"] for seen in before] == ["here-1", "here-2", "here-3"]
        os.kill(before[1]["pid"], signal.SIGKILL)
        assert submit(urls[0], "greet", name="you")["result"] == "hello you"
        process.wait_line("node here-2 was ended by SIGKILL; it starts again in 0.5 s")
        wait_url(f"{urls[1]}/readyz", process=process)
        after = [stats(url, process) for url in urls]
        kept = [old["incarnation"] == new["incarnation"] for old, new in zip(before, after, strict=True)]
        assert kept == [True, False, True]
        assert submit(urls[1], "greet", name="again")["result"] == "hello again"
        assert interrupt(process) == 0


def stats(url: str, process: Spawned) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wait_url(f"{url}/v1/stats", process=process))
    return found
