"""All SQL of the record, by name. It lives in queries/*.sql; this module loads it once and hands it out.

A block begins with `-- name: x` (a statement) or `-- fragment: x` (a part that statements include as `{x}`). Nothing is
composed after loading. A statement that is missing, misspelt or not declared here fails at import.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Final

_BLOCK: Final = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """One field per statement."""

    accept: str
    accept_existing: str
    claim: str
    pull: str
    finish: str
    requeue: str
    settled_before: str
    orphans: str
    held: str
    expire: str
    report_progress: str
    cancel_requests: str
    cancel_waiting: str
    cancel_running: str
    replay: str
    delete_ended: str
    forgettable: str
    views: str
    views_without_results: str
    finished: str
    attempts: str
    list_by_task: str
    list_by_ids: str
    list_by_key: str
    list_by_actor: str
    list_by_workflow: str
    list_waiting: str
    list_running: str
    list_failed: str
    list_cancelled: str
    unfinished: str
    dead_letters: str
    count_waiting: str
    count_running: str
    count_ended: str
    count_succeeded: str
    join: str
    renew: str
    lease_of: str
    set_state: str
    bury: str
    nodes: str
    intern: str
    bands: str
    publish: str
    handlers: str
    paused: str
    set_paused: str
    now: str


def _load() -> Queries:
    statements: dict[str, str] = {}
    fragments: dict[str, str] = {}
    for file in sorted(files(__package__).joinpath("queries").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql"):
            parts = _BLOCK.split(file.read_text(encoding="utf-8"))
            for kind, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
                known = statements if kind == "name" else fragments
                if name in known:
                    raise ValueError(f"{file.name}: {kind} {name!r} stands twice")
                known[name] = body.strip().removesuffix(";")
    return Queries(**{name: _included(body, fragments) for name, body in statements.items()})


def _included(body: str, fragments: dict[str, str]) -> str:
    while match := re.search(r"\{(\w+)\}", body):
        body = body.replace(match[0], fragments[match[1]])
    return body


SQL: Final = _load()
NAMES: Final = tuple(field.name for field in fields(Queries))
