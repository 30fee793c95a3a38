"""Chromium for tests of the console: the one of the machine, installed through apt where it is missing."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

from playwright.async_api import async_playwright

from tests.support import packages
from tests.support.packages import ServiceMissingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_INSTALL_S: Final = 300


@cache
def executable() -> str:
    """Path of the browser. Raises ServiceMissingError with what to do."""
    named = os.environ.get("NORIA_TEST_CHROMIUM")
    found = named or _found()
    if found is None:
        packages.install(
            "Chromium",
            "chromium",
            "fonts-dejavu-core",
            otherwise=", or name another one in NORIA_TEST_CHROMIUM",
        )
        found = _found()
    if found is None:
        raise ServiceMissingError("chromium was installed and is still not found")
    return found


def _found() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


@asynccontextmanager
async def browser(path: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield started
        finally:
            await started.close()
