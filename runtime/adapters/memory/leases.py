"""Which incarnations are alive, by one clock.

Law: an incarnation's number only grows; `left` and `dead` are terminal. A renewal that did not come in time
starts a new unbroken time, and only a member that has been unbroken for one lease may declare another dead: so
whoever just came back with the clock or the record itself kills nobody.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from runtime.adapters.memory.rows import LeaseRow
from runtime.core.task import NodeView
from runtime.errors import IncarnationDead, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

# Members renew at least every third of a lease. With less than 3/8 of it left something stood still for 7/24 of a
# lease or more, which may have held up the others too.
IN_TIME: Final = 0.375
SHOWN_AFTER_END_S: Final = 3600.0
STATES: Final = ("joining", "active", "draining", "left")


class Leases:
    def __init__(self) -> None:
        self._rows: dict[int, LeaseRow] = {}

    def join(self, node: str, lease_s: float, about: Mapping[str, object], now: datetime) -> int:
        incarnation = len(self._rows) + 1
        self._rows[incarnation] = LeaseRow(
            incarnation=incarnation,
            node=node,
            started_at=now,
            alive_until=now + timedelta(seconds=lease_s),
            unbroken_since=now,
            lease_s=lease_s,
            about=dict(about),
        )
        return incarnation

    def renew(
        self, incarnation: int, lease_s: float, now: datetime, load: Mapping[str, object] | None = None
    ) -> float:
        row = self._living(incarnation)
        if load is not None:
            row.load = dict(load)
        if not _in_time(row, now):
            row.unbroken_since = now
        row.lease_s = lease_s
        row.alive_until = now + timedelta(seconds=lease_s)
        return lease_s

    def set_state(self, incarnation: int, state: str, now: datetime) -> None:
        if state not in STATES:
            raise InvalidInput(f"state {state!r} is none of {', '.join(STATES)}")
        row = self._rows.get(incarnation)
        if state == "left" and row is not None and row.state == "left":
            return
        row = self._living(incarnation)
        row.state = state
        if state == "left":
            row.ended_at = now

    def bury(self, by: int, lease_s: float, now: datetime) -> list[int]:
        witness = self._rows.get(by)
        if witness is None or witness.ended or not _in_time(witness, now):
            return []
        unbroken_s = (now - witness.unbroken_since).total_seconds()
        if unbroken_s < lease_s:
            return []
        buried = [
            row
            for row in self._rows.values()
            if not row.ended and _run_out(row, now) and unbroken_s >= row.lease_s
        ]
        for row in buried:
            row.state = "dead"
            row.ended_at = now
        return [row.incarnation for row in buried]

    def request_drain(self, node: str) -> bool:
        living = [row for row in self._rows.values() if row.node == node and not row.ended]
        for row in living:
            row.drain_requested = True
        return bool(living)

    def alive(self, incarnation: int, now: datetime) -> bool:
        """May take work: has neither left nor died, and its lease has not run out."""
        row = self._rows.get(incarnation)
        return row is not None and not row.ended and row.alive_until > now

    def ended(self, incarnation: int) -> bool:
        """Dead, left or unknown: what it runs is to be repaired."""
        row = self._rows.get(incarnation)
        return row is None or row.ended

    def left(self, incarnation: int) -> bool:
        row = self._rows.get(incarnation)
        return row is not None and row.state == "left"

    def node_of(self, incarnation: int | None) -> str | None:
        row = None if incarnation is None else self._rows.get(incarnation)
        return None if row is None else row.node

    def views(self, now: datetime) -> list[NodeView]:
        shown_since = now - timedelta(seconds=SHOWN_AFTER_END_S)
        return [
            NodeView(
                node=row.node,
                incarnation=row.incarnation,
                state=row.state,
                started_at=row.started_at,
                alive_for_s=(row.alive_until - now).total_seconds(),
                about=dict(row.about),
                drain_requested=row.drain_requested,
                load=dict(row.load),
            )
            for row in self._rows.values()
            if row.ended_at is None or row.ended_at >= shown_since
        ]

    def _living(self, incarnation: int) -> LeaseRow:
        row = self._rows.get(incarnation)
        if row is None:
            raise IncarnationDead(f"incarnation {incarnation} is not on record")
        if row.ended:
            raise IncarnationDead(f"incarnation {incarnation} of {row.node} is {row.state}")
        return row


def _in_time(row: LeaseRow, now: datetime) -> bool:
    """Enough is left of the lease, and no more than was granted: nothing has stood still."""
    left_s = (row.alive_until - now).total_seconds()
    return IN_TIME * row.lease_s <= left_s <= row.lease_s


def _run_out(row: LeaseRow, now: datetime) -> bool:
    """Past, or further away than its last renewal could have set it: then the clock has stepped back."""
    return not now < row.alive_until <= now + timedelta(seconds=row.lease_s)
