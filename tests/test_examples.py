"""Every example is loaded as a node would load it, and run."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

from actors import Harness, Task, task
from actors.authoring.registry import Registry
from node.client import Client
from runtime.adapters.postgres import PostgresStore
from runtime.core.task import AttemptKind, State
from tests.support.memory_node import memory_node

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
LINES_MAX = 60


def example(number: str) -> Any:
    [path] = [path for path in EXAMPLES if path.name.startswith(number)]
    return importlib.import_module(f"examples.{path.stem}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES_MAX
    assert f"examples/{path.name}" in "\n".join(lines)


def test_noria_check_accepts_all_of_them() -> None:
    command = [sys.executable, "-m", "node.cli", "check", *(str(path.relative_to(ROOT)) for path in EXAMPLES)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for path in EXAMPLES:
        assert path.name in checked.stdout


@pytest.mark.timeout(150)
def test_the_demo_kills_a_node_drains_another_and_finds_everything_in_order() -> None:
    command = [sys.executable, "-m", "examples.census.demo", "60"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=140)
    assert played.returncode == 0, played.stdout + played.stderr
    for part in ("killed node-2", "asked node-3 to leave", "node-3 is gone", "nothing was lost", "tasks/s"):
        assert part in played.stdout
    assert "NO" not in played.stdout.split()
    assert played.stderr == ""


async def test_01_hello() -> None:
    hello = example("01")
    async with Harness(hello.greet) as harness:
        greeted = await harness.submit(Task(handler="greet", payload={"name": "Ada"}))
        assert greeted.result == {"text": "Hello, Ada!", "attempt": 1}


async def test_02_retry_and_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = example("02")
    charge = Task(handler="charge", payload={"card": "4711", "cents": 1999})
    async with Harness(bank.charge) as harness:
        charged = await harness.submit(charge)
        assert charged.result == f"{charged.id}: 1999 from 4711"
        nothing = await harness.submit(Task(handler="charge", payload={"card": "4711", "cents": 0}))
        assert (nothing.state, nothing.error and nothing.error.type) == (State.FAILED, "Fail")

        async def busy_for_s(self: object) -> float:
            return 30.0

        monkeypatch.setattr(bank.Bank, "busy_for_s", busy_for_s)
        waiting = await harness.submit(charge)
        await harness.advance(29)
        assert waiting.attempt == 1
        await harness.run_until_idle()
        assert (waiting.state, waiting.failures) == (State.FAILED, 5)
        monkeypatch.undo()

        async def refuse(self: object, *args: object, **kwargs: object) -> str:
            raise PermissionError("stolen")

        monkeypatch.setattr(bank.Bank, "charge", refuse)
        refused = await harness.submit(charge)
        assert (refused.state, refused.failures) == (State.FAILED, 1)


async def test_03_resources() -> None:
    resources = example("03")
    async with Harness(resources.fetch, resources={resources.ClientSession: FakeSession()}) as harness:
        fetched = await harness.submit(Task(handler="fetch", payload={"url": "http://x/page"}))
        assert fetched.result == {"url": "http://x/page", "status": 200, "size_bytes": 4}
        gone = await harness.submit(Task(handler="fetch", payload={"url": "http://x/gone"}))
        assert (gone.state, gone.error and gone.error.message) == (State.FAILED, "http://x/gone is gone")


async def test_03_the_real_resource_is_opened_and_closed() -> None:
    resources = example("03")
    async with Harness(resources.fetch, resources.http) as harness:
        refused = await harness.submit(Task(handler="fetch", payload={"url": "http://127.0.0.1:1/"}))
        assert refused.state is State.SCHEDULED
        assert refused.error is not None
        assert refused.error.type == "aiohttp.client_exceptions.ClientConnectorError"


async def test_04_threads_and_processes(tmp_path: Path) -> None:
    bodies = example("04")
    path = tmp_path / "text"
    await asyncio.to_thread(path.write_text, "one two\nthree\n")
    async with Harness(bodies.tally, bodies.count_primes) as harness:
        tallied = await harness.submit(Task(handler="tally", payload={"path": str(path)}))
        counted = await harness.submit(Task(handler="count_primes", payload={"below": 1000}))
        assert tallied.result == {"lines": 2, "words": 3, "bytes": 14}
        assert counted.result == 168


async def test_05_snooze_and_progress() -> None:
    patience = example("05")
    async with Harness(patience.await_delivery, patience.import_rows) as harness:
        awaited = await harness.submit(Task(handler="await_delivery", payload={"parcel": "p"}))
        imported = await harness.submit(Task(handler="import_rows", payload={"rows": 2500}))
        await harness.run_until_idle()
        assert awaited.result == "p was delivered; asked 4 times, failed 0"
        assert [each.kind for each in awaited.attempts] == [AttemptKind.SNOOZED] * 3
        assert imported.result == 2500


async def test_06_children(tmp_path: Path) -> None:
    family = example("06")

    def grow() -> None:
        (tmp_path / "folder").mkdir()
        for name in ("a", "folder/b", "folder/c"):
            (tmp_path / name).write_text(name)

    await asyncio.to_thread(grow)
    async with Harness(family.walk, family.measure) as harness:
        walked = await harness.submit(Task(handler="walk", payload={"path": str(tmp_path)}))
        await harness.run_until_idle()
        assert walked.result == 2
        assert sorted(each.result for each in await harness.tasks("measure")) == [1, 8, 8]


async def test_07_testing() -> None:
    testing = example("07")
    tests = [getattr(testing, name) for name in dir(testing) if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        await test()


async def test_08_large_results() -> None:
    large = example("08")
    async with Harness(large.export, large.sales) as harness:
        exported = await harness.submit(Task(handler="export", payload={"rows": 50_000}))
        found = await harness.submit(Task(handler="sales", payload={"rows": 10_000}))
        await harness.run_until_idle()
        assert exported.result.startswith(b"0,shop 0,0\r\n1,shop 1,31\r\n")
        assert exported.result.count(b"\n") == 50_000
        assert len(found.result) == 10_000


async def test_09_schedules() -> None:
    schedules = example("09")
    async with memory_node(Registry(schedules.report)) as node, Client(node.url) as client:
        for _ in range(2):
            made = await asyncio.to_thread(schedules.set_up, node.url)
        assert (made.name, made.overlap, {at.hour for at in made.next} <= {1, 2}) == ("nightly", "skip", True)
        ran = await client.run_schedule("nightly")
        result = await client.handle(ran.id).result(10)
        assert result == f"full report of nightly for {datetime.now(UTC):%Y-%m-%d}"


async def test_10_unique() -> None:
    unique = example("10")
    async with Harness(unique.index, unique.statement, unique.nudge) as harness:
        saves = []
        for revision in range(3):
            saves.append(await harness.submit(unique.saved("a", revision)))
            await harness.advance(1)
        await harness.advance(1)
        assert [each.state for each in saves] == [State.CANCELLED, State.CANCELLED, State.SUCCEEDED]
        assert saves[-1].result == "indexed a, revision 2"
        one = await harness.submit(Task(handler="statement", payload={"month": "05"}, delay_s=5))
        assert (await harness.submit(Task(handler="statement", payload={"month": "05"}))).id == one.id


async def test_12_transactions(pg_dsn: str) -> None:
    orders = example("12")
    async with PostgresStore.open(pg_dsn) as store:
        await store.publish(Registry(orders.charge_order).entries())
    shop = await asyncpg.connect(pg_dsn)
    try:
        await shop.execute(orders.TABLES)
        task_id = await orders.buy(shop, 7, 1999)
        with pytest.raises(asyncpg.UniqueViolationError):
            await orders.buy(shop, 7, 1999)
        asked = await shop.fetch("SELECT id, payload FROM noria.task")
        assert [(row["id"], row["payload"]) for row in asked] == [(task_id, b'{"order_id":7}')]
        async with Harness(orders.charge_order, orders.send_receipt, connection=shop) as harness:
            charge = await harness.submit(Task(handler="charge_order", payload={"order_id": 7}))
            await harness.run_until_idle()
            assert charge.result == 1999
            [receipt] = await harness.tasks("send_receipt")
            assert receipt.result == "order 7: 19.99 received"
            unknown = await harness.submit(Task(handler="charge_order", payload={"order_id": 8}))
            assert (unknown.state, unknown.error and unknown.error.type) == (State.FAILED, "Fail")
        assert await shop.fetchval("SELECT sum(cents) FROM payment") == 1999
    finally:
        await shop.close()


async def test_14_limits() -> None:
    limits = example("14")
    async with Harness(limits.notify, limits.bill) as harness:
        mails = [
            await harness.submit(Task(handler="notify", payload={"to": f"{n}@example.com"}))
            for n in range(25)
        ]
        assert [each.state for each in mails].count(State.READY) == 5
        charged = await harness.submit(limits.billed("acme", 500))
        assert charged.result == "500 cents of acme: accepted"
        await harness.advance(0.06)
        assert {each.state for each in mails} == {State.SUCCEEDED}


class FakeSession:
    def get(self, url: str) -> FakeResponse:
        return FakeResponse(404 if url.endswith("gone") else 200)


class FakeResponse:
    def __init__(self, status: int) -> None:
        self.status = status

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    def raise_for_status(self) -> None: ...

    async def read(self) -> bytes:
        return b"page"


async def test_11_workflows() -> None:
    workflows = example("11")
    handlers = (workflows.count, workflows.words, workflows.most_frequent, workflows.tell)
    async with Harness(*handlers) as harness:
        await harness.submit(Task(handler="count", payload={"text": "one two\ntwo three"}))
        [join] = await harness.tasks("most_frequent")
        assert join.result == "two"
        told = await harness.submit_workflow(workflows.flow(["a b", "b"]))
        assert told["tell"].result == "the word is b"


async def test_13_batches() -> None:
    batches = example("13")
    async with Harness(batches.send_letters, batches.embed_texts) as harness:
        letters = [
            await harness.submit(task(batches.send_letters, batches.Letter(to, "hi"))) for to in ("a@b", "c")
        ]
        texts = [await harness.submit(task(batches.embed_texts, text)) for text in ("one two", "")]
        await harness.advance(0.1)
        assert [each.state for each in letters] == [State.SUCCEEDED, State.FAILED]
        assert letters[0].result == "sent"
        assert [each.state for each in texts] == [State.SUCCEEDED, State.SCHEDULED]
        assert texts[0].result == 3.5
