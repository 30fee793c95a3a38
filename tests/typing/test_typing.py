"""The author's face under both type checkers: what is right passes in strict mode, what is wrong does not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

import actors.harness  # noqa: F401 - the sample imports it while a loop runs, and what it imports reads files
from actors import Context, Fail, Retry
from actors.authoring.lifespans import LifespanDef, open_lifespans

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = ("sample.py", "rejected.py")

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Complaint:
    file: str
    line: int
    text: str


def run(*command: str) -> str:
    """What the tool says; it must have found something, because one of the modules is wrong on purpose."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr + done.stdout
    return done.stdout


def run_mypy(cache: Path) -> list[Complaint]:
    modules = [f"-m=tests.typing.{Path(name).stem}" for name in FILES]
    said = run("mypy", "--strict", "--output=json", f"--cache-dir={cache}", *modules)
    reports = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [
        Complaint(Path(each["file"]).name, each["line"], each["message"])
        for each in reports
        if each["severity"] == "error" and Path(each["file"]).name in FILES
    ]


def run_pyright() -> list[Complaint]:
    """Both modules say `# pyright: strict` themselves."""
    paths = [str(HERE / name) for name in FILES]
    report = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, *paths))
    assert report["summary"]["filesAnalyzed"] == len(FILES), report
    return [
        Complaint(Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Complaint]]:
    return {"mypy": run_mypy(tmp_path_factory.mktemp("mypy")), "pyright": run_pyright()}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_what_is_right_passes(complaints: dict[str, list[Complaint]], checker: str) -> None:
    assert [each for each in complaints[checker] if each.file == "sample.py"] == []


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_what_is_wrong_does_not(complaints: dict[str, list[Complaint]], checker: str) -> None:
    marked = marked_lines()
    assert len(marked) > 25
    found = {each.line for each in complaints[checker] if each.file == "rejected.py"}
    assert (marked - found, found - marked) == (set(), set()), "(passed, complained about without a mark)"


def marked_lines() -> set[int]:
    lines = (HERE / "rejected.py").read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if "# E:" in line and not line.startswith('"')}


async def test_the_sample_runs() -> None:
    from tests.typing import sample

    ctx = Context.for_test()
    where: sample.Where = {"country": "NL", "seen": datetime(2026, 1, 2, tzinfo=UTC)}
    assert sample.ship(ctx, sample.Order(id=2, amount=Decimal("9.90")), where) == Decimal("9.90")
    assert sample.fingerprint(ctx, "/etc/hosts") == "1:/etc/hosts"

    account = sample.Account(balance_cents=3)
    assert await account.deposit(ctx, amount_cents=5) == 8
    assert await account.balance(ctx) == 8
    assert sample.Account().notes == []  # not shared with the other instance

    assert sample.read(b'{"title":"t","links":["u"]}') == sample.Page("t", ["u"])
    assert sample.deposit.to_request() == {
        "handler": "account.deposit",
        "payload": {"amount_cents": 5},
        "actor_key": "42",
    }
    assert sample.inherited.handler == "savings.deposit"


async def test_the_samples_scraper_runs_against_a_real_server() -> None:
    from aiohttp import ClientSession, web
    from aiohttp.test_utils import TestServer

    from tests.typing import sample

    async def serve(request: web.Request) -> web.Response:
        status = int(request.path[1:])
        return web.Response(status=status, text="the title\nlink-1\nlink-2")

    app = web.Application()
    app.router.add_get("/{status}", serve)
    async with TestServer(app) as server, open_lifespans([LifespanDef.of(sample.http)]) as resources:
        assert isinstance(resources.find(ClientSession), ClientSession)
        ctx = Context(task_id=uuid4(), attempt=1, handler="scrape", resources=resources)
        page = await sample.scrape(ctx, str(server.make_url("/200")), depth=1)
        assert page == sample.Page("the title", ["link-1", "link-2"])
        assert [(child.payload, child.idempotency_key) for child in ctx.children] == [
            ({"url": "link-1", "depth": 0}, "scrape:link-1"),
            ({"url": "link-2", "depth": 0}, "scrape:link-2"),
        ]
        with pytest.raises(Fail, match="gone"):
            await sample.scrape(ctx, str(server.make_url("/404")))
        with pytest.raises(Retry, match="busy") as busy:
            await sample.scrape(ctx, str(server.make_url("/429")))
        assert busy.value.after_s == 60
