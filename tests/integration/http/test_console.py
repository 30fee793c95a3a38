"""The console in a real browser: what it shows, what it does, and that it stays calm under load."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from aiohttp import web
from playwright.async_api import expect

from node.http.app import make_app
from runtime.core.task import State
from tests.support import browser as browsers
from tests.support.http_api import speaking_to
from tests.support.packages import ServiceMissingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from tests.support.http_api import Gates, Http
    from tests.support.memory_node import MemoryNode

FOLDER: Final = Path(__file__).parents[3] / "node" / "console"
EVENTS: Final = 20_000
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.allow_blocking("a browser is started, and /metrics reads /proc"),
]


@pytest.fixture(scope="session")
def chromium() -> str:
    try:
        return browsers.executable()
    except ServiceMissingError as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with browsers.browser(chromium) as started:
        yield started


class Seen:
    """What a page complained of, and where it asked."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.add(urlsplit(request.url).netloc))

    def _heard(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


@pytest.fixture
async def page(browser: Browser, node: MemoryNode) -> AsyncIterator[Page]:
    """The console, open; fails the test if it complains or asks anybody but its node."""
    page = await browser.new_page(viewport={"width": 1440, "height": 1000})
    seen = Seen(page)
    await page.goto(node.url)
    await expect(page.locator("#status")).to_have_text("live")
    yield page
    assert seen.asked == {urlsplit(node.url).netloc}
    assert seen.complaints == []


async def test_it_shows_what_goes_on(page: Page, http: Http, gates: Gates) -> None:
    await http.submit("gate", {"name": "g"})
    await gates.started["g"].wait()
    await http.done("fail", {"message": "no luck"})
    await http.done("add", {"a": 1})
    await expect(page).to_have_title("n1 · Noria")
    await expect(page.locator("#running tr")).to_have_count(1)
    await expect(page.locator("#running")).to_contain_text("gate")
    await expect(page.locator("#failures")).to_contain_text("ValueError no luck")
    await expect(page.locator("#recent")).to_contain_text("add")
    await expect(page.locator("#recent tr").first).to_contain_text("succeeded")
    await expect(page.locator("#handlers tr")).to_have_count(6)
    await expect(page.locator("#nodes")).to_contain_text("4,096 slots")
    await expect(page.locator("#legend")).to_contain_text("accepted")
    await expect(page.locator("#latency")).to_contain_text("p99")
    assert await page.locator("#chart path.accepted").get_attribute("d")
    await expect(page.locator(".state[data-state=failed] b")).to_have_text("1", timeout=20_000)
    await expect(page.locator(".state[data-state=running] b")).to_have_text("1")


async def test_a_failure_is_replayed(page: Page, http: Http) -> None:
    task = await http.done("fail", {"message": "no luck"})
    button = page.locator("#failures button.act")
    await button.click()
    await expect(button.first).to_be_visible()
    await expect(page.locator("#failures tr", has_text="Replayed")).to_have_count(1)
    again = await http.finished(task["id"])
    assert again["attempt"] == 2
    await expect(page.locator("#failures tr")).to_have_count(2)


async def test_a_handler_is_paused_and_resumed(page: Page, http: Http) -> None:
    row = page.locator("#handlers tr", has_text="add")
    await row.get_by_role("button", name="pause add").click()
    await expect(row.locator(".tag")).to_be_visible(timeout=20_000)
    assert (await http.get("/v1/handlers/add")).json["paused"] is True
    await row.get_by_role("button", name="resume add").click()
    await expect(row.locator(".tag")).to_be_hidden(timeout=20_000)
    assert (await http.get("/v1/handlers/add")).json["paused"] is False


async def test_a_task_is_looked_at(page: Page, http: Http) -> None:
    failed = await http.done("fail", {"message": "no luck"})
    await page.locator("#failures .id").click()
    dialog = page.locator("#task")
    await expect(dialog).to_contain_text(failed["id"])
    await expect(dialog).to_contain_text("ValueError: no luck")
    await expect(dialog.locator("pre")).to_contain_text("in fail")
    await dialog.get_by_role("button", name="Close").click()
    await expect(dialog).to_be_hidden()
    delayed = await http.submit("add", {"a": 1}, delay_s=500, idempotency_key="my key/1")
    for text in ("my key/1", delayed["id"]):
        await page.locator("#find-text").fill(text)
        await page.keyboard.press("Enter")
        await expect(dialog).to_contain_text(delayed["id"])
        await expect(dialog).to_contain_text("due_later")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
    await page.locator("#find-text").fill("my key/1")
    await page.keyboard.press("Enter")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog.locator(".chip-state")).to_have_text("cancelled")


