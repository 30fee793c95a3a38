"""`noria schedules` and `noria schedule …` against a node."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from node.client import SyncClient
    from tests.integration.cli.conftest import Done

NIGHTLY = ("schedule", "set", "nightly", "--cron", "0 3 * * *", "--tz", "Europe/Berlin")


@pytest.fixture(autouse=True)
def none_left(client: SyncClient) -> Iterator[None]:
    yield
    for one in client.schedules():
        client.delete_schedule(one.name)


def test_from_set_to_delete(noria: Callable[..., Done], client: SyncClient) -> None:
    made = noria(*NIGHTLY, "--overlap", "skip", "--priority", "low", "add", "a:=1", "b:=2")
    assert made.code == 0, made.err
    assert "nightly fires next at 20" in made.err
    assert made.out == ""
    found = client.schedule("nightly")
    assert (found.cron, found.time_zone, found.overlap) == ("0 3 * * *", "Europe/Berlin", "skip")
    assert found.raw["task"] == {"handler": "add", "payload": {"a": 1, "b": 2}, "priority": "low"}
    ran = noria("schedule", "run", "nightly")
    assert client.handle(ran.out.strip()).result(10) == 3
    [heading, row] = noria("schedules").out.splitlines()
    assert heading.split() == ["SCHEDULE", "RULE", "HANDLER", "NEXT", "LAST", "STATE"]
    assert row.startswith("nightly   0 3 * * * Europe/Berlin  add")
    assert row.endswith("succeeded")
    shown = noria("schedule", "show", "nightly").out
    assert "1; 0 missed, 0 skipped for overlap" in shown
    assert noria("schedule", "pause", "nightly").err.startswith("nightly is paused")
    assert "paused" in noria("schedules").out
    assert noria("schedule", "next", "nightly").out == ""
    assert "fires next" in noria("schedule", "resume", "nightly").err
    assert noria("schedule", "delete", "nightly").code == 0
    assert noria("schedule", "show", "nightly").code == 4
    assert "no schedules" in noria("schedules").err


def test_next_times_one_a_line(noria: Callable[..., Done]) -> None:
    noria(*NIGHTLY, "add", "a:=1")
    lines = noria("schedule", "next", "nightly", "-n", "3").out.splitlines()
    assert len(lines) == 3
    assert {line[11:17] for line in lines} <= {"01:00:", "02:00:"}
    times = noria("schedule", "next", "nightly", "-n", "2", "--json").json["next"]
    assert len(times) == 2
    assert datetime.fromisoformat(times[0]) > datetime.now(UTC)


def test_json_is_what_the_node_tells(noria: Callable[..., Done], client: SyncClient) -> None:
    made = noria(
        "schedule", "set", "beat", "--every", "1h30m", "--catch-up", "all", "add", "a:=1", "--json"
    ).json
    assert (made["every_s"], made["catch_up"], made["cron"]) == (5400, "all", None)
    assert noria("schedules", "--json").json["schedules"][0]["name"] == "beat"
    assert noria("schedule", "run", "beat", "--json").json["handler"] == "add"
    assert "every 1h 30m" in noria("schedules").out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("set", "s", "add", "a:=1"), 2, "either --cron or --every"),
        (("set", "s", "--cron", "* * * * *", "--every", "5s", "add", "a:=1"), 2, "either --cron or --every"),
        (("set", "s", "--cron", "61 * * * *", "add", "a:=1"), 5, "#/cron: bad minute"),
        (("set", "s", "--cron", "* * * * *", "--tz", "Mars", "add", "a:=1"), 5, "#/time_zone"),
        (("set", "s", "--cron", "* * * * *", "add", "a=x"), 5, "#/task/payload/a"),
        (("pause", "nobody"), 4, "nobody"),
        (("run", "nobody"), 4, "nobody"),
        (("delete", "nobody"), 4, "nobody"),
    ],
)
def test_what_is_wrong_has_its_exit_code(
    noria: Callable[..., Done], arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = noria("schedule", *arguments)
    assert done.code == code
    assert says in done.err
