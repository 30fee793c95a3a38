"""Records of PostgreSQL turned into the runtime's values, and back where that takes more than a list.

asyncpg's own UUID class is a subclass that serializers do not know, so ids leave this adapter as uuid.UUID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from runtime.adapters.postgres.translate import ContentRefused
from runtime.core.ids import uuid_of_int
from runtime.core.task import (
    AttemptKind,
    AttemptView,
    Band,
    Claim,
    Codec,
    ErrorInfo,
    HandlerEntry,
    Lane,
    NodeView,
    OnParentFailure,
    Orphan,
    Progress,
    Reason,
    State,
    Status,
    TaskView,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

_CODECS: Final = {int(codec): codec for codec in Codec}
_STATUSES: Final = {int(status): status.state for status in Status}
STATE_NUMBERS: Final = {"joining": 0, "active": 1, "draining": 2, "left": 8, "dead": 9}
_STATE_NAMES: Final = {number: name for name, number in STATE_NUMBERS.items()}


def uuid_of(value: UUID) -> UUID:
    """The same id as a plain uuid.UUID."""
    return uuid_of_int(value.int)


def uuids_of(rows: Iterable[asyncpg.Record]) -> list[UUID]:
    """The first column of each row."""
    return [uuid_of(row[0]) for row in rows]


# -- JSON columns ------------------------------------------------------------------------------------


def json_of(value: object) -> str:
    """Raises ContentRefused where a text holds a lone surrogate."""
    try:
        return orjson.dumps(value).decode()
    except TypeError as refused:
        raise ContentRefused("a text cannot be written as JSON") from refused


def json_of_error(error: ErrorInfo | None) -> str | None:
    if error is None:
        return None
    return json_of({"type": error.type, "message": error.message, "traceback": error.traceback})


def json_of_progress(progress: Progress) -> str:
    """Never refused, or one message would keep all others of its batch from being seen."""
    shown = {"done": progress.done, "total": progress.total, "message": _clean(progress.message)}
    if progress.result_waits:
        shown["result_waits"] = _clean(progress.result_waits)
    return json_of(shown)


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def error_of(text: str | None) -> ErrorInfo | None:
    return None if text is None else ErrorInfo(**orjson.loads(text))


def _progress(text: str | None) -> Progress | None:
    return None if text is None else Progress(**orjson.loads(text))


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


# -- tasks -------------------------------------------------------------------------------------------


def claim_of(row: Iterable[Any]) -> Claim:
    """The columns of `claim` and `pull`, by place: this runs once per task."""
    (
        task_id, attempt, band, slot, seq, failures, crashes, payload, codec, max_attempts, timeout_s,
        started_at, waited_s, created_at, idempotency_key, actor_key, metadata, trace_context, created_by,
        expired, alone, workflow_id, parents,
    ) = row  # fmt: skip
    return Claim(
        id=uuid_of(task_id),
        attempt=attempt,
        band=band,
        slot=slot,
        seq=seq,
        failures=failures,
        crashes=crashes,
        payload=payload,
        payload_codec=_CODECS[codec],
        max_attempts=max_attempts,
        timeout_s=timeout_s,
        started_at=started_at,
        waited_s=waited_s,
        created_at=created_at,
        idempotency_key=idempotency_key,
        actor_key=actor_key,
        metadata=_bytes(metadata),
        trace_context=trace_context,
        created_by=created_by or "",
        expired=expired,
        alone=alone,
        workflow_id=None if workflow_id is None else uuid_of(workflow_id),
        parents=() if parents is None else tuple(map(uuid_of, parents)),
    )


def orphan_of(row: asyncpg.Record) -> Orphan:
    task_id, attempt, incarnation, failures, crashes, max_attempts, alone, band, left = row
    return Orphan(uuid_of(task_id), attempt, incarnation, failures, crashes, max_attempts, alone, band, left)


def view_of(row: asyncpg.Record) -> TaskView:
    return TaskView(
        id=uuid_of(row["id"]),
        tenant=row["tenant"],
        handler=row["handler"],
        lane=Lane(row["lane"]),
        slot=row["slot"],
        max_attempts=row["max_attempts"],
        timeout_s=row["timeout_s"],
        created_at=row["created_at"],
        run_at=row["run_at"],
        requires=tuple(row["requires"]),
        prefers=tuple(row["prefers"] or ()),
        idempotency_key=row["idempotency_key"],
        actor_key=row["actor_key"],
        limit_key=row["limit_key"],
        expires_at=row["expires_at"],
        metadata=_bytes(row["metadata"]),
        created_by=row["created_by"] or "",
        trace_context=row["trace_context"],
        workflow_id=None if row["workflow_id"] is None else uuid_of(row["workflow_id"]),
        name=row["task_name"],
        parents=tuple(map(uuid_of, row["parents"] or ())),
        on_parent_failure=OnParentFailure(row["on_parent_failure"] or 0),
        **_of_state(row),
    )


def _of_state(row: asyncpg.Record) -> dict[str, Any]:
    """What depends on the table that the task is in."""
    if row["status"] is not None:
        return {
            "state": _STATUSES[row["status"]],
            "attempt": row["o_attempt"],
            "failures": row["o_failures"],
            "crashes": row["o_crashes"],
            "node": row["node"],
            "started_at": row["o_started_at"],
            "finished_at": row["finished_at"],
            "result": row["result"],
            "result_codec": _CODECS[row["result_codec"]],
            "error": error_of(row["error"]),
        }
    if row["r_attempt"] is not None:
        return {
            "state": State.RUNNING,
            "attempt": row["r_attempt"],
            "failures": row["r_failures"],
            "crashes": row["r_crashes"],
            "node": row["node"],
            "started_at": row["r_started_at"],
            "cancel_requested_at": row["cancel_requested_at"],
            "progress": _progress(row["progress"]),
            "suspect": row["alone"],
        }
    blocked = row["open_parents"] is not None
    return {
        "state": State.BLOCKED if blocked else State.READY if row["is_due"] else State.SCHEDULED,
        "attempt": row["next_attempt"] - 1,
        "failures": row["w_failures"],
        "crashes": row["w_crashes"],
        "reason": Reason(row["reason"]),
        "suspect": row["suspect"],
        "unbound": row["unbound"],
        "due": None if blocked else row["due"],
        "open_parents": row["open_parents"] or 0,
    }


def attempt_of(row: asyncpg.Record) -> AttemptView:
    attempt, kind, node, started_at, ended_at, error = row
    return AttemptView(attempt, AttemptKind(kind), node, started_at, ended_at, error_of(error))


# -- members and names -------------------------------------------------------------------------------


def node_of(row: asyncpg.Record) -> NodeView:
    node, incarnation, state, started_at, alive_for_s, about, drain_requested, load = row
    return NodeView(
        node=node,
        incarnation=incarnation,
        state=_STATE_NAMES[state],
        started_at=started_at,
        alive_for_s=alive_for_s,
        about=orjson.loads(about),
        drain_requested=drain_requested,
        load=orjson.loads(load),
    )


def state_name(number: int) -> str:
    return _STATE_NAMES[number]


def band_of(row: asyncpg.Record | Sequence[Any]) -> Band:
    number, handler, lane, tenant, requires, keyed = row
    return Band(
        id=number, handler=handler, lane=Lane(lane), tenant=tenant, requires=tuple(requires), keyed=keyed
    )


def handler_of(row: asyncpg.Record) -> HandlerEntry:
    name, digest, schema, defaults, source, doc, paused = row
    return HandlerEntry(
        name=name,
        digest=digest,
        schema=orjson.loads(schema),
        defaults=orjson.loads(defaults),
        source=source,
        doc=doc,
        paused=paused,
    )


# -- columns of a batch ------------------------------------------------------------------------------


def folded(column: list[Any]) -> list[Any]:
    """One value where all are equal."""
    first = column[:1]
    return first if first * len(column) == column else column


def unless_empty(column: list[Any]) -> list[Any]:
    """Nothing where all are None."""
    return column if column.count(None) < len(column) else []


def text_array(texts: Iterable[str]) -> str:
    """A text[] written as one text, so that rows may hold arrays of different lengths."""
    quoted = ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + quoted + "}"
