from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.ids import ENTROPY_BYTES, IdSequence, uuid7_floor

if TYPE_CHECKING:
    from random import Random

NOW_MS = 0x017F22E279B0  # the timestamp of the example in RFC 9562, appendix A.6
MS = st.integers(0, 2**48 - 1)


def one(ids: IdSequence, now_ms: int, entropy: bytes = bytes(8)) -> UUID:
    [task_id] = ids.take(now_ms, entropy)
    return task_id


def created_ms(task_id: UUID) -> int:
    return int(task_id.hex[:12], 16)


def test_the_example_of_the_rfc_has_our_layout() -> None:
    # appendix A.6 has rand_a = CC3; ours counts from 0, the rest is the same
    assert one(IdSequence(), NOW_MS, bytes.fromhex("18c4dc0c0c07398f")) == UUID(
        "017F22E2-79B0-7000-98C4-DC0C0C07398F"
    )


@settings(max_examples=100, deadline=None)
@given(MS, st.binary(min_size=8, max_size=8))
def test_every_id_is_version_7_and_carries_its_millisecond(ms: int, entropy: bytes) -> None:
    task_id = one(IdSequence(), ms, entropy)
    assert task_id.version == 7
    assert task_id.variant == "specified in RFC 4122"
    assert created_ms(task_id) == ms
    assert uuid7_floor(ms) <= task_id
    assert UUID(str(task_id)) == task_id


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(NOW_MS - 3, NOW_MS + 3), st.integers(0, 5)), max_size=30), st.randoms())
def test_ids_ascend_whatever_the_clock_does(takes: list[tuple[int, int]], random: Random) -> None:
    ids = IdSequence()
    made = [task_id for ms, n in takes for task_id in ids.take(ms, random.randbytes(n * ENTROPY_BYTES))]
    assert all(a < b for a, b in pairwise(made))
    assert [str(a) for a in made] == sorted(str(a) for a in made)


def test_a_batch_larger_than_the_counter_carries_into_the_next_millisecond() -> None:
    ids = IdSequence()
    batch = ids.take(NOW_MS, bytes(10_000 * ENTROPY_BYTES))
    assert len(set(batch)) == 10_000
    assert batch == sorted(batch)
    assert [created_ms(task_id) - NOW_MS for task_id in (batch[0], batch[4095], batch[4096], batch[-1])] == [
        0,
        0,
        1,
        2,
    ]
    assert (
        created_ms(one(ids, NOW_MS + 3)) == NOW_MS + 3
    )  # and the clock rules again as soon as it has caught up


def test_entropy_fills_the_tail_and_never_the_variant() -> None:
    assert one(IdSequence(), NOW_MS, b"\xff" * 8).bytes[8:] == b"\xbf" + b"\xff" * 7
    assert one(IdSequence(), NOW_MS, b"\x00" * 8).bytes[8:] == b"\x80" + b"\x00" * 7


@settings(max_examples=100, deadline=None)
@given(MS, MS)
def test_floors_order_ids_as_their_milliseconds(a: int, b: int) -> None:
    last_of_a = one(IdSequence(), a, b"\xff" * 8)
    assert (last_of_a >= uuid7_floor(b)) == (a >= b)


@pytest.mark.parametrize("ms", [-1, 2**48])
def test_a_clock_outside_48_bits_is_refused_and_changes_nothing(ms: int) -> None:
    ids = IdSequence()
    first = one(ids, NOW_MS)
    with pytest.raises(ValueError, match=r"not within 0…281474976710655"):
        ids.take(ms, bytes(8))
    with pytest.raises(ValueError, match=str(ms)):
        uuid7_floor(ms)
    assert one(ids, NOW_MS).int - first.int == 1 << 64


def test_torn_entropy_is_refused_and_changes_nothing() -> None:
    ids = IdSequence()
    with pytest.raises(struct.error):
        ids.take(NOW_MS, bytes(9))
    assert one(ids, NOW_MS) == one(IdSequence(), NOW_MS)
