"""Task ids: UUID version 7, strictly ascending per sequence, made from a clock and randomness passed in.

Law: RFC 9562, section 6.2, method 1. The 12 bits of `rand_a` count within a millisecond, the 62 bits of
`rand_b` are random. Timestamp and counter are one 60-bit number, so an overflowing counter carries into the
timestamp (some milliseconds ahead of the clock at most) and a clock that steps back is ignored until it has
caught up. Ids are made before the insert, which makes accepting safe to repeat.
"""

from __future__ import annotations

from struct import Struct
from typing import Final
from uuid import UUID, SafeUUID

_COUNTER_BITS: Final = 12
_COUNTER_MASK: Final = (1 << _COUNTER_BITS) - 1
_TAIL_MASK: Final = (1 << 62) - 1
_VERSION_AND_VARIANT: Final = (7 << 76) | (2 << 62)
_MS_MAX: Final = (1 << 48) - 1
_new: Final = object.__new__
_set_int: Final = UUID.__dict__["int"].__set__
_set_is_safe: Final = UUID.__dict__["is_safe"].__set__
_UNKNOWN: Final = SafeUUID.unknown
_TAILS: Final = Struct(">Q")
ENTROPY_BYTES: Final = _TAILS.size  # per id; the upper two bits are not used


class IdSequence:
    """One per process. Not thread-safe: it belongs to the event loop.

    >>> ids = IdSequence()
    >>> [task_id] = ids.take(time.time_ns() // 1_000_000, os.urandom(ENTROPY_BYTES))
    """

    __slots__ = ("_stamp",)

    def __init__(self) -> None:
        self._stamp = -1  # of the last id: milliseconds << 12 | counter

    def take(self, now_ms: int, entropy: bytes) -> list[UUID]:
        """One id per 8 bytes of `entropy`, ascending and above all ids before. `now_ms`: since 1970, UTC.

        Raises struct.error when `entropy` is not a multiple of 8 bytes.
        """
        stamp = max(self._stamp, (_checked(now_ms) << _COUNTER_BITS) - 1)
        ids = []
        for (tail,) in _TAILS.iter_unpack(entropy):
            stamp += 1
            ids.append(uuid_of_int(_spread(stamp) | (tail & _TAIL_MASK)))
        self._stamp = stamp
        return ids


def uuid_of_int(value: int) -> UUID:
    """UUID(int=value) at a third of its price, for what is made for each task; nothing is checked."""
    made = _new(UUID)
    _set_int(made, value)
    _set_is_safe(made, _UNKNOWN)
    return made


def uuid7_floor(ms: int) -> UUID:
    """The smallest id of that millisecond: `id >= uuid7_floor(ms)` means "made at `ms` or later"."""
    return UUID(int=_spread(_checked(ms) << _COUNTER_BITS))


def _spread(stamp: int) -> int:
    return (stamp >> _COUNTER_BITS) << 80 | (stamp & _COUNTER_MASK) << 64 | _VERSION_AND_VARIANT


def _checked(ms: int) -> int:
    if not 0 <= ms <= _MS_MAX:
        raise ValueError(f"milliseconds since 1970: {ms} is not within 0…{_MS_MAX}")
    return ms
