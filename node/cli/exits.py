"""Exit codes (part of the contract) and what a person reads when a command ends with one of them.

No traceback for users: anything unexpected is 70, with one line and a plea to report it.
"""

from __future__ import annotations

import os
import sys
import traceback
from enum import IntEnum
from typing import TYPE_CHECKING

import click

from runtime import errors as house

if TYPE_CHECKING:
    from node.client.errors import ClientError


class Code(IntEnum):
    DONE = 0
    TASK_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    REFUSED = 5
    TIMED_OUT = 6
    OUR_BUG = 70
    READ_ITSELF_DEAD = 75
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class ReaderLeft(Exception):
    """Whoever reads our stdout has had enough (`noria tasks | head`)."""


def report(exc: BaseException, *, debug: bool) -> int:
    """Say on stderr what went wrong, and return the exit code for it."""
    if debug and not isinstance(exc, click.Abort | KeyboardInterrupt | ReaderLeft):
        traceback.print_exception(exc)
    code, text = _explain(exc)
    text = "\n".join([text, *getattr(exc, "__notes__", ())]).strip()
    if text:
        click.echo(text, err=True)
    return code


def _explain(exc: BaseException) -> tuple[Code, str]:
    match exc:
        case click.UsageError():
            exc.show()
            return Code.USAGE, ""
        case click.ClickException():
            return Code.USAGE, f"Error: {exc.format_message()}"
        case click.Abort() | KeyboardInterrupt():
            return Code.INTERRUPTED, ""
        case ReaderLeft():
            _silence(sys.stdout)
            return Code.PIPE_CLOSED, ""
        case house.SettingsError() | house.RegistrationError():
            return Code.USAGE, f"Error: {exc}"
        case house.InvalidInput():
            return Code.REFUSED, _places(exc)
        case house.IncarnationDead():
            return Code.READ_ITSELF_DEAD, f"Error: {exc}"
        case house.Unavailable():
            return Code.UNREACHABLE, f"Error: {exc}"
        case house.NoriaError() if "node.client.errors" in sys.modules:
            return _explain_client(exc)
        case _:
            return Code.OUR_BUG, _plea(exc)


def _explain_client(exc: house.NoriaError) -> tuple[Code, str]:
    from node.client import errors as client  # noqa: PLC0415 - imported already, or the error could not be one of them

    match exc:
        case client.Unreachable():
            return Code.UNREACHABLE, (
                f"Error: {exc}\nIs a node running there? Start one with `noria dev` (development) or `noria node`;"
                "\nanother address: --url URL or NORIA_URL."
            )
        case client.Overloaded():
            return Code.UNREACHABLE, f"Error: the node cannot now (HTTP {exc.status}): {exc}"
        case client.NotFound():
            return Code.NOT_FOUND, f"Error: {exc}"
        case client.KeyReused():
            return Code.REFUSED, (
                "Error: this idempotency key belongs to a task that was asked for differently"
                f"\n  existing task  {exc.existing_id}\n  its request    sha256 {exc.existing_digest}"
                f"\n  this request   sha256 {exc.digest}"
            )
        case client.NotUnique():
            return Code.REFUSED, f"Error: {exc}\nIt is there: noria status {exc.existing_id}"
        case client.Refused():
            return Code.REFUSED, f"Error: {exc}{_who(exc)}"
        case client.ResultExpired():
            return Code.NOT_FOUND, f"Error: {exc}"
        case client.TooLarge():
            return Code.REFUSED, f"Error: {exc}"
        case client.WaitTimeout():
            return Code.TIMED_OUT, f"{exc}; it goes on: noria wait {exc.task_id}"
        case client.TaskFailed() | client.TaskCancelled():
            return Code.TASK_FAILED, f"{exc}"
        case client.ServerFault() if (exc.status or 0) < 500:
            return Code.UNREACHABLE, f"Error: what answers there is not a Noria node: {exc}"
        case client.ClientError():
            return (
                Code.OUR_BUG,
                f"Error: the node failed (HTTP {exc.status}): {exc}\nPlease report this with the node's log.",
            )
        case _:
            return Code.OUR_BUG, _plea(exc)


def _who(exc: ClientError) -> str:
    return (
        "\nThe API key: --api-key, NORIA_API_KEY or NORIA_API_KEY_FILE." if exc.status in {401, 403} else ""
    )


def _places(exc: house.InvalidInput) -> str:
    """One line per place that is wrong."""
    detail = exc.detail
    if exc.errors and exc.errors[0][1] in detail:  # it only repeats the first place
        detail = "refused"
    return f"Error: {detail}" + "".join(f"\n  {pointer}: {text}" for pointer, text in exc.errors)


def _plea(exc: BaseException) -> str:
    return (
        f"Error: unexpected {type(exc).__name__}: {exc}\nThis is a bug in Noria, please report it;"
        " run again with --debug (or NORIA_DEBUG=1) for the traceback."
    )


def _silence(stream: object) -> None:
    """Nobody reads this stream any more: keep the interpreter from complaining when it flushes at exit."""
    fileno = getattr(stream, "fileno", None)
    if fileno is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), fileno())
