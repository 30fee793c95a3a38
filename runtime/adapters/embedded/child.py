"""Child processes that end with their parent, even when that is killed with -9.

`spawn` must be called in a thread that lives as long as the child shall: Linux sends the parent-death signal
when the *thread* that forked ends. (So never through `asyncio.to_thread`.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from runtime.adapters.embedded.identity import Identity

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

_SCRIPT: Final = Path(__file__).with_name("exec_child.py")
_POLL_S: Final = 0.02


class Child(subprocess.Popen[bytes]):
    """A process started by `spawn`; the process id is the program's own."""

    _lifeline: int | None = None

    def release(self) -> None:
        """Tell the watcher (where there is one) that this child has ended by itself."""
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.write(self._lifeline, b".")
            os.close(self._lifeline)
            self._lifeline = None


def spawn(
    command: Sequence[str | Path],
    *,
    end_signal: signal.Signals,
    env: Mapping[str, str],
    identity: Identity | None = None,
    output: IO[bytes] | int | None = None,
    errors: IO[bytes] | int | None = subprocess.STDOUT,
    watch: bool = not sys.platform.startswith("linux"),
) -> Child:
    """Start `command` (first word an absolute path) in a session of its own, so that Ctrl-C reaches only us.

    `end_signal` is what it gets when this process ends without having stopped it; more than once, where this process
    had several threads. `output` takes stdout,
    `errors` stderr. `watch` chooses the watcher process over the kernel's parent-death signal.
    """
    who = identity or Identity()
    options = {"parent": os.getpid(), "signal": int(end_signal), "uid": who.uid, "gid": who.gid}
    options["capability"] = who.capability
    theirs, ours = os.pipe() if watch else (None, None)
    options["watch_fd"] = theirs
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    try:
        child = Child(
            [sys.executable, "-I", "-S", _SCRIPT, *words, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=dict(env),
            pass_fds=() if theirs is None else (theirs,),
            start_new_session=True,
        )
    finally:
        if theirs is not None:
            os.close(theirs)
    child._lifeline = ours  # noqa: SLF001 - our own class
    return child


async def exited(child: subprocess.Popen[bytes], timeout_s: float | None = None) -> int | None:
    """Wait for the end of a child; its return code, or None when `timeout_s` passed first."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await _ended(child.pid, child)
    code = child.poll()
    if code is not None and isinstance(child, Child):
        child.release()
    return code


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _ended(pid: int, child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or a sandbox that forbids it
        while child.poll() is None:  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(_POLL_S)
        return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
        os.close(fd)
