"""`noria node --reload` on real processes and a PostgreSQL of its own; the code that it watches is a copy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.processes import ROOT, Spawned, free_port, spawned, wait_until, wait_url

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

TASKS: Final = """
import asyncio
from pathlib import Path
from actors import Context, handler

@handler("greet")
async def greet(ctx: Context) -> str:
    return "hello"

@handler("slow")
async def slow(ctx: Context) -> str:
    Path("running").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "done by the code it began with"
"""


class Reloading:
    """A folder with tasks.py and a source tree of Noria."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.tasks = folder / "tasks.py"
        self.tasks.write_text(TASKS)
        for package in ("actors", "node", "runtime"):
            shutil.copytree(ROOT / package, self.source / package)
        self._dsn = dsn
        self.url = f"http://127.0.0.1:{free_port()}"

    def run(self) -> AbstractContextManager[Spawned]:
        flags = ["--http-port", self.url.rpartition(":")[2], "--node-name", "here"]
        command = [sys.executable, "-m", "node.cli", "node", "--reload", "tasks.py", *flags]
        environment = {"PYTHONPATH": str(self.source), "NORIA_POSTGRES_DSN": self._dsn}
        return spawned(*command, env=environment, cwd=self.folder)

    def serves(self, process: Spawned, after: int = 0) -> dict[str, Any]:
        """Its statistics, once it serves."""
        process.wait_line("serves http", after=after, timeout_s=40)
        wait_url(f"{self.url}/readyz", process=process)
        return self.stats(process)

    def stats(self, process: Spawned) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(wait_url(f"{self.url}/v1/stats", process=process))
        return stats

    def submit(self, handler: str, wait_s: int = 20) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our node on loopback
            f"{self.url}/v1/tasks?wait={wait_s}",
            json.dumps({"handler": handler, "payload": {}}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            task: dict[str, Any] = json.load(answer)
        return task

    def begin_slow(self, process: Spawned) -> str:
        """The id of a task that runs until `go` is there."""
        task: str = self.submit("slow", wait_s=0)["id"]
        wait_until((self.folder / "running").exists, 20, lambda: process.output)
        return task

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.source / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


@pytest.fixture
def reloading(tmp_path: Path, pg_dsn: str) -> Reloading:
    return Reloading(tmp_path, pg_dsn)


def test_a_save_drains_the_node_and_the_next_one_has_the_new_code(reloading: Reloading) -> None:
    with reloading.run() as process:
        first = reloading.serves(process)
        assert first["node"] == "here"
        assert reloading.submit("greet")["result"] == "hello"
        task = reloading.begin_slow(process)
        mark = process.lines_read
        reloading.tasks.write_text(TASKS.replace('"hello"', '"good morning"'))
        process.wait_line("draining", after=mark)
        (reloading.folder / "go").touch()
        process.wait_line("reloaded in .*: greet, slow", after=mark)
        assert reloading.submit("greet")["result"] == "good morning"
        ended = json.loads(wait_url(f"{reloading.url}/v1/tasks/{task}", process=process))
        assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
        assert reloading.stats(process)["incarnation"] != first["incarnation"]
        process.signal(signal.SIGTERM)
        assert process.wait_exit() == 0
        process.wait_no_survivors()


def test_a_save_of_our_own_code_counts_too_and_a_mistake_changes_nothing(reloading: Reloading) -> None:
    with reloading.run() as process:
        first = reloading.serves(process)
        mark = process.lines_read
        reloading.edit("node/wiring.py", "node %s serves %s", "the new node %s serves %s")
        process.wait_line("the new node here serves", after=mark, timeout_s=40)
        process.wait_line("reloaded in", after=mark)
        second = reloading.stats(process)
        assert second["incarnation"] != first["incarnation"]
        for path, mistake, words in (  # the second one is not imported by handlers, only by a node
            ("runtime/core/task.py", "def broken(:\n", "SyntaxError"),
            ("node/http/app.py", "import no_such_module\n", "no_such_module"),
        ):
            mark, before = process.lines_read, (reloading.source / path).read_text()
            (reloading.source / path).write_text(before + mistake)
            process.wait_line(words, after=mark, timeout_s=40)
            process.wait_line("the node goes on with the code it has", after=mark)
            assert reloading.submit("greet")["result"] == "hello"
            (reloading.source / path).write_text(before)
            process.wait_line("repaired: the node has this code already", after=mark, timeout_s=40)
        assert reloading.stats(process)["incarnation"] == second["incarnation"]


def test_one_that_is_killed_comes_back_and_one_that_leaves_takes_its_parent_along(
    reloading: Reloading,
) -> None:
    with reloading.run() as process:
        first = reloading.serves(process)
        mark = process.lines_read
        os.kill(first["pid"], signal.SIGKILL)
        process.wait_line("node here was ended by SIGKILL; it starts again in 0.5 s", after=mark)
        second = reloading.serves(process, after=mark)
        os.kill(second["pid"], signal.SIGTERM)  # as if it was asked to drain
        process.wait_line("node here has left; it is not started again")
        assert process.wait_exit() == 0
        process.wait_no_survivors()


def test_the_node_drains_when_its_parent_is_killed(reloading: Reloading) -> None:
    with reloading.run() as process:
        reloading.serves(process)
        mark = process.lines_read
        process.kill()
        process.wait_line("drained: 0 attempts ended", after=mark)
        process.wait_no_survivors()


def test_a_second_signal_does_not_wait_for_the_drain(reloading: Reloading) -> None:
    with reloading.run() as process:
        reloading.serves(process)
        reloading.begin_slow(process)
        process.signal(signal.SIGTERM)
        process.wait_line("draining")
        process.signal(signal.SIGTERM)
        assert process.wait_exit() == 128 + signal.SIGKILL  # the exit code is the node's
        process.wait_no_survivors()


def test_a_mistake_at_the_start_waits_for_its_repair(reloading: Reloading) -> None:
    reloading.tasks.write_text("import no_such_module\n" + TASKS)
    with reloading.run() as process:
        process.wait_line(r"tasks\.py:1: .*no_such_module", timeout_s=40)
        process.wait_line("waiting for you to save a change")
        reloading.tasks.write_text(TASKS)
        reloading.serves(process)
        assert reloading.submit("greet")["result"] == "hello"
