"""The cluster from the command line: nodes, ring, keys, views, and taking a node out."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from node.cli.exits import Code
from node.cli.leaving import _Leaving
from node.client import SyncClient, Unreachable
from runtime.core.slots import slot_of
from tests.support.client_handlers import REGISTRY
from tests.support.processes import free_port, wait_until
from tests.support.processes import noria as spawn_noria
from tests.support.threaded_node import threaded_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.cli.conftest import Done
    from tests.support.processes import Spawned

    Run = Callable[..., Done]


@pytest.fixture
def urls() -> Iterator[list[str]]:
    """Of n1 and n2."""
    with threaded_cluster(REGISTRY, "n1", "n2") as urls:
        yield urls


@pytest.fixture
def ask(noria: Run, urls: list[str]) -> Run:
    """The command, against n1."""
    return lambda *arguments: noria("--url", urls[0], *arguments)


def test_the_ring_has_a_bar_for_each_node(ask: Run) -> None:
    told = ask("ring", "--json").json
    shown = ask("ring").out.splitlines()
    assert shown[0] == (
        f"view {told['view']}, table {told['table_hash']}, 4096 slots; "
        f"the fullest node has {told['max_over_average']:.2f} times its even share"
    )
    assert shown[1].split() == ["NODE", "STATE", "WEIGHT", "SLOTS", "SHARE", "OFF", "EVEN"]
    for line, row in zip(shown[2:], told["nodes"], strict=True):
        name, state, weight, slots, share, off, bar = line.split()
        assert (name, state, weight) == (row["name"], "active", "1")
        assert slots == str(row["slots"])
        assert share == f"{row['slots'] / 4096:.1%}"
        assert off == f"{row['slots'] / 2048 - 1:+.1%}"
        largest = max(one["slots"] for one in told["nodes"])
        assert len(bar) == pytest.approx(30 * row["slots"] / largest, abs=1)
    assert sum(row["slots"] for row in told["nodes"]) == 4096


def test_a_key_is_located(ask: Run) -> None:
    place = ask("locate", "order:5", "--json").json
    assert place["slot"] == slot_of("order:5")
    assert place["node"] in {"n1", "n2"}
    assert ask("locate", "order:5", "--handler", "add").out == (
        f"key   order:5\nslot  {place['slot']}\nnode  {place['node']} (incarnation {place['incarnation']})\n"
    )
    lost = ask("locate", "order:5", "--handler", "nobody")
    assert lost.code == 0
    assert "node  nobody: no active node has the handler nobody loaded\n" in lost.out


def test_views_and_nodes(ask: Run) -> None:
    shown = ask("views").out.splitlines()
    assert shown[0].split() == ["VIEW", "MEMBERS", "WHAT", "CHANGED"]
    assert re.match(r" +2  n1, n2  .*n2", shown[1])
    assert re.match(r" +1  n1 ", shown[2])
    assert [view["number"] for view in ask("views", "--limit", "1", "--json").json["views"]] == [2]
    shown = ask("nodes").out.splitlines()
    assert shown[0].split() == [
        "NODE", "INCARNATION", "STATE", "SLOTS", "RUNNING", "CREDIT", "TAGS", "HANDLERS", "STARTED",
    ]  # fmt: skip
    mine, other = (line.split()[:6] for line in shown[1:])
    assert (mine[0], mine[2], mine[4], mine[5]) == ("n1", "active", "0", "105")
    assert (other[0], other[2]) == ("n2", "active")


def test_a_node_is_drained_while_its_work_is_shown(ask: Run, urls: list[str]) -> None:
    asked = ask("drain", "n2")
    assert (asked.code, asked.out) == (0, "")
    assert asked.err == "n2 was asked to drain; see how far it is: noria nodes\n"
    with SyncClient(urls[0]) as client:
        while client.cluster()["nodes"][1]["state"] != "left":
            pass
    shown = ask("ring").out.splitlines()
    assert [line.split()[:4] for line in shown[2:]] == [["n1", "active", "1", "4096"]]
    assert ask("drain", "n2").code == 4


def test_draining_is_waited_for(ask: Run) -> None:
    done = ask("drain", "n2", "--wait")
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("n2 has left\n")


def test_waiting_for_a_drain_prints_json_alone(ask: Run) -> None:
    done = ask("drain", "n2", "--wait", "--json")
    assert [(row["name"], row["state"]) for row in done.json["nodes"]] == [("n2", "left")]


# -- what a real node rarely does -------------------------------------------------------------------


class Staged:
    """A client to the node `answering`, for which `n2` goes through these states; None: it cannot be reached."""

    def __init__(self, answering: str, *states: str | None) -> None:
        self._answering = answering
        self._states = list(states)

    async def stats(self) -> Any:
        return {"node": self._answering}

    async def drain(self, node: str) -> Any:
        return {"name": node}

    async def cluster(self) -> Any:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if state is None:
            raise Unreachable("gone", url="http://n2")
        rows = [
            {"name": "n2", "incarnation": 1, "state": "dead"},
            {"name": "n1", "incarnation": 3, "state": "active"},
        ]
        return {"nodes": [*rows, {"name": "n2", "incarnation": 2, "state": state, "running": 4}]}


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.cli.leaving.POLL_S", 0.0)


def follow(client: Any, timeout_s: float | None = None) -> Code:
    return asyncio.run(_Leaving(client, "n2", timeout_s).follow())[0]


@pytest.mark.usefixtures("hurry")
def test_each_change_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(Staged("n1", "active", "active", "draining", "draining", "left")) is Code.DONE
    assert capsys.readouterr().err.splitlines() == [
        "n2 (incarnation 2): asked to drain, 4 in hand",
        "n2 (incarnation 2): draining, 4 in hand",
        "n2 has left",
    ]


@pytest.mark.usefixtures("hurry")
def test_a_node_that_dies_meanwhile_has_not_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(Staged("n1", "active", "draining", "dead")) is Code.REFUSED
    assert "died before it had left" in capsys.readouterr().err


@pytest.mark.usefixtures("hurry")
def test_the_node_that_answers_may_be_the_one_that_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(Staged("n2", "active", "draining", None)) is Code.DONE
    assert "n2 answers no more: it has left" in capsys.readouterr().err
    with pytest.raises(Unreachable):
        follow(Staged("n1", "active", "draining", None))


@pytest.mark.usefixtures("hurry")
def test_waiting_ends_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(Staged("n1", "active", "draining"), timeout_s=0.0) is Code.TIMED_OUT
    assert "has not left yet" in capsys.readouterr().err


# -- real nodes -------------------------------------------------------------------------------------

GREETS = """
from actors import Context, handler

