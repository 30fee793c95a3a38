"""The watchdog on a loop that is really blocked. The times are short, and blocking is what is tested."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime.kernel import watchdog as watchdog_module
from runtime.kernel.supervision import ChildSpec
from runtime.kernel.system import ActorSystem
from runtime.kernel.watchdog import TICK_S, Watchdog, _Watch
from tests.support.probe import Do, Journal, Probe

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.allow_blocking("a blocked loop is what is tested")


class Lines(logging.Handler):
    """Log lines of the watchdog; `wait_for` ends as soon as one contains the text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(f"{record.levelname} {record.getMessage()}")
            self._changed.notify_all()

    async def wait_for(self, text: str) -> str:
        return await asyncio.to_thread(self._wait_for, text)

    def _wait_for(self, text: str) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: any(text in line for line in self.lines), timeout=20), (
                self.lines
            )
        return next(line for line in self.lines if text in line)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("runtime.kernel.watchdog")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def hold_the_loop(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_handler_that_blocks_is_named_once_and_its_end_is_told(lines: Lines) -> None:
    lags: list[float] = []
    with Watchdog(block_s=0.1, on_lag=lags.append):
        async with ActorSystem() as actors:
            ref = await actors.spawn(ChildSpec[Any](name="the-culprit", make=lambda: Probe(Journal())))
            ref.tell(Do(lambda _: hold_the_loop(0.5)))
            over = await lines.wait_for("moves again")
    (blocked,) = [line for line in lines.lines if "stands" in line]
    assert blocked.startswith("WARNING the event loop stands since 0.1")
    assert "; the-culprit holds it: " in blocked
    assert f"{Path(__file__).name}:" in blocked
    assert "in hold_the_loop < " in blocked
    assert over.startswith("WARNING the event loop moves again after 0.5")


async def test_a_long_stall_is_reported_while_it_lasts_and_only_once(lines: Lines) -> None:
    stalls: list[float] = []
    reported = threading.Event()
    names: list[str] = []

    def on_stall(stood_s: float) -> None:
        stalls.append(stood_s)
        reported.set()

    def who() -> str:
        names.append("asked")
        return "handler 'resize' of task 7"

    with Watchdog(who=who, block_s=0.1, stall_s=0.3, on_stall=on_stall):
        await asyncio.sleep(0)
        assert reported.wait(20)  # the loop stands here until the watchdog, on its own, has said so
        hold_the_loop(0.3)
        await lines.wait_for("moves again")
    (stood_s,) = stalls
    assert 0.3 < stood_s < 20
    assert len(names) == 2
    assert [line.split(" ")[0] for line in lines.lines] == ["WARNING", "CRITICAL", "WARNING"]
    assert all("handler 'resize' of task 7 holds it" in line for line in lines.lines[:2])


async def test_the_worst_lag_is_reported_also_during_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "REPORT_S", 0.1)
    reports: list[float] = []
    large = threading.Event()

    def on_lag(lag_s: float) -> None:
        reports.append(lag_s)
        if lag_s > 0.3:
            large.set()

    with Watchdog(on_lag=on_lag) as watchdog:
        await asyncio.sleep(0)
        assert large.wait(20)  # while the loop stands
        assert watchdog.age_s > 0.3
    assert min(reports) >= 0


async def test_a_loop_that_moves_is_left_alone(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy, but it gives everybody a turn: two reports, no line."""
    monkeypatch.setattr(watchdog_module, "REPORT_S", 0.2)
    reports: list[float] = []
    with Watchdog(block_s=5, on_lag=reports.append):
        while len(reports) < 2:  # noqa: ASYNC110 - a loop that is busy all the time is what is tested
            await asyncio.sleep(0)
    assert lines.lines == []


async def test_a_callback_that_fails_does_not_end_the_watch(lines: Lines) -> None:
    def on_stall(_: float) -> None:
        raise ValueError("bad callback")

    with Watchdog(block_s=0.1, stall_s=0.2, on_stall=on_stall):
        hold_the_loop(0.5)
        await lines.wait_for("the watchdog failed; it goes on")
        await lines.wait_for("moves again")


async def test_it_ends_with_its_block() -> None:
    before = threading.active_count()
    with Watchdog():
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_bounds_name_field_and_value() -> None:
    with pytest.raises(ValueError, match=r"block_s 2, stall_s 1: must be 0.05 <= block_s < stall_s"):
        Watchdog(block_s=2, stall_s=1)


# -- freezes ----------------------------------------------------------------------------------------------


def test_a_freeze_is_no_stop_but_a_held_interpreter_lock_is() -> None:
    """Both keep the thread from looking; only the freeze uses no CPU time."""
    frozen, held = (_Watch(mark_s=10.0, now_s=10.0, cpu_s=1.0) for _ in range(2))
    frozen.look(10.0 + TICK_S + 60, 1.01, gap_s=0.25)
    held.look(10.0 + TICK_S + 60, 60.5, gap_s=0.25)
    assert frozen.age_s == pytest.approx(TICK_S)
    assert held.age_s == pytest.approx(60 + TICK_S)


CHILD = """
import asyncio, logging, sys
from runtime.kernel.watchdog import Watchdog
logging.basicConfig(stream=sys.stdout, format="%(message)s")
async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with Watchdog(block_s=0.2, stall_s=0.5, on_stall=lambda _: print("stalled", flush=True)):
        print("ready", flush=True)
        await reader.readline()
asyncio.run(main())
"""


async def test_a_stopped_process_does_not_blame_its_loop() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    os.kill(child.pid, signal.SIGSTOP)
    await asyncio.sleep(1.0)  # the length of the freeze
    os.kill(child.pid, signal.SIGCONT)
    rest, _ = await child.communicate(b"end\n")
    assert rest == b""
    assert child.returncode == 0
