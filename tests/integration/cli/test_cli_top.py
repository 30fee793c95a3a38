"""`noria top` on a terminal: drawn over itself, in any size, until somebody has seen enough."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from actors import task
from tests.integration.cli.conftest import Terminal, plain
from tests.support.client_handlers import GATES, REGISTRY, fail, gate
from tests.support.memory_node import memory_node
from tests.support.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from node.client import SyncClient
    from tests.integration.cli.conftest import Done

OTHER_SCREEN, BACK, HOME, CLEAR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H", "\x1b[2J"
SHOW_CURSOR = "\x1b[?25h"


def frames(terminal: Terminal) -> list[list[str]]:
    """Each drawing, line by line; the last one perhaps half drawn."""
    return [plain(frame).split("\n") for frame in terminal.shown.split(HOME)[1:]]


def test_it_draws_over_itself_in_any_size_until_q(node_url: str, client: SyncClient) -> None:
    held = client.submit(task(gate, name="top"))
    failed = client.submit(task(fail, message="no luck"))
    client.results([failed], 10, return_errors=True)
    terminal = Terminal(node_url, "top", "--every", "0.2")
    terminal.read_until(OTHER_SCREEN)
    terminal.read_until("ValueError: no luck")
    for column in ("NODE", "LANE", "HANDLER", "FAILED HERE"):
        assert column in plain(terminal.shown)
    before = len(frames(terminal))
    terminal.resize(40, 12)
    while len(frames(terminal)) < before + 3:
        terminal.read_until(HOME, forget=True)
    small = frames(terminal)[-2]
    assert len(small) <= 12
    assert max(map(cell_len, small)) <= 40
    assert small[0].startswith("noria top")
    began = terminal.shown.index(HOME)
    assert CLEAR not in terminal.shown[began:], "nothing is cleared between two drawings: no flicker"
    terminal.type("q")
    assert terminal.finish() == 0
    assert terminal.shown.rindex(BACK) > terminal.shown.rindex(HOME)
    assert terminal.shown.rindex(SHOW_CURSOR) > terminal.shown.rindex(HOME)
    GATES.opened["top"].set()
    held.cancel()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_told_to_end_puts_the_terminal_back(node_url: str, number: signal.Signals) -> None:
    terminal = Terminal(node_url, "top")
    terminal.read_until("HANDLER")
    assert terminal.process is not None
    terminal.process.send_signal(number)
    assert terminal.finish() == 0
    assert terminal.shown.rindex(BACK) > terminal.shown.rindex(HOME)
    assert "Traceback" not in terminal.shown


@asynccontextmanager
async def door(proxy: TcpProxy, port: int = 0) -> AsyncIterator[int]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        proxy.break_all()


async def test_a_node_that_goes_away_is_said_to_and_asked_again() -> None:
    async with memory_node(REGISTRY, name="comes-and-goes") as node:
        proxy = TcpProxy("127.0.0.1", int(node.url.rpartition(":")[2]))
        async with door(proxy) as port:
            terminal = Terminal(f"http://127.0.0.1:{port}", "top", "--every", "0.2")
            await asyncio.to_thread(terminal.read_until, "comes-and-goes")
        await asyncio.to_thread(terminal.read_until, "Connection refused")
        await asyncio.to_thread(terminal.read_until, "trying again")
        async with door(proxy, port):
            await asyncio.to_thread(until_it_answers, terminal)
            terminal.type("q")
            assert await asyncio.to_thread(terminal.finish) == 0


def until_it_answers(terminal: Terminal) -> None:
    """A whole drawing without the complaint."""
    while "refused" in "".join(frames(terminal)[-2]):
        terminal.read_until(HOME, forget=True)


def test_where_nobody_answers_it_does_not_begin(process: Callable[..., Done]) -> None:
    done = process("top", "--json", NORIA_URL="http://127.0.0.1:9")
    assert done.code == 3
    assert "Is a node running there?" in done.err


def test_once_and_in_pipes_it_looks_once(process: Callable[..., Done], noria: Callable[..., Done]) -> None:
    piped = process("top")
    assert (piped.code, piped.err) == (0, "")
    assert "\x1b" not in piped.out
    assert "HANDLER" in piped.out
    once = noria("top", "--once", "--json")
    assert once.json["node"] == "n1"
    assert {row["name"] for row in once.json["nodes"]} == {"n1"}


def test_a_line_of_json_per_look(node_url: str) -> None:
    terminal = Terminal(node_url, "top", "--json", "--every", "0.2")
    while terminal.shown.count("\n") < 5:  # the node puts them together twice a second at most
        terminal.read_until("\n", forget=True)
    assert terminal.process is not None
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == 0
    looks = [json.loads(line) for line in terminal.shown.splitlines()[:5]]
    assert looks[0]["at"] < looks[-1]["at"]


def test_tenants_are_weighed(noria: Callable[..., Done], client: SyncClient) -> None:
    assert "all nodes go by it" in noria("tenant", "weight", "acme", "3").err
    [row] = [row for row in noria("tenants", "--json").json["tenants"] if row["name"] == "acme"]
    assert row["weight"] == 3
    assert row in client.tenants()
    assert "acme" in noria("tenants").out
    refused = noria("tenant", "weight", "acme", "101")
    assert refused.code == 5
    assert "weight" in refused.err
    assert noria("tenant", "weight", "acme", "much").code == 2
    assert client.weigh_tenant("acme", 1)["weight"] == 1


def test_looking_all_the_time_is_refused(noria: Callable[..., Done]) -> None:
    done = noria("top", "--every", "10ms")
    assert done.code == 2
    assert "--every is 0.01s: must be 0.2s or more" in done.err
