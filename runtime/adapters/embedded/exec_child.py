"""Become another program whose life is tied to the parent's. Run as a script: it imports nothing of ours.

    python -I -S exec_child.py parent=PID signal=N [uid=N gid=N] [capability=N] [watch_fd=N] -- program args

A script between fork and exec, because code in a `preexec_fn` runs in a forked copy of a threaded process and
may hang there. On Linux the kernel sends `signal` when the parent ends, however it ends. Elsewhere a watcher
process waits at a pipe whose other end only the parent holds.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    at = arguments.index("--")
    options = {name: int(value) for name, value in (a.split("=", 1) for a in arguments[:at])}
    command = arguments[at + 1 :]
    os.umask(0o077)
    if "uid" in options:
        _become(options["uid"], options["gid"], options.get("capability"))
    if "watch_fd" in options:
        _watch(options["watch_fd"], options["signal"])
    else:  # after the change of identity, which clears it
        _prctl(_PR_SET_PDEATHSIG, options["signal"])
    if os.getppid() != options["parent"]:
        sys.exit(f"the parent {options['parent']} ended before its child was ready")
    os.execv(command[0], command)  # noqa: S606 - no shell is what we want


def _become(uid: int, gid: int, capability: int | None) -> None:
    if capability is not None:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capability is not None:
        _keep_only(capability)


def _keep_only(capability: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    data = (ctypes.c_uint32 * 6)(
        bit, bit, bit, 0, 0, 0
    )  # effective, permitted, inheritable: low, then high words
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, *values: int) -> None:
    words = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4]]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *words) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _watch(fd: int, signal_number: int) -> None:
    """Start a process that signals us when the pipe ends without a byte. Its own parent is init, so that the
    program we become never meets a child that it does not know."""
    target = os.getpid()
    if (middle := os.fork()) != 0:
        os.waitpid(middle, 0)
        os.close(fd)
        return
    if os.fork() == 0:
        for standard in (0, 1, 2):
            os.close(standard)
        if os.read(fd, 1) == b"":
            os.kill(target, signal_number)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
