"""Where nodes that are started here will listen."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from typing import Final

from runtime.errors import EmbeddedError

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what one connects to instead


def free_ports(host: str, first: int, count: int) -> list[int]:
    """`first` and those after it; another one in the place of each that is taken, and for 0.

    Raises EmbeddedError where somebody listens on `first` already: that one was asked for.
    """
    with ExitStack() as held:  # all at once, or the system might name one twice
        return [_hold(held, host, first and first + number, number > 0) for number in range(count)]


def url_of(host: str, port: int) -> str:
    """How to reach what listens there, from this machine."""
    host = _ANY.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _hold(held: ExitStack, host: str, port: int, any_will_do: bool) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if any_will_do:
        with suppress(OSError, OverflowError):
            probe.bind((host, port))
            return int(probe.getsockname()[1])
        port = 0
    try:
        probe.bind((host, port))
    except OSError as exc:
        raise EmbeddedError(
            f"cannot listen on {host}:{port} ({exc.strerror}): choose another port with NORIA_HTTP_PORT"
        ) from exc
    return int(probe.getsockname()[1])
