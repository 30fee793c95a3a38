"""What nodes say to each other, as values; `runtime.codec` is the only place that knows their bytes.

Rules of evolution, for nodes of two releases talk to each other during every deploy:
- A message is never needed for safety. It may be lost, doubled, late or refused; the record repairs.
- Unknown fields are skipped, and new fields have defaults, so adding one changes nothing for anybody.
- A field never changes its type or meaning. What cannot be said that way gets a new version number, which
  stands first in every message; a node refuses (and counts) versions it does not know.
- The golden bytes of old versions stay in the tests for ever.
Messages between actors of one process are not here; they stand beside their receivers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uuid import UUID


ITEMS_MAX: Final = 4096  # ids in one message; senders split


@dataclass(frozen=True, slots=True)
class Offer:
    """To the owner of their slots: these (id, attempt) wait. The hot one, so it travels as a bare array."""

    view: int  # the sender's
    incarnation: int  # the sender's
    items: tuple[tuple[UUID, int], ...]
    kind: int = 0  # of body they all have: 0 async, 1 thread, 2 process; each has a capacity of its own


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell me, `incarnation`, when these end."""

    incarnation: int
    ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """These have ended; committed before it was sent."""

    ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Credit:
    """`incarnation` takes this many offers more from each member, by kind of body (as in Offer). It replaces what
    was said before; what is not there is 0."""

    incarnation: int
    credits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """To an owner without credit: rows of these bands wait that are due, and yours."""

    bands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked to cancel this running attempt; the record says so already."""

    id: UUID
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """I am here. Sent every second to everybody."""

    incarnation: int
    view: int
    sequence: int  # grows by one, so that gaps show
    lag_ms: float  # of the event loop, the worst since the last one
    table_hash: str  # core.ring.table_hash of that view; one view, one table
    credits: tuple[int, ...]  # as in Credit
    running: int = 0  # bodies


@dataclass(frozen=True, slots=True)
class Canary:
    """To the sender itself, through its own inbox: whether what is sent arrives."""

    incarnation: int
    sequence: int


Message = Offer | Watch | Finished | Credit | Waiting | CancelRequested | Heartbeat | Canary
