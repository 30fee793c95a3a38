"""The SQL of the adapter, read once at import: every statement of queries/*.sql as a typed field.

Law: no SQL stands anywhere else. A block is `-- name: x`, a comment that declares the parameters as
`$1 name type, $2 name type`, a comment that says why, and the statement. A block without a field here, or a
field without a block, fails at import, not at three in the morning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from importlib import resources
from typing import Final

_BLOCK: Final = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)
_PARAMETER: Final = re.compile(r"\$(\d+) (\w+) ([a-z ]+(?:\[\])?)(?=,|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One statement. `parameters`: (name, PostgreSQL type) in order, as the comment declares them."""

    name: str
    sql: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Queries:
    """One field per statement, by file."""

    # accept.sql
    accept: Query
    existing: Query
    # unique.sql
    unique_lock: Query
    unique_hold: Query
    unique_holders: Query
    unique_replace: Query
    unique_bind: Query
    unique_free: Query
    # claim.sql
    claim: Query
    pull: Query
    # settle.sql
    settle: Query
    on_record: Query
    report_progress: Query
    # enqueue.sql
    unbanded: Query
    await_unbanded: Query
    place_unbanded: Query
    # keyed.sql
    mail: Query
    lock_actors: Query
    make_actors: Query
    begin_turns: Query
    write_states: Query
    adopt: Query
    # repair.sql
    orphans: Query
    held: Query
    cancel_requests: Query
    expire: Query
    forgettable: Query
    forget: Query
    census_waiting: Query
    census_running: Query
    census_unsuccessful: Query
    census_succeeded: Query
    census_outcomes: Query
    # control.sql
    cancel_waiting: Query
    cancel_running: Query
    waiting_bands: Query
    prioritize: Query
    replay: Query
    purge: Query
    # reading.sql
    now: Query
    views: Query
    attempts: Query
    scan_tasks: Query
    scan_waiting: Query
    scan_running: Query
    scan_unsuccessful: Query
    scan_succeeded: Query
    scan_key: Query
    scan_actor: Query
    scan_workflow: Query
    scan_ids: Query
    # workflow.sql
    present_tasks: Query
    await_waiting: Query
    await_running: Query
    tell_ended: Query
    tell_gone: Query
    link: Query
    rebind: Query
    any_parent_end: Query
    parent_ends: Query
    count_dependence: Query
    blocked_children: Query
    count_down: Query
    end_children: Query
    forget_ends: Query
    tidy_dependence: Query
    parents: Query
    workflow_counts: Query
    workflow_tasks: Query
    workflows: Query
    # results.sql
    identity: Query
    results_in_use: Query
    # members.sql
    join: Query
    renew: Query
    set_state: Query
    member: Query
    bury: Query
    request_drain: Query
    nodes: Query
    # views.sql
    present_view: Query
    newer_view: Query
    propose_view: Query
    logged_view: Query
    view_history: Query
    # catalog.sql
    lock_bands: Query
    insert_bands: Query
    find_bands: Query
    bands: Query
    bands_of: Query
    publish: Query
    handlers: Query
    paused: Query
    set_paused: Query
    pause_tenant: Query
    resume_tenant: Query
    tenant_weights: Query
    weigh_tenant: Query
    weigh_tenant_as_usual: Query
    # schedules.sql
    put_schedule: Query
    schedules: Query
    due_schedules: Query
    fire: Query
    set_schedule_paused: Query
    delete_schedule: Query
    # limits.sql
    limited: Query
    lock_limiters: Query
    make_limiters: Query
    claim_limited: Query
    limits: Query
    declare_limits: Query
    set_limit: Query
    unset_limit: Query
    forget_limiters: Query
    # session.sql
    set_up: Query
    set_up_last: Query
    durability: Query
    backend: Query
    begin: Query
    commit: Query
    rollback: Query
    schema_version: Query
    migration_lock: Query
    migration_table: Query
    migrations: Query
    migration_applied: Query


def parse(text: str) -> dict[str, Query]:
    """The blocks of one file. Raises ValueError on a name that stands twice."""
    parts = _BLOCK.split(text)[1:]
    found: dict[str, Query] = {}
    for name, block in zip(parts[::2], parts[1::2], strict=True):
        if name in found:
            raise ValueError(f"query {name} stands twice")
        found[name] = Query(name, _statement(block), _parameters(name, block))
    return found


def load() -> Queries:
    """Raises ValueError where files and fields disagree."""
    found: dict[str, Query] = {}
    folder = resources.files("runtime.adapters.postgres").joinpath("queries")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        for name, query in parse(file.read_text(encoding="utf-8")).items():
            if name in found:
                raise ValueError(f"query {name} stands twice")
            found[name] = query
    declared = {field.name for field in fields(Queries)}
    if declared != found.keys():
        raise ValueError(f"queries and fields disagree on {sorted(declared ^ found.keys())}")
    return Queries(**found)


def _statement(block: str) -> str:
    lines = [line for line in block.strip().splitlines() if not line.startswith("--")]
    return "\n".join(lines).strip().removesuffix(";")


def _parameters(name: str, block: str) -> tuple[tuple[str, str], ...]:
    declared = "\n".join(
        line.removeprefix("-- ").rstrip(",") for line in block.splitlines() if re.match(r"-- \$\d", line)
    )
    parameters = _PARAMETER.findall(declared)
    if [int(number) for number, _, _ in parameters] != list(range(1, len(parameters) + 1)):
        raise ValueError(f"query {name}: parameters are not declared as $1, $2, …")
    return tuple((parameter, kind) for _, parameter, kind in parameters)


SQL: Final = load()