@handler("greet")
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"
"""
HOLDS = """
import asyncio
from pathlib import Path
from actors import Context, handler

@handler("hold")
async def hold(ctx: Context, folder: str) -> str:
    Path(folder, "started").touch()
    while not Path(folder, "go").exists():
        await asyncio.sleep(0.02)
    return "let go"
"""


@contextmanager
def real_node(dsn: str, folder: Path, name: str, code: str) -> Iterator[tuple[str, Spawned]]:
    (folder / f"{name}.py").write_text(code)
    port = free_port()
    env = {"NORIA_POSTGRES_DSN": dsn, "NORIA_HTTP_PORT": str(port), "NORIA_NODE_NAME": name}
    with spawn_noria("node", str(folder / f"{name}.py"), env=env, cwd=folder) as process:
        process.wait_line("serves")
        yield f"http://127.0.0.1:{port}", process


def test_real_nodes_work_for_each_other_and_one_drains(pg_dsn: str, tmp_path: Path, noria: Run) -> None:
    with (
        real_node(pg_dsn, tmp_path, "front", GREETS) as (url, _),
        real_node(pg_dsn, tmp_path, "back", HOLDS) as (_, back),
        SyncClient(url) as client,
    ):
        wait_until(lambda: len(client.ring()["nodes"]) == 2, 10, lambda: str(client.ring()))
        assert client.call("greet", {"name": "Ann"}, timeout_s=10) == "hello Ann"
        refused = noria("--url", url, "submit", "hold", "folders=x")
        assert refused.code == 5
        assert "#/payload/folder: is required" in refused.err
        held = client.submit("hold", {"folder": str(tmp_path)})
        wait_until((tmp_path / "started").exists, 10, lambda: str(held.status().raw))
        assert (held.status().raw["node"], held.status().raw["home"]) == ("back", "back")
        waiting = noria("--url", url, "drain", "back", "--wait", "--timeout", "1s")
        assert waiting.code == 6
        assert "back (incarnation 2): draining" in waiting.err
        with spawn_noria("--url", url, "drain", "back", "--wait") as follower:
            follower.wait_line("draining, 1 in hand")
            (tmp_path / "go").touch()
            follower.wait_line("back has left")
            assert follower.wait_exit() == 0
        assert held.result(10) == "let go"
        assert held.status().attempt == 1, "draining burns nothing"
        assert back.wait_exit() == 0
        wait_until(  # a view that another member has made is seen at the next look
            lambda: [row["name"] for row in client.ring()["nodes"]] == ["front"],
            10,
            lambda: str(client.ring()),
        )
        task = client.submit("hold", {"folder": str(tmp_path)}).status()
        assert task.raw["waiting"] == {
            "reason": "no_handler", "detail": "no active node has the handler hold loaded",
        }  # fmt: skip
