"""The loop behind `noria top`: asks, draws, listens to the keyboard, and puts the terminal back as it was.

Drawn on the terminal's other screen, every line over the old one and nothing cleared first: so it does not flicker,
and what was there before is there again afterwards.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from node.cli import render, top_view
from node.client import Overloaded, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from node.client import Client

_ANSWER_S: Final = 3.0
_REDRAW_S: Final = 1.0  # while the node is away: for how long
_SIZE_LEAST: Final = (20, 5)


async def watch(client: Client, every_s: float, show: Callable[[Mapping[str, Any]], None] | None) -> None:
    """Until somebody has seen enough. `show` gets each answer (None: they are drawn).

    Raises Unreachable, Overloaded where the node does not answer at first; ClientError where it refuses.
    """
    watching = _Watching(client, every_s)
    await watching.ask()
    if watching.away:
        raise watching.away
    with _ends(watching.end):
        if show is not None:
            await watching.run(_Telling(watching, show).tell)
            return
        with _keys(watching.end), _screen() as draw, _resized(watching.news.set):
            await watching.run(lambda: draw(watching))


class _Watching:
    def __init__(self, client: Client, every_s: float) -> None:
        self._client = client
        self._every_s = every_s
        self.place = client.url
        self.stats: Mapping[str, Any] = {}
        self.away: Unreachable | Overloaded | None = None
        self.answered_s = time.monotonic()
        self.answers = 0
        self.news = asyncio.Event()  # there is something to draw
        self._over = False

    def end(self) -> None:
        self._over = True
        self.news.set()

    async def ask(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                self.stats = await self._client.stats()
        except TimeoutError:
            self.away = Unreachable(f"no answer from {self.place} within {_ANSWER_S:g}s", url=self.place)
        except (Unreachable, Overloaded) as exc:
            self.away = exc
        else:
            self.away, self.answered_s = None, time.monotonic()
            self.answers += 1

    async def run(self, draw: Callable[[], None]) -> None:
        asking = asyncio.create_task(self._go_on())
        try:
            while not self._over:
                self.news.clear()
                draw()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REDRAW_S):
                        await self.news.wait()
                if asking.done():
                    asking.result()
        finally:
            asking.cancel()

    async def _go_on(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._every_s)
                await self.ask()
                self.news.set()
        finally:
            self.news.set()

    @property
    def why_away(self) -> str:
        """Empty while it answers."""
        if self.away is None:
            return ""
        since_s = time.monotonic() - self.answered_s
        return f"away for {render.duration(round(since_s))}, trying again: {self.away}"


class _Telling:
    """Each answer once, and on stderr that there are none."""

    def __init__(self, watching: _Watching, show: Callable[[Mapping[str, Any]], None]) -> None:
        self._watching = watching
        self._show = show
        self._shown = 0
        self._away = False

    def tell(self) -> None:
        watching = self._watching
        if watching.away and not self._away:
            render.note(f"{watching.away}; trying again")
        self._away = watching.away is not None
        if watching.answers != self._shown:
            self._shown = watching.answers
            self._show(watching.stats)


# -- the terminal -----------------------------------------------------------------------------------


@contextmanager
def _screen() -> Iterator[Callable[[_Watching], None]]:
    console = Console(highlight=False)
    with Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:

        def draw(watching: _Watching) -> None:
            width, height = _size()
            console.size = ConsoleDimensions(width, height)
            lines = top_view.screen(watching.stats, watching.place, width, height, watching.why_away)
            text = Text("\n", no_wrap=True, overflow="crop").join(Text.assemble(*line) for line in lines)
            live.update(text, refresh=True)

        yield draw


def _size() -> tuple[int, int]:
    """Of the window as it is now."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, rows = 80, 24
    return max(columns or 80, _SIZE_LEAST[0]), max(rows or 24, _SIZE_LEAST[1])


@contextmanager
def _keys(end: Callable[[], None]) -> Iterator[None]:
    """q ends it, without Enter. Ctrl-C stays a signal."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def typed() -> None:
        try:
            keys = os.read(descriptor, 64)
        except OSError:
            keys = b""
        if not keys or b"q" in keys.lower():
            loop.remove_reader(descriptor)
            end()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, typed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _ends(end: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and being told to stop are good ends."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextmanager
def _resized(redraw: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, redraw)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
