"""From a validated request to the TaskSpec that the node takes.

Here is what types cannot say: the header that repeats the key, the size of a payload, and the digest of the
request as it was sent. Everything about handlers and their arguments is the intake's.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import orjson

from actors.authoring.limits import KEY_CHARS_MAX, PAYLOAD_BYTES_MAX, key_fault
from actors.authoring.options import LANES, PARENT_POLICIES
from actors.authoring.unique import unique_of
from actors.authoring.workflow import task_name_fault
from actors.intake.requests import TaskSpec
from node.http import models
from node.http.problems import Problem
from node.http.reading import parse, summary, validate
from runtime.core.canonical import digest, find_nul, pointer_to
from runtime.core.task import OnParentFailure
from runtime.core.workflow import graph_faults, in_order
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from node.http.auth import Principal
    from node.http.models import TaskRequest, WorkflowTask

KEY_HEADER: Final = "Idempotency-Key"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def one(body: bytes, headers: Mapping[str, str], principal: Principal) -> TaskSpec:
    """The task of a single POST. Raises InvalidInput, Problem."""
    sent = parse(body)
    request = validate(models.TASK, sent)
    header = headers.get(KEY_HEADER)
    if header is not None:
        request["idempotency_key"] = _same_key(_unquoted(header), request.get("idempotency_key"))
        sent = {**sent, "idempotency_key": header}
    if len(body) > PAYLOAD_BYTES_MAX:
        _check_sizes([request], ["#"])
    return _spec(request, sent, principal, trace_context(headers), "#")


def many(body: bytes, headers: Mapping[str, str], principal: Principal) -> list[TaskSpec]:
    """The tasks of a batch. Raises InvalidInput, Problem."""
    if KEY_HEADER in headers:
        detail = "a batch has no key of its own: give each task its idempotency_key"
        raise InvalidInput(detail, (("#", f"{KEY_HEADER}: {detail}"),))
    sent = parse(body)
    requests = validate(models.BATCH, sent)["tasks"]
    if len(body) > PAYLOAD_BYTES_MAX:
        _check_sizes(requests, [f"#/tasks/{place}" for place in range(len(requests))])
    trace = trace_context(headers)
    return [
        _spec(request, as_sent, principal, trace, f"#/tasks/{index}")
        for index, (request, as_sent) in enumerate(zip(requests, sent["tasks"], strict=True))
    ]


def workflow(
    body: bytes, headers: Mapping[str, str], principal: Principal, workflow_id: UUID
) -> list[TaskSpec]:
    """The tasks of a workflow, parents first. Raises InvalidInput, Problem."""
    sent = parse(body)
    request = validate(models.WORKFLOW, sent)
    requests = request["tasks"]
    key = request.get("idempotency_key")
    if (header := headers.get(KEY_HEADER)) is not None:
        key = _same_key(_unquoted(header), key)
    graph = {name: each.get("depends_on", ()) for name, each in requests.items()}
    faults = [(pointer_to("#/tasks", name), fault) for name in graph if (fault := task_name_fault(name))]
    if faults := faults or graph_faults(graph):
        raise InvalidInput(summary(faults, len(faults)), tuple(faults))
    if len(body) > PAYLOAD_BYTES_MAX:
        _check_sizes(requests.values(), [pointer_to("#/tasks", name) for name in requests])
    names = in_order(graph)
    places = {name: place for place, name in enumerate(names)}
    trace = trace_context(headers)
    whole = b"" if key is None else digest({"tasks": sent["tasks"]})
    asked = []
    for name in names:
        spec = _spec(requests[name], sent["tasks"][name], principal, trace, pointer_to("#/tasks", name))
        spec.workflow_id, spec.name = workflow_id, name
        spec.parents = tuple(places[parent] for parent in graph[name])
        if key is not None and spec.idempotency_key is None:
            spec.idempotency_key = _key_of_task(key, name)
            spec.digest = sha256(whole + name.encode()).digest()
        asked.append(spec)
    return asked


def _key_of_task(key: str, name: str) -> str:
    """Raises InvalidInput."""
    whole = f"{key}/{name}"
    if (fault := key_fault(whole)) is not None:
        detail = f"with the name of task {name}: {fault}"
        raise InvalidInput(f"#/idempotency_key: {detail}", (("#/idempotency_key", detail),))
    return whole


def _spec(
    request: TaskRequest | WorkflowTask,
    sent: Mapping[str, Any],
    principal: Principal,
    trace: str | None,
    place: str,
) -> TaskSpec:
    if request.get("sensitive"):
        raise Problem(
            "encryption-not-configured",
            "the node has no encryption keys, so nothing sensitive is stored",
            errors=[(f"{place}/sensitive", "must be false here")],
        )
    if len(request) <= _PLAIN_FIELDS and "payload" in request:  # handler and payload: most requests
        return TaskSpec(
            handler=request["handler"],
            payload=request["payload"],
            is_exact=True,
            tenant=principal.tenant,
            created_by=principal.subject,
            trace_context=trace,
        )
    fields: dict[str, Any] = {**request}  # the names are TaskSpec's; only what is given is converted
    for name, convert in _CONVERTED.items():
        if name in fields:
            fields[name] = convert(fields[name])
    fields.pop("sensitive", None)
    if (parents := fields.pop("depends_on", None)) is not None:
        fields["parents"] = tuple(parents)
    if fields.get("idempotency_key") is not None:
        fields["digest"] = digest(sent)
    return TaskSpec(
        is_exact=True, tenant=principal.tenant, created_by=principal.subject, trace_context=trace, **fields
    )


_PLAIN_FIELDS: Final = 2
_POLICIES: Final[Mapping[str, OnParentFailure]] = {**PARENT_POLICIES, "run": OnParentFailure.RUN_ANYWAY}
_CONVERTED: Final[Mapping[str, Callable[[Any], Any]]] = {
    "priority": lambda name: None if name is None else LANES[name],
    "requires": tuple,
    "prefers": tuple,
    "on_parent_failure": lambda name: _POLICIES[name or "fail"],
    "unique": lambda said: None if said is None else unique_of(said),
}


def _unquoted(header: str) -> str:
    """The key in a header, bare or as a quoted string (RFC 8941)."""
    text = header.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    faults = find_nul(text)
    if faults or not 1 <= len(text) <= KEY_CHARS_MAX:
        allowed = f"must be 1 to {KEY_CHARS_MAX} characters of text"
        raise InvalidInput(f"{KEY_HEADER}: {allowed}", (("#/idempotency_key", f"{KEY_HEADER}: {allowed}"),))
    return text


def _same_key(header: str, field: str | None) -> str:
    if field is not None and field != header:
        detail = f"{field!r} differs from the header {KEY_HEADER}: {header!r}"
        raise InvalidInput(detail, (("#/idempotency_key", detail),))
    return header


def _check_sizes(requests: Iterable[TaskRequest | WorkflowTask], places: Iterable[str]) -> None:
    """Only asked for when the whole body is larger than one payload may be."""
    found = []
    for place, request in zip(places, requests, strict=True):
        size = len(orjson.dumps(request.get("payload", {})))
        if size > PAYLOAD_BYTES_MAX:
            detail = f"{size} bytes as JSON; at most {PAYLOAD_BYTES_MAX} are allowed"
            found.append((f"{place}/payload", detail))
    if found:
        raise Problem("too-large", summary(found, len(found)), errors=found)


def trace_context(headers: Mapping[str, str]) -> str | None:
    """The W3C traceparent, when it is one; a broken one starts no trace, as the standard says."""
    header = headers.get("traceparent")
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
