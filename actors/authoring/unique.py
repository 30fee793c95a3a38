"""What may be said of a unique task: checks, and reading it from JSON. Errors name the field and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from actors.authoring.limits import DELAY_S_MAX, key_fault
from runtime.core.unique import MODES, UNTILS, Unique

_NAMES: Final = tuple(field.name for field in fields(Unique))
_WINDOWED: Final = ("reject", "existing")


def unique_of(value: Unique | Mapping[str, Any]) -> Unique:
    """As a request has it. What is wrong with the values, `unique_faults` says. Raises TypeError for other fields."""
    return value if isinstance(value, Unique) else Unique(**value)


def unique_faults(unique: object) -> list[tuple[str, str]]:
    """(pointer below the task, detail) of all that is wrong."""
    if not isinstance(unique, Unique):
        return [("/unique", f"{unique!r} is not a Unique(mode=…)")]
    if unique.mode not in MODES:
        return [("/unique/mode", f"{unique.mode!r} is not one of {', '.join(MODES)}")]
    found = [
        ("/unique/key", None if unique.key is None else key_fault(unique.key)),
        ("/unique/until", _until_fault(unique)),
        ("/unique/for_s", _for_fault(unique)),
        ("/unique/max_s", _max_fault(unique)),
    ]
    return [(pointer, fault) for pointer, fault in found if fault is not None]


def born_later(unique: Unique) -> bool:
    """Whether its tasks wait to be replaced, so that none of them starts as it is accepted."""
    return unique.mode in {"replace", "debounce"}


def due_faults(unique: Unique | None, *, delay_s: object, run_at: object) -> list[tuple[str, str]]:
    """A debounced task has its due time from its rule."""
    if unique is None or unique.mode != "debounce":
        return []
    given = (("/delay_s", delay_s), ("/run_at", run_at))
    return [(name, "a debounced task is due by unique.for_s alone") for name, value in given if value]


def _until_fault(unique: Unique) -> str | None:
    if unique.until is None:
        return None
    if unique.mode not in _WINDOWED:
        return f"goes with {' and '.join(_WINDOWED)} only, not with {unique.mode}"
    if unique.until not in UNTILS:
        return f"{unique.until!r} is not one of {', '.join(UNTILS)}"
    return None if unique.for_s is None else "give until or for_s, not both"


def _for_fault(unique: Unique) -> str | None:
    if unique.mode == "replace":
        return None if unique.for_s is None else "does not go with replace, which acts on what waits"
    if unique.for_s is None:
        return "is required" if unique.mode in {"debounce", "throttle"} else None
    return _seconds_fault(unique.for_s)


def _max_fault(unique: Unique) -> str | None:
    if unique.max_s is None:
        return None
    if unique.mode != "debounce":
        return f"goes with debounce only, not with {unique.mode}"
    if fault := _seconds_fault(unique.max_s):
        return fault
    for_s = unique.for_s
    if for_s is not None and _seconds_fault(for_s) is None and unique.max_s < for_s:
        return f"{unique.max_s!r} is less than for_s, {for_s!r}"
    return None


def _seconds_fault(value: object) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number and 0 < value <= DELAY_S_MAX:  # type: ignore[operator]  # a number
        return None
    return f"{value!r} is not a number of seconds above 0 and at most {DELAY_S_MAX:.0f}"
