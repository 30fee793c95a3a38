"""On a terminal: colours, tables within its width, a live line while waiting, questions before deeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors import task
from tests.integration.cli.conftest import Terminal, plain
from tests.support.client_handlers import LATER, add, gate, progress

if TYPE_CHECKING:
    from node.client import SyncClient


def run(url: str, *arguments: str) -> tuple[int, str]:
    terminal = Terminal(url, *arguments)
    return terminal.finish(), terminal.shown


def test_tables_have_colours_and_fit(node_url: str, client: SyncClient) -> None:
    t = client.submit(task(add, a=1).options(run_at=LATER, actor_key="terminal"))
    code, shown = run(node_url, "tasks", "--actor-key", "terminal")
    assert code == 0
    assert "\x1b[36mscheduled" in shown
    lines = plain(shown).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith(t.id) for line in lines), "ids are never cut"


def test_json_has_no_colours(node_url: str) -> None:
    code, shown = run(node_url, "tasks", "--json")
    assert code == 0
    assert "\x1b" not in shown


def test_waiting_shows_progress_until_the_end(node_url: str, client: SyncClient) -> None:
    t = client.submit(task(progress))
    terminal = Terminal(node_url, "wait", t.id)
    terminal.read_until("3 of 10, lifting")
    assert "progress running" in plain(terminal.shown)
    t.cancel()
    assert terminal.finish() == 1
    assert "cancelled" in plain(terminal.shown).splitlines()[-1]


def test_waiting_for_many_shows_a_bar(node_url: str, client: SyncClient) -> None:
    quick, slow = client.submit(task(add, a=1)), client.submit(task(gate, name="bar"))
    terminal = Terminal(node_url, "wait", quick.id, slow.id)
    terminal.read_until("1 of 2 ended")
    slow.cancel()
    assert terminal.finish() == 1


def test_deeds_on_many_are_asked_for(node_url: str, client: SyncClient) -> None:
    t = client.submit(task(add, a=1).options(run_at=LATER, actor_key="ask"))
    for answer, code, state in (("n\n", 130, "scheduled"), ("y\n", 0, "cancelled")):
        terminal = Terminal(node_url, "cancel", "--actor-key", "ask")
        terminal.read_until("cancel 1 tasks? [y/N]")
        terminal.type(answer)
        assert terminal.finish() == code
        assert t.status().state == state


def test_bytes_do_not_go_to_a_terminal(node_url: str, client: SyncClient) -> None:
    raw = client.submit("raw", {"size": 3})
    raw.result(10)
    code, shown = run(node_url, "result", raw.id)
    assert code == 2
    assert "6 bytes of application/octet-stream; use --output FILE, or a pipe" in plain(shown)


def test_status_of_what_a_handler_wrote_does_not_steer_the_terminal(
    node_url: str, client: SyncClient
) -> None:
    t = client.submit("fail", {"message": "\x1b[2J\x07 [bold]gone[/bold]"})
    client.results([t], 10, return_errors=True)
    code, shown = run(node_url, "status", t.id)
    assert code == 0
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J\\x07 [bold]gone[/bold]" in plain(shown)
