"""Keys of objects, and references to them."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from runtime.core.objects import Reference, attempt_of, key_of
from runtime.core.task import Codec

ID = UUID("0198ab12-7b4d-7000-8000-000000000001")


def test_a_key_names_its_attempt() -> None:
    assert key_of(ID, 3) == "0198ab/0198ab12-7b4d-7000-8000-000000000001.3"
    for attempt in (1, 17, 2**31 - 1):
        task_id = uuid4()
        assert attempt_of(key_of(task_id, attempt)) == (task_id, attempt)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a",
        "0198ab/x.1",
        f"ffffff/{ID}.1",
        f"0198ab/{ID}",
        f"0198ab/{ID}.x",
        f"0198ab/{ID}.01",
        f"x/0198ab/{ID}.1",
    ],
)
def test_what_is_no_key_of_ours(key: str) -> None:
    assert attempt_of(key) is None


def test_keys_ascend_with_the_time_in_their_ids() -> None:
    ids = [UUID(int=ms << 80 | 1 << 76) for ms in (1, 1 << 20, 1 << 24, 1 << 40, (1 << 40) + 1)]
    keys = [key_of(task_id, 1) for task_id in ids]
    assert keys == sorted(keys)


def test_a_reference_is_read_as_it_was_written() -> None:
    lies = Reference(key_of(ID, 1), 12345678901, "ab" * 32)
    assert Reference.from_bytes(lies.to_bytes()) == lies
    assert len(lies.to_bytes()) < 200


def test_codecs() -> None:
    assert [codec.is_apart for codec in Codec] == [False, False, True, True]
    assert [codec.apart for codec in Codec] == [Codec.JSON_APART, Codec.BYTES_APART] * 2
    assert [codec.inner for codec in Codec] == [Codec.JSON, Codec.BYTES] * 2
