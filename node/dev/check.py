"""What a node with these handlers would load, found out in a process of its own: a mistake kills nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from node.dev.importing import WHOLE, Checked, Found, named_files
from runtime.adapters.embedded.child import Child, spawn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CHECK_S: Final = 60.0


async def check(handlers: Sequence[str], environment: Mapping[str, str], *, whole: bool = False) -> Checked:
    """Find out in a process of its own what a node with these handlers would load, and with `whole` whether
    Noria's own code can be imported."""
    child = spawn(
        [sys.executable, "-m", "node.dev.importing", *([WHOLE] if whole else []), *handlers],
        end_signal=signal.SIGKILL,
        env=environment,
        output=subprocess.PIPE,
        errors=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.to_thread(child.communicate, None, _CHECK_S)
    except subprocess.TimeoutExpired:
        return Checked(
            files=tuple(map(os.path.abspath, named_files(handlers))),
            error=f"the imports do not end within {_CHECK_S:g} s",
        )
    finally:
        _end(child)
    try:
        said = json.loads(out)
        return Checked(
            tuple(Found(**found) for found in said["handlers"]), tuple(said["files"]), said["error"]
        )
    except ValueError:  # it did not come to an answer
        words = err.decode(errors="replace").strip()
        error = f"{words}\nthe imports ended the process with code {child.returncode}".lstrip()
        return Checked(files=tuple(map(os.path.abspath, named_files(handlers))), error=error)


def _end(child: Child) -> None:
    if child.poll() is None:
        child.kill()
        child.wait()
    child.release()
