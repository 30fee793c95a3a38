"""Which tasks are meant: conditions of lists (query) and of actions (body)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from node.http.models import PAGE_DEFAULT
from runtime.core.task import State, TaskFilter
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.http.auth import Principal


def filter_of(which: Mapping[str, Any], principal: Principal, place: str) -> TaskFilter:
    """The principal's tasks that match. `place` starts the pointers of InvalidInput ('?', '#/filter/')."""
    return TaskFilter(
        ids=tuple(_uuid(text, f"{place}ids") for text in which.get("ids", ())),
        tenant=principal.tenant,
        states=tuple(State(name) for name in dict.fromkeys(which.get("state", ()))),
        handler=which.get("handler"),
        actor_key=which.get("actor_key"),
        idempotency_key=which.get("idempotency_key"),
        workflow_id=_uuid(which["workflow_id"], f"{place}workflow_id") if "workflow_id" in which else None,
        created_after=which.get("created_after"),
        created_before=which.get("created_before"),
        error_type=which.get("error_type"),
    )


def page_of(query: Mapping[str, Any]) -> tuple[int, UUID | None]:
    """(limit, cursor) of a list. Raises InvalidInput."""
    cursor = query.get("cursor")
    return query.get("limit", PAGE_DEFAULT), None if cursor is None else _uuid(cursor, "?cursor")


def _uuid(text: str, place: str) -> UUID:
    try:
        if len(text) == 36:
            return UUID(text)
    except ValueError:
        pass
    detail = f"{text!r} is no id" if not place.endswith("cursor") else f"{text!r} is no cursor of a page"
    raise InvalidInput(f"{place}: {detail}", ((place, detail),))
