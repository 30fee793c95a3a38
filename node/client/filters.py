"""Which tasks: one set of words for lists (query) and for actions (body)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from node.client.errors import InvalidTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

StateName = Literal["blocked", "scheduled", "ready", "running", "succeeded", "failed", "cancelled"]


class Filter(TypedDict, total=False):
    """Every field that is given must match; `state` may be several. Instants are aware datetimes."""

    ids: Sequence[str]
    state: StateName | Sequence[StateName]
    handler: str
    actor_key: str
    idempotency_key: str
    workflow_id: str
    created_after: datetime
    created_before: datetime
    error_type: str


def query(which: Mapping[str, Any]) -> dict[str, str]:
    """As parameters of a list."""
    return {name: ",".join(v) if isinstance(v, list) else str(v) for name, v in body(which).items()}


def body(which: Mapping[str, Any]) -> dict[str, Any]:
    """As the `filter` of an action."""
    plain: dict[str, Any] = {}
    for name, value in which.items():
        if value is None:
            continue
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise InvalidTask(f"{name} has no time zone", ((f"#/{name}", "must be an aware datetime"),))
            plain[name] = value.isoformat()
        elif name == "state" and isinstance(value, str):
            plain[name] = [value]
        else:
            plain[name] = value if isinstance(value, str) else list(value)
    return plain
