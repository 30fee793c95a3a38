"""Keyed actors: who they are, and how one turn of a key is taken and given back, as values.

Law: the record is the lock. A *turn* is a run of messages to one key, in order, that one incarnation holds as
running rows; while they exist nobody else begins a turn of that key. It ends in one commit, whole or not at all:
outcomes, children and the state, under the condition that the state's version is still the one the turn began
with. So whoever works from an older state can never commit, whatever it believes about the ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

from runtime.core.task import Claim, Lane, NewTask, Settlement, light, light_by_name

NO_STATE: Final = -1  # `known` of a node that has nothing of a key in memory
ANY_STATE: Final = 2**31 - 1  # `loads` of what has no state: it never minds


def actor_id(tenant: str, actor_type: str, key: str) -> UUID:
    """The identity of one actor, the same in Python and in SQL (`noria.actor_id`): 16 bytes of SHA-256.

    A type holds no colon and the tenant's length is said, so no two actors are written alike.
    """
    return UUID(bytes=sha256(f"{actor_type}:{len(tenant)}:{tenant}:{key}".encode()).digest()[:16])


def actor_of(task: NewTask) -> UUID | None:
    """Whose message this is; None for a task that belongs to no key."""
    if task.actor_type is None or task.actor_key is None:
        return None
    return actor_id(task.tenant, task.actor_type, task.actor_key)


@light
class Mail:
    """Messages of one lane of one key wait. `band` is that of the first one that is due (0: none is).

    `busy`: a turn of this key is under way. `state_version`: what its state was written as, 0 for none.
    """

    actor: UUID
    lane: Lane
    slot: int
    band: int
    state_version: int
    busy: bool


@light_by_name
class Ask:
    """Begin a turn of this key, of at most `limit` messages.

    `known`: version of the state that is in memory here. `loads`: the newest state version that this node can
    read. `passes`: messages that have to wait are passed by those behind them; else they hold up their lane.
    """

    actor: UUID
    limit: int
    known: int = NO_STATE
    loads: int = ANY_STATE
    passes: bool = False


@light_by_name
class Turn:
    """Messages of one lane of one key that now run here, in order. `fence` grows with every turn of the key.

    `state` is None where there is none yet (version 0), and where `known` was its version.
    """

    actor: UUID
    fence: int
    version: int
    state_version: int
    state: bytes | None
    claims: tuple[Claim, ...]


@light_by_name
class TurnEnd:
    """How the messages of a turn ended, and the state after them (None: as it was).

    It commits only if all of them still run under their attempts and the state still has that `version`, which
    then is one more if a state is written.
    """

    actor: UUID
    version: int
    settlements: tuple[Settlement, ...]
    state: bytes | None = None
    state_version: int = 0


TURN_MAX: Final = 128  # messages
_TURN_S: Final = (
    0.02  # what a turn should take: longer, and answers come late; shorter, and commits cost more
)
_WEIGHT: Final = 0.2  # of the newest turn in the mean


class Pace:
    """How many messages a turn should hold, from what bodies of one kind of actor have taken so far."""

    __slots__ = ("_body_s",)

    def __init__(self) -> None:
        self._body_s = _TURN_S  # nothing is known: one message

    def limit(self) -> int:
        return max(1, min(TURN_MAX, int(_TURN_S / self._body_s)))

    def took(self, bodies: int, seconds: float) -> None:
        """So many bodies, one after the other, took so long."""
        if bodies > 0:
            mean_s = max(seconds / bodies, 1e-6)
            self._body_s += _WEIGHT * (mean_s - self._body_s)

    def is_over(self, seconds: float) -> bool:
        """Whether a turn that has taken so long should end, though it has messages left."""
        return seconds > 2 * _TURN_S


def in_order(turns: Sequence[TurnEnd]) -> list[TurnEnd]:
    """As the record locks them."""
    return sorted(turns, key=lambda turn: turn.actor.int)
