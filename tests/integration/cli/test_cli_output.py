"""What people read: tables, hints, durations, times; and how actions on many ask first."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from actors import task
from node.cli.app import noria as command
from tests.support.client_handlers import LATER, add, echo, fail, gate, progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from node.client import SyncClient
    from tests.integration.cli.conftest import Done

    Run = Callable[..., Done]


# -- submit -----------------------------------------------------------------------------------------


def test_submit_prints_the_id_alone_on_stdout(noria: Run, client: SyncClient) -> None:
    done = noria("submit", "add", "a:=1")
    info = client.get(done.out.strip())
    assert info.handler == "add"
    assert done.err == f"add accepted; follow it: noria wait {info.id}\n"


def test_submit_says_everything_that_may_be_said_about_a_task(noria: Run, client: SyncClient) -> None:
    done = noria(
        "submit", "page", "url=http://x", "--payload", '{"url": "overridden", "day": "2030-01-31"}', "--key", "k-all",
        "--priority", "low", "--delay", "5m", "--expires", "1h30m", "--run-timeout", "2m", "--max-attempts", "9",
        "--prefers", "eu", "--prefers", "ssd", "--requires", "gpu", "--meta", "order:=5", "--meta", "by=Ann", "--json",
    )  # fmt: skip
    told = done.json
    assert told["duplicate"] is False
    info = client.get(told["id"])
    assert (info.priority, info.max_attempts, info.raw["timeout_s"]) == ("low", 9, 120)
    assert (info.raw["requires"], sorted(info.raw["prefers"])) == (["gpu"], ["eu", "ssd"])
    assert (info.idempotency_key, info.metadata) == ("k-all", {"order": 5, "by": "Ann"})
    assert info.run_at is not None
    assert info.expires_at is not None
    assert 299 < (info.run_at - info.created_at).total_seconds() < 301
    assert 5390 < (info.expires_at - datetime.now(UTC)).total_seconds() < 5401


def test_submit_again_is_the_same_task(noria: Run) -> None:
    first = noria("submit", "add", "a:=1", "--key", "k-again")
    again = noria("submit", "add", "a:=1", "--key", "k-again")
    assert again.out == first.out
    assert "exists already" in again.err


def test_submit_at_an_instant(noria: Run, client: SyncClient) -> None:
    done = noria("submit", "add", "a:=1", "--at", "2100-01-01T00:00:00Z")
    assert client.get(done.out.strip()).run_at == LATER


def test_submit_reads_files_and_stdin(noria: Run, process: Run, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text('{"deep": [1, null]}')
    assert noria("submit", "echo", f"value:=@{tmp_path / 'v.json'}", "--wait").out == '{"deep":[1,null]}\n'
    assert process("submit", "echo", "--payload", "@-", "--wait", stdin='{"value": 7}').out == "7\n"


@pytest.mark.parametrize(("wrong", "hint"), [("ad", "did you mean add?"), ("ecco", "did you mean echo?")])
def test_an_unknown_handler_gets_a_hint_once(noria: Run, wrong: str, hint: str) -> None:
    done = noria("submit", wrong)
    assert done.code == 5
    assert done.err.lower().count("did you mean") == 1
    assert hint in done.err


def test_an_unknown_handler_like_no_other_gets_the_list(noria: Run) -> None:
    done = noria("submit", "zzzzzz")
    assert done.code == 5
    assert "Handlers: add, echo, fail, gate, page, progress, raw" in done.err


# -- one task ---------------------------------------------------------------------------------------


def test_status_of_a_task_that_waits(noria: Run, client: SyncClient) -> None:
    t = client.submit(task(add, a=1).options(run_at=LATER, idempotency_key="k-status"))
    shown = noria("status", t.id).out
    assert re.search(r"^state +scheduled$", shown, re.MULTILINE)
    assert re.search(r"^waiting +due_later: .*, until 2100-01-01 00:00:00Z \(in \d+d", shown, re.MULTILINE)
    assert re.search(r"^submitted +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ \((now|\ds ago)\)$", shown, re.MULTILINE)
    assert re.search(r"^key +k-status$", shown, re.MULTILINE)


def test_status_of_a_failed_task_shows_the_error_and_all_attempts(noria: Run, client: SyncClient) -> None:
    t = client.submit(task(fail, message="gone"))
    client.results([t], 10, return_errors=True)
    t.retry()
    client.results([t], 10, return_errors=True)
    shown = noria("status", t.id).out
    assert "ValueError: gone\nTraceback (most recent call last):" in shown
    assert re.search(r"^ATTEMPT +MET +NODE +ENDED +ERROR$", shown, re.MULTILINE)
    assert [line.split()[:2] for line in shown.splitlines()[-2:]] == [["1", "replayed"], ["2", "failed"]]
    told = noria("status", t.id, "--attempts", "--json").json
    assert [attempt["kind"] for attempt in told["attempts"]] == ["replayed", "failed"]
    assert noria("dead", "show", t.id).out == shown


def test_status_of_a_running_task_with_progress(noria: Run, client: SyncClient) -> None:
    t = client.submit(task(progress))
    while client.get(t.id, wait_s=0.05).progress is None:
        pass
    shown = noria("status", t.id).out
    assert re.search(r"^progress +3 of 10 \(30%\)  lifting$", shown, re.MULTILINE)
    assert "3 of 10, lifting, on n1" in noria("tasks", "--handler", "progress").out
    t.cancel()


def test_result(noria: Run, client: SyncClient, tmp_path: Path) -> None:
    t = client.submit(task(echo, value={"ünï": [1]}))
    t.result(10)
    assert noria("result", t.id).out == '{"ünï":[1]}\n'
    file = tmp_path / "out.json"
    done = noria("result", t.id, "-o", str(file))
    assert (done.out, file.read_text()) == ("", '{"ünï":[1]}')
    assert noria("result", t.id, "-o", str(tmp_path / "no" / "where")).code == 2
    raw = client.submit("raw", {"size": 2})
    raw.result(10)
    done = noria("result", raw.id, "--json")
    assert (done.code, done.out) == (2, "")
    assert "4 bytes of application/octet-stream, not JSON" in done.err
    waits = client.submit(task(add, a=1).options(run_at=LATER))
    assert noria("result", waits.id).code == 5


def test_bytes_go_to_a_pipe_as_they_are(client: SyncClient, node_url: str) -> None:
    import subprocess
    import sys

    from tests.integration.cli.conftest import clean_environment

    raw = client.submit("raw", {"size": 3})
    raw.result(10)
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "result", raw.id],
        capture_output=True, check=True, env=clean_environment(NORIA_URL=node_url),
    )  # fmt: skip
    assert done.stdout == b"\x00\xff" * 3


def test_wait_for_several(noria: Run, client: SyncClient) -> None:
    good, bad = client.submit(task(add, a=1)), client.submit(task(fail))
    done = noria("wait", good.id, bad.id)
    assert (done.code, done.out) == (1, "")
    assert "1 of 2 succeeded" in done.err
    assert "ValueError: boom" in done.err
    told = noria("wait", good.id, bad.id, "--json")
    assert [raw["state"] for raw in told.json["tasks"]] == ["succeeded", "failed"]


def test_wait_says_what_happens_meanwhile(process: Run, client: SyncClient) -> None:
    t = client.submit(task(gate, name="meanwhile"))
    done = process("wait", t.id, "--timeout", "1s")
    assert done.code == 6
    assert "gate running  on n1" in done.err
    t.cancel()


def test_cancel_and_retry_by_id(noria: Run, client: SyncClient) -> None:
    handles = [client.submit(task(add, a=n).options(run_at=LATER)) for n in range(2)]
    running = client.submit(task(gate, name="to-cancel"))
    while running.status().state != "running":
        pass
    done = noria("cancel", *(t.id for t in handles), running.id)
    assert done.code == 0
    assert [line.split("  ", 1)[1] for line in done.err.splitlines()] == [
        "cancelled",
        "cancelled",
        "running; asked to end",
    ]
    done = noria("retry", handles[0].id, "01a20c19-6313-7000-99af-7ef162549394", handles[1].id)
    assert done.code == 4, "that of the first refusal; the others are done"
    assert handles[1].status().state != "cancelled"


# -- many tasks -------------------------------------------------------------------------------------


def test_lists(noria: Run, client: SyncClient) -> None:
    handles = client.submit_many(task(add, a=n).options(run_at=LATER, actor_key="lists") for n in range(5))
    ids = [t.id for t in reversed(handles)]
    shown = noria("tasks", "--actor-key", "lists").out.splitlines()
    assert shown[0].split() == ["ID", "STATE", "HANDLER", "PRIORITY", "SUBMITTED", "ABOUT"]
    assert [line.split()[:4] for line in shown[1:]] == [[each, "scheduled", "add", "medium"] for each in ids]
    first = noria("tasks", "--actor-key", "lists", "-q", "--limit", "3")
    assert first.out.split() == ids[:3]
    cursor = first.err.split("--cursor ")[1].strip()
    assert noria("tasks", "--actor-key", "lists", "-q", "--cursor", cursor).out.split() == ids[3:]
    told = noria("tasks", "--actor-key", "lists", "--json", "--limit", "3").json
    assert [raw["id"] for raw in told["tasks"]] == ids[:3]
    assert told["next_cursor"] == cursor
    assert noria("tasks", "--actor-key", "lists", "--since", "2100-01-01").err == "no tasks match\n"
    assert noria("tasks", "--actor-key", "lists", "--since", "1h", "--state", "ready", "-q").out == ""


def test_a_rare_task_is_found_behind_many_others(noria: Run, client: SyncClient) -> None:
    rare = client.submit(task(add, a=1).options(run_at=LATER, idempotency_key="rare"))
    client.submit_many(task(add, a=n).options(run_at=LATER) for n in range(3_000))
    assert noria("tasks", "--key", "rare", "-q").out == f"{rare.id}\n"


def test_actions_on_many_count_ask_and_act(noria: Run, client: SyncClient) -> None:
    client.submit_many(task(add, a=n).options(run_at=LATER, actor_key="bulk") for n in range(7))
    assert noria("cancel", "--actor-key", "bulk", "--dry-run").err == "7 would be cancelled\n"
    refused = noria("cancel", "--actor-key", "bulk")
    assert refused.code == 2
    assert "7 tasks match; --yes" in refused.err
    assert noria("cancel", "--actor-key", "bulk", "--yes").err == "7 of 7 cancelled\n"
    assert noria("cancel", "--actor-key", "bulk", "--state", "cancelled", "--yes", "--json").json == {
        "matched": 0,
        "changed": 0,
    }


def test_dead_letters(noria: Run, client: SyncClient) -> None:
    noria("dead", "purge", "--all", "--yes")
    handles = client.submit_many(task(fail, message=f"m{n}") for n in range(3))
    client.results(handles, 20, return_errors=True)
    shown = noria("dead", "list").out.splitlines()
    assert shown[0].split() == ["ID", "HANDLER", "FAILED", "ATTEMPTS", "ERROR"]
    assert {line.rpartition("ValueError: ")[2] for line in shown[1:]} == {"m0", "m1", "m2"}
    assert noria("dead", "list", "--error", "KeyError").err == "no dead letters\n"
    assert noria("dead", "replay", handles[0].id).code == 0
    client.results(handles, 20, return_errors=True)
    assert noria("dead", "replay", "--error", "ValueError", "--yes").err == "3 of 3 replayed\n"
    client.results([client.handle(t.id) for t in handles], 20, return_errors=True)
    assert noria("dead", "purge", handles[0].id, "--yes").err == "1 of 1 purged\n"
    assert noria("dead", "purge", "--all", "--yes").err == "2 of 2 purged\n"
    assert noria("dead", "list").err == "no dead letters\n"


# -- operating --------------------------------------------------------------------------------------


def test_handlers(noria: Run) -> None:
    shown = noria("handlers").out.splitlines()
    assert shown[0].split() == ["HANDLER", "ARGUMENTS", "NODES", "SOURCE"]
    line = next(line for line in shown if line.startswith("add"))
    assert "a: integer, b: integer = 0  n1" in line
    assert "client_handlers.py:" in line
    one = noria("handlers", "page").out
    assert re.search(r"^arguments +url: string\n +day: date$", one, re.MULTILINE)
    assert re.search(r"^timeout +5m$", one, re.MULTILINE)


def test_pause_and_resume(noria: Run) -> None:
    assert noria("pause", "raw").err == "raw is paused; go on: noria resume raw\n"
    assert re.search(r"^raw +paused", noria("handlers").out, re.MULTILINE)
    assert re.search(r"^state +paused$", noria("handlers", "raw").out, re.MULTILINE)
    assert noria("resume", "raw", "--json").json["paused"] is False


def test_nodes_and_stats(noria: Run, client: SyncClient) -> None:
    t = client.submit(task(gate, name="for-stats"))
    client.results([client.submit(task(fail))], 10, return_errors=True)
    while t.status().state != "running":
        pass
    assert re.search(r"^n1 +\d+ +active +4096", noria("nodes").out, re.MULTILINE)
    shown = noria("stats").out
    assert re.search(r"^node +n1 \(active", shown, re.MULTILINE)
    assert re.search(rf"^{t.id} +gate +1 ", shown, re.MULTILINE)
    assert re.search(r"ValueError: boom$", shown, re.MULTILINE)
    t.cancel()


def test_stats_do_without_anything() -> None:
    from node.cli import statistics

    statistics.show({})
    statistics.show({"counts": {"ready": 1}, "rates": {"x": {}}, "lanes": [{"lane": "high", "ready": 1}]})


# -- click ------------------------------------------------------------------------------------------


def names(group: Any) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, each in group.commands.items():
        found += [(name, *below) for below in names(each)] if hasattr(each, "commands") else [(name,)]
    return found


def test_the_commands_of_the_contract_are_there() -> None:
    assert {" ".join(path) for path in names(command)} == {
        "dev", "node", "check", "migrate", "new", "submit", "status", "wait", "result", "cancel", "retry", "tasks",
        "dead list", "dead show", "dead replay", "dead purge", "handlers", "pause", "resume", "stats", "top",
        "tenants", "tenant weight", "tenant pause", "tenant resume", "limits", "limit set", "limit rm", "task priority",
        "nodes", "ring", "locate", "views", "drain", "schedules", "schedule set", "schedule show", "schedule next",
        "schedule pause", "schedule resume", "schedule run", "schedule delete", "workflow show", "workflow list",
        "workflow cancel",
    }  # fmt: skip


@pytest.mark.parametrize("path", names(command), ids=" ".join)
def test_every_command_explains_itself_and_every_option(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(command, [*path, "--help"])
    assert done.exit_code == 0
    each: Any = command
    for name in path:
        each = each.commands[name]
    assert each.help
    assert each.short_help
    assert all(option.help for option in each.params if option.param_type_name == "option")


def test_every_command_that_reads_has_json() -> None:
    without = {"dev", "node", "new"}
    for path in names(command):
        each: Any = command
        for name in path:
            each = each.commands[name]
        assert ("as_json" in {option.name for option in each.params}) == (path[0] not in without), path


def test_every_setting_is_a_flag_of_node() -> None:
    from node.settings import SETTINGS

    flags = {word for option in command.commands["node"].params for word in option.opts}
    assert {setting.flag for setting in SETTINGS} <= flags


def test_the_shell_completes_commands_and_handlers(process: Run) -> None:
    def complete(words: str, index: int) -> set[str]:
        done = process(_NORIA_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(index))
        assert done.code == 0
        return {line.partition(",")[2] for line in done.out.split()}

    assert complete("noria st", 1) == {"status", "stats"}
    assert complete("noria submit ", 2) == {"add", "echo", "fail", "gate", "page", "progress", "raw"}
    assert complete("noria pause g", 2) == {"gate"}
    assert complete("noria submit add --priority ", 4) == {"high", "medium", "low"}
