"""What a history needs of the record and of the log of views, read when all is over; no node is asked."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from tests.support.events import Attempt, Counted, Event, Member, Outcome, Runs, Seat, Stored, Viewed, Waits
from tests.support.history import SUCCEEDED

if TYPE_CHECKING:
    from tests.faults.rig import Rig

_TASKS: Final = """
    SELECT t.id::text AS id, t.idempotency_key AS key, t.tenant || '/' || t.actor_type || '/' || t.actor_key AS actor_key,
           b.lane, t.seq, t.run_at > t.created_at AS delayed,
           t.max_attempts
      FROM noria.task t JOIN noria.band b ON b.id = t.band
"""
_SPAN: Final = "incarnation, extract(epoch FROM started_at)::float8 AS started_s"
_OUTCOMES: Final = f"""
    SELECT id::text AS id, attempt, status, failures, crashes, result, {_SPAN},
           extract(epoch FROM finished_at)::float8 AS ended_s
      FROM noria.outcome
"""
_ATTEMPTS: Final = f"""
    SELECT id::text AS id, attempt, kind, {_SPAN}, extract(epoch FROM ended_at)::float8 AS ended_s FROM noria.attempt
"""
_COUNTERS: Final = """
    SELECT tenant || '/' || type || '/' || key AS key, state FROM noria.actor WHERE type = 'counter' AND state IS NOT NULL
"""
_MEMBERS: Final = """
    SELECT incarnation, node, state, lease_s, extract(epoch FROM started_at)::float8 AS started_s,
           extract(epoch FROM ended_at)::float8 AS ended_s
      FROM noria.lease
"""

Sql = Callable[[str], list[Any]]


def read_record(sql: Sql) -> Iterator[Event]:
    yield from (Stored(**row) for row in sql(_TASKS))
    yield from (Waits(id=row["id"]) for row in sql("SELECT id::text AS id FROM noria.waiting"))
    yield from (Runs(id=row["id"]) for row in sql("SELECT id::text AS id FROM noria.running"))
    for row in sql(_OUTCOMES):
        known = dict(row)
        result = known.pop("result")
        yield Outcome(**known, result_attempt=int(result) if row["status"] == SUCCEEDED else None)
    yield from (Attempt(**row) for row in sql(_ATTEMPTS))
    for row in sql(_COUNTERS):
        yield Counted(key=row["key"], count=json.loads(row["state"])["count"])
    yield from (Member(**row) for row in sql(_MEMBERS))


def read_views(rig: Rig) -> Iterator[Viewed]:
    """From where this cluster keeps its views."""
    etcd = rig.services.etcd
    if etcd is None:
        texts = [row["view"] for row in rig.sql("SELECT view FROM noria.view_log ORDER BY number")]
    else:
        said = etcd.ctl("get", "--prefix", f"/{rig.database}/log/", "--write-out=json")
        texts = [b64decode(entry["value"]).decode() for entry in json.loads(said).get("kvs", ())]
    for text in texts:
        view = json.loads(text)
        seats = (
            Seat(**{field: member[field] for field in ("node", "incarnation", "standing", "weight")})
            for member in view["members"]
        )
        yield Viewed(number=view["number"], members=tuple(seats))
