"""Task: a frozen value that knows its request, its options' limits and the type of its result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from actors import Context, InvalidInput, RegistrationError, Task, handler, task

NOON = datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=1)))


@dataclass
class Page:
    title: str


@handler
async def scrape(ctx: Context, url: str, depth: int = 0) -> Page:
    return Page(url)


@handler("files.fingerprint", cpu=True)
def fingerprint(ctx: Context, data: bytes) -> str:
    return ""


class Greeter:
    @handler
    def greet(self, ctx: Context) -> None: ...


def unmarked(ctx: Context) -> None: ...


def test_a_task_is_named_as_its_handler_is() -> None:
    assert task(scrape, url="x").handler == "scrape"
    assert task(fingerprint, b"\xff") == Task(handler="files.fingerprint", payload={"data": "_w=="})


def test_its_result_has_a_type() -> None:
    assert task(scrape, url="x").decode_result(b'{"title":"t"}') == Page("t")
    assert Task(handler="scrape").decode_result(b'{"title":"t"}') == {"title": "t"}
    with pytest.raises(InvalidInput, match="the result of scrape is not a Page"):
        task(scrape, url="x").decode_result(b"5")


def test_a_task_is_frozen() -> None:
    made = task(scrape, url="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.handler = "y"  # type: ignore[misc]  # the point
    assert made.options(priority="high") is not made
    assert made.priority is None


def test_options_become_the_request() -> None:
    made = task(scrape, url="x").options(
        idempotency_key="k",
        priority="low",
        requires=["gpu"],
        prefers=("eu",),
        run_at=NOON,
        expires_at=NOON + timedelta(days=1, microseconds=1),
        timeout_s=5,
        max_attempts=1,
        metadata={"by": ["me", None]},
    )
    request = made.to_request()
    assert request == {
        "handler": "scrape",
        "payload": {"url": "x"},
        "idempotency_key": "k",
        "priority": "low",
        "requires": ["gpu"],
        "prefers": ["eu"],
        "run_at": "2026-01-02T11:00:00Z",
        "expires_at": "2026-01-03T11:00:00.000001Z",
        "timeout_s": 5,
        "max_attempts": 1,
        "metadata": {"by": ["me", None]},
    }
    again = Task.from_request(request)
    assert again.to_request() == request
    assert again.run_at == NOON
    assert again.run_at.tzinfo is not None


def test_what_is_not_said_is_not_sent() -> None:
    plain = task(scrape, url="x")
    assert plain.to_request() == {"handler": "scrape", "payload": {"url": "x"}}
    assert plain.options(delay_s=0).to_request()["delay_s"] == 0
    assert plain.options(delay_s=1).options(delay_s=None).to_request() == plain.to_request()


@pytest.mark.parametrize(
    ("options", "pointer", "said"),
    [
        ({"idempotency_key": ""}, "#/idempotency_key", "0 characters; 1 to 255"),
        ({"idempotency_key": "x" * 256}, "#/idempotency_key", "256 characters"),
        ({"idempotency_key": "€" * 171}, "#/idempotency_key", "513 bytes as UTF-8; at most 512"),
        ({"idempotency_key": "a\0"}, "#/idempotency_key", "NUL"),
        ({"actor_key": "\ud800"}, "#/actor_key", "lone surrogate"),
        ({"actor_key": 5}, "#/actor_key", "5 is not text"),
        ({"priority": "urgent"}, "#/priority", "high, medium, low"),
        ({"priority": ["high"]}, "#/priority", "high, medium, low"),
        ({"requires": ["t"] * 17}, "#/requires", "17 tags; at most 16"),
        ({"requires": "gpu"}, "#/requires", "not a list of tags"),
        ({"prefers": [""]}, "#/prefers", "tag ''"),
        ({"delay_s": -1}, "#/delay_s", "-1 is not"),
        ({"delay_s": float("nan")}, "#/delay_s", "nan is not"),
        ({"delay_s": 1, "run_at": NOON}, "#/run_at", "not both"),
        ({"run_at": datetime(2026, 1, 2)}, "#/run_at", "no time zone"),  # noqa: DTZ001 - the point
        ({"expires_at": "tomorrow"}, "#/expires_at", "not a datetime"),
        ({"timeout_s": 0}, "#/timeout_s", "above 0"),
        ({"timeout_s": True}, "#/timeout_s", "True is not"),
        ({"max_attempts": 1001}, "#/max_attempts", "1…1000"),
        ({"metadata": {"x": "y" * 4096}}, "#/metadata", "bytes as JSON; at most 4096"),
        ({"metadata": {"x": float("inf")}}, "#/metadata", "at /x"),
        ({"metadata": {"x": object()}}, "#/metadata", "has no JSON form"),
        ({"metadata": [1]}, "#/metadata", "list is not an object"),
        ({"delay": 1}, "#/delay", "is not an option; known are idempotency_key"),
    ],
)
def test_a_wrong_option_names_field_value_and_what_is_allowed(
    options: dict[str, Any], pointer: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        task(scrape, url="x").options(**options)
    assert [each for each, _ in refused.value.errors] == [pointer]
    assert said in refused.value.errors[0][1]
    assert "scrape" in str(refused.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        Task(handler="Bad Name", payload=[], timeout_s=-1)  # type: ignore[arg-type]  # the point
    assert [pointer for pointer, _ in refused.value.errors] == ["#/handler", "#/payload", "#/timeout_s"]


def test_only_handlers_make_tasks() -> None:
    with pytest.raises(RegistrationError, match=r"test_task_values.py:\d+: function unmarked: is not marked"):
        task(unmarked)
    with pytest.raises(RegistrationError, match=r"actor\(TheActor, key\)"):
        task(Greeter.greet)  # type: ignore[call-overload]  # the point


def test_instants_are_sent_in_utc() -> None:
    assert task(scrape, url="x").options(run_at=NOON).run_at is NOON
    assert (
        task(scrape, url="x").options(run_at=NOON.astimezone(UTC)).to_request()["run_at"]
        == "2026-01-02T11:00:00Z"
    )
