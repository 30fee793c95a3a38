"""What a caller does with one task: submit, look, wait for the typed result, cancel, retry."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest

from actors import InvalidInput, task
from node.client import (
    InvalidTask,
    KeyReused,
    NotFound,
    Refused,
    TaskCancelled,
    TaskFailed,
    TaskHandle,
    WaitTimeout,
)
from tests.support.client_handlers import GATES, LATER, Page, add, echo, fail, gate, page, progress, raw

if TYPE_CHECKING:
    from node.client import Client


async def test_a_result_comes_back_as_the_handlers_type(client: Client) -> None:
    t = await client.submit(task(page, url="http://x", day=date(2030, 1, 31)))
    result: Page = await t.result(timeout_s=10)
    assert result == Page("http://x", date(2030, 2, 1), ("http://x/1", "http://x/2"))
    assert await t.result(timeout_s=0) == result  # known now, nobody is asked


async def test_a_producer_without_the_code_names_the_handler(client: Client) -> None:
    t = await client.submit("page", {"url": "http://x", "day": "2030-01-31"})
    assert await t.result(10) == {
        "url": "http://x",
        "day": "2030-02-01",
        "links": ["http://x/1", "http://x/2"],
    }


async def test_a_handle_by_id_knows_the_type_of_a_like_task(client: Client) -> None:
    sent = await client.submit(task(page, url="u", day=date(2030, 1, 1)))
    assert (await client.handle(sent.id).result(10))["day"] == "2030-01-02"
    typed = client.handle(sent.id, like=task(page, url="", day=date(2030, 1, 1)))
    assert (await typed.result(10)).day == date(2030, 1, 2)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**63 - 1,
        0.1,
        1e300,
        "ünï\u2028",
        [],
        {},
        [{"a": [None]}],
        "null",
        "x" * 100_000,
    ],
    ids=lambda v: repr(v)[:20],
)
async def test_values_come_back_exactly(client: Client, value: Any) -> None:
    for t in (await client.submit(task(echo, value=value)), await client.submit("echo", {"value": value})):
        back = await t.result(10)
        assert back == value
        assert type(back) is type(value)


async def test_bytes_come_back_as_bytes(client: Client) -> None:
    assert await (await client.submit(task(raw, size=70_000))).result(10) == b"\x00\xff" * 70_000
    assert await (await client.submit("raw", {"size": 2})).result(10) == b"\x00\xff\x00\xff"
    assert await (await client.submit("raw", {"size": 0})).result(10) == b""


async def test_call_waits_for_the_result_in_one_request(client: Client) -> None:
    assert await client.call(task(add, a=1, b=2), timeout_s=10) == 3
    assert await client.call("add", {"a": 5}, timeout_s=10) == 5
    with pytest.raises(TaskFailed, match="boom"):
        await client.call(task(fail), timeout_s=10)
    with pytest.raises(WaitTimeout) as caught:
        await client.call(task(gate), timeout_s=0.2)
    assert (await client.get(caught.value.task_id)).state == "running"


async def test_a_failure_tells_the_handlers_error(client: Client) -> None:
    t = await client.submit(task(fail, message="no such page"))
    with pytest.raises(TaskFailed) as caught:
        await t.result(10)
    failed = caught.value
    assert (failed.type, failed.message, failed.attempt) == ("ValueError", "no such page", 1)
    assert "raise ValueError(message)" in failed.traceback
    assert failed.task_id == t.id
    assert str(failed) == f"fail {t.id} failed in attempt 1: ValueError: no such page"


async def test_waiting_ends_in_time_and_the_task_goes_on(client: Client) -> None:
    t = await client.submit(task(gate, name="slow"))
    with pytest.raises(WaitTimeout, match=r"still running after 0\.1 s"):
        await t.result(timeout_s=0.1)
    with pytest.raises(WaitTimeout):
        await t.result(timeout_s=0)
    GATES.opened["slow"].set()
    assert await t.result(timeout_s=10) == "slow"


async def test_a_waiting_task_is_cancelled_at_once(client: Client) -> None:
    t = await client.submit(task(add, a=1).options(run_at=LATER))
    assert (await t.status()).state == "scheduled"
    assert (await t.cancel()).state == "cancelled"
    with pytest.raises(TaskCancelled, match="was cancelled"):
        await t.result(10)
    assert (await t.cancel()).state == "cancelled"  # repeatable


async def test_a_running_task_is_asked_to_end(client: Client) -> None:
    t = await client.submit(task(gate))
    await GATES.started["g"].wait()
    assert (await t.cancel()).cancel_requested_at is not None
    with pytest.raises(TaskCancelled):
        await t.result(10)


async def test_a_failed_task_runs_again(client: Client) -> None:
    t = await client.submit(task(fail))
    with pytest.raises(TaskFailed):
        await t.result(10)
    assert not (await t.retry()).final
    with pytest.raises(TaskFailed) as caught:
        await t.result(10)
    assert caught.value.attempt == 2
    assert [attempt.kind for attempt in await t.attempts()] == ["replayed", "failed"]


async def test_a_task_that_succeeded_is_not_retried(client: Client) -> None:
    t = await client.submit(task(add, a=1))
    await t.result(10)
    with pytest.raises(Refused) as caught:
        await t.retry()
    assert (caught.value.status, caught.value.slug, caught.value.state) == (409, "wrong-state", "succeeded")


async def test_status_tells_what_the_contract_tells(client: Client) -> None:
    options = task(add, a=1).options(
        idempotency_key="k1", priority="high", max_attempts=7, run_at=LATER, metadata={"order": 5}
    )
    info = await (await client.submit(options)).status()
    assert (info.handler, info.state, info.priority, info.max_attempts) == ("add", "scheduled", "high", 7)
    assert (info.idempotency_key, info.run_at, info.metadata) == ("k1", LATER, {"order": 5})
    assert info.waiting is not None
    assert (info.waiting.reason, info.waiting.until) == ("due_later", LATER)
    assert info.created_at.tzinfo is not None
    assert abs((datetime.now(UTC) - info.created_at).total_seconds()) < 30


async def test_progress_of_a_running_task(client: Client) -> None:
    t = await client.submit(task(progress))
    await GATES.started["progress"].wait()
    info = await t.status()
    while info.progress is None:  # it is written within a second
        info = await client.get(t.id, wait_s=0.05)
    assert (info.progress.done, info.progress.total, info.progress.message) == (3, 10, "lifting")


async def test_options_of_a_named_task(client: Client) -> None:
    t = await client.submit(
        "add", {"a": 1}, idempotency_key="k", priority="low", run_at=LATER, timeout_s=5, metadata={"x": 1}
    )
    info = await t.status()
    assert (info.idempotency_key, info.priority, info.raw["timeout_s"]) == ("k", "low", 5)


async def test_the_same_request_again_is_the_same_task(client: Client) -> None:
    first = await client.submit(task(add, a=1).options(idempotency_key="k"))
    again = await client.submit(task(add, a=1).options(idempotency_key="k"))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.id == first.id
    by_name = await client.submit("add", {"a": 1}, idempotency_key="k")
    assert by_name.id != "" and by_name.duplicate  # noqa: PT018 - one thought


async def test_a_key_for_another_request_is_refused_with_the_task_that_has_it(client: Client) -> None:
    first = await client.submit(task(add, a=1).options(idempotency_key="k"))
    with pytest.raises(KeyReused) as caught:
        await client.submit(task(add, a=2).options(idempotency_key="k"))
    assert caught.value.existing_id == first.id
    assert len(caught.value.digest) == len(caught.value.existing_digest) == 64
    assert caught.value.digest != caught.value.existing_digest


async def test_what_is_wrong_is_named_with_its_place(client: Client) -> None:
    with pytest.raises(InvalidTask) as caught:
        await client.submit("add", {"a": "one", "c": 2})
    assert {pointer for pointer, _ in caught.value.errors} == {"#/payload/a", "#/payload/c"}
    assert caught.value.status == 422
    assert "\n  #/payload/a: " in str(caught.value)
    assert isinstance(caught.value, InvalidInput)  # as task(add, a="one") raises
    with pytest.raises(InvalidTask) as caught:
        await client.submit("ad", {})
    assert [pointer for pointer, _ in caught.value.errors] == ["#/handler"]


async def test_unknown_tasks(client: Client) -> None:
    for task_id in ("01a20c19-6313-7000-99af-7ef162549394", "nonsense", "a/b?c"):
        for act in (client.get, client.cancel, client.retry, client.attempts, client.raw_result):
            with pytest.raises(NotFound):
                await act(task_id)
        with pytest.raises(NotFound):
            await client.handle(task_id).result(1)


async def test_a_task_holds_its_own_arguments(client: Client) -> None:
    with pytest.raises(TypeError, match=r"task\(fn, …\).options"):
        await client.submit(task(add, a=1), {"a": 2})  # type: ignore[call-overload]  # that is the point


async def test_a_client_works_without_a_with_block(client: Client) -> None:
    assert isinstance(await client.submit("add", {"a": 1}), TaskHandle)
    await client.close()
    assert await client.call("add", {"a": 2}, timeout_s=10) == 2  # it opens again