async def test_what_tasks_say_is_text_never_markup(page: Page, http: Http) -> None:
    nasty = "<img src=x onerror=\"document.title='gone'\"><script>1</script>"
    await http.done("fail", {"message": nasty})
    await expect(page.locator("#failures")).to_contain_text(nasty)
    await page.locator("#failures .id").click()
    await expect(page.locator("#task")).to_contain_text(nasty)
    assert await page.locator("#failures img, #task img, #failures script").count() == 0
    await expect(page).to_have_title("n1 · Noria")


async def test_thousands_of_events_do_not_freeze_it(page: Page, node: MemoryNode) -> None:
    await page.evaluate(
        """() => { window.long = [];
        new PerformanceObserver((list) => window.long.push(...list.getEntries().map((e) => e.duration)))
          .observe({entryTypes: ['longtask']}); }"""
    )
    for n in range(EVENTS):
        node.world.activity.events.publish(UUID(int=n), "add", State.SUCCEEDED, 1, run_s=0.001)
        if n % 500 == 0:
            await page.evaluate("0")  # it answers, and the loop turns
    shown = page.locator("#n-recent")
    await expect(shown).to_contain_text(re.compile(r"\d k since"), timeout=20_000)
    assert await page.locator("#recent tr").count() <= 20
    longest = await page.evaluate("Math.max(0, ...window.long)")
    assert longest < 1_000, f"the page stood still for {longest} ms"


# -- the node comes and goes ------------------------------------------------------------------------


@asynccontextmanager
async def on_port(node: MemoryNode, port: int) -> AsyncIterator[int]:
    runner = web.AppRunner(make_app(node.service), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_it_says_when_the_node_is_away_and_comes_back(browser: Browser, node: MemoryNode) -> None:
    page = await browser.new_page()
    async with on_port(node, 0) as port:
        await page.goto(f"http://127.0.0.1:{port}")
        await expect(page.locator("#status")).to_have_text("live")
        await expect(page.locator("#away")).to_be_hidden()
    await expect(page.locator("#status")).to_have_text("away")
    await expect(page.locator("#away")).to_contain_text("has not answered for")
    await expect(page.locator("#main")).to_have_attribute("data-fresh", "false")
    async with on_port(node, port), speaking_to(node) as http:
        await expect(page.locator("#status")).to_have_text("live", timeout=20_000)
        await expect(page.locator("#away")).to_be_hidden()
        await http.done("fail")
        await expect(page.locator("#failures tr")).to_have_count(1)
        await expect(page.locator("#recent tr")).to_have_count(1, timeout=20_000)  # events flow again too
        node.service.draining = True
        await expect(page.locator("#status")).to_have_text("draining")


# -- how it looks -----------------------------------------------------------------------------------


async def test_it_has_two_themes_and_fits_a_phone(browser: Browser, node: MemoryNode) -> None:
    backgrounds = set()
    for scheme, width in product(("light", "dark"), (1440, 390)):
        page = await browser.new_page(
            viewport={"width": width, "height": 800},
            color_scheme="light" if scheme == "light" else "dark",
        )
        await page.goto(node.url)
        await expect(page.locator("#status")).to_have_text("live")
        backgrounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{scheme} {width}: {overflow} px wider than the screen"
        await page.close()
    assert len(backgrounds) == 2


def test_text_is_readable_in_both_themes() -> None:
    """Contrast of at least 4.5 (WCAG 2, AA) of every colour that text has, on cards."""
    css = (FOLDER / "console.css").read_text()
    for block in re.findall(r":root {(.*?)}", css, re.DOTALL):
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for name in ("text", "soft", "faint", "accent", "failed", "warn", "succeeded"):
            assert contrast(colors[name], colors["card"]) >= 4.5, (name, colors[name])


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


async def test_its_files_are_served_under_a_strict_policy(http: Http) -> None:
    names = {path.name for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"}}
    for name in names - {"index.html"} | {""}:
        answer = await http.get(f"/console/{name}" if name else "/")
        assert answer.status == 200, name
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        again = await http.call(
            "GET", f"/console/{name}" if name else "/", headers={"If-None-Match": answer.headers["ETag"]}
        )
        assert (again.status, again.body) == (304, b"")


def test_nothing_comes_from_elsewhere() -> None:
    for path in FOLDER.iterdir():
        if path.suffix in {".html", ".css", ".js"}:
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//cdn|@import|innerHTML|eval\(", text), path.name
            assert not re.search(r"\sstyle=|\son\w+=\"", text), path.name
