"""Programs that tests need beside Python packages: those of the machine, else Debian's, installed where that is
possible; else a failure that says what to do, never a silent skip.

    python -m tests.support.packages     install all of them now
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_LOCK_S: Final = 300  # somebody else may be installing something
_INSTALL_S: Final = 900


class ServiceMissingError(Exception):
    """A service that tests need is not there; the message says how to get it."""


def install(what: str, *packages: str, otherwise: str = "") -> None:
    """From Debian, starting none of their services. `otherwise` is what a person could do instead.

    Raises ServiceMissingError.
    """
    missing = f"tests need {what}: apt-get install {' '.join(packages)}{otherwise}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServiceMissingError(missing)
    environment = {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "UCF_FORCE_CONFFOLD": "1",
        "RUNLEVEL": "1",
    }
    apt = ["apt-get", "-o", f"DPkg::Lock::Timeout={_LOCK_S}"]
    with _no_services():
        for command in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=_INSTALL_S
            )
            if done.returncode:
                raise ServiceMissingError(
                    f"{missing}; {' '.join(command)} said: {done.stderr.strip()[-500:]}"
                )


@contextmanager
def _no_services() -> Iterator[None]:
    """Packages that are installed in this block start nothing."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def remove_left_behind(prefix: str) -> None:
    """Delete the temporary folders `<prefix><pid>-…` of processes that were killed: their servers ended with them,
    their files could not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = folder.name.removeprefix(prefix).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            with suppress(OSError):
                shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    from tests.support import (  # they import this module
        browser,
        etcd_server,
        rabbitmq_server,
        s3_server,
        services,
    )

    kinds: dict[str, Callable[[], object]] = {
        "PostgreSQL 15": services.postgresql_15,
        "RabbitMQ": rabbitmq_server.programs,
        "etcd": etcd_server.programs,
        "S3": s3_server.program,
        "Chromium": browser.executable,
    }
    missing = 0
    for name, find in kinds.items():
        try:
            find()
        except ServiceMissingError as why:
            missing += 1
            print(f"{name}: {why}", file=sys.stderr)  # noqa: T201 - its output
        else:
            print(f"{name}: is here")  # noqa: T201 - its output
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
