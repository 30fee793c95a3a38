"""Where something was written, so that every error names the line to fix."""

from __future__ import annotations

import inspect
from typing import Any

from runtime.errors import RegistrationError


def source_of(thing: Any) -> str:
    """`file:line` of a function or class."""
    place = file_and_line(thing)
    return "<unknown>:0" if place is None else f"{place[0]}:{place[1]}"


def file_and_line(thing: Any) -> tuple[str, int] | None:
    target = inspect.unwrap(thing) if callable(thing) else thing
    code = getattr(target, "__code__", None)
    if code is not None:
        return code.co_filename, code.co_firstlineno
    try:
        return inspect.getsourcefile(target) or "<unknown>", inspect.getsourcelines(target)[1]
    except (OSError, TypeError):
        return None


def refusal(thing: Any, why: str, what: str = "handler") -> RegistrationError:
    """A RegistrationError that starts with file, line and name."""
    name = getattr(thing, "__qualname__", None) or repr(thing)
    return RegistrationError(f"{source_of(thing)}: {what} {name}: {why}")
