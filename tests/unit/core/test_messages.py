from __future__ import annotations

import dataclasses
import os
from typing import Any, get_args
from uuid import UUID

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.codec import MESSAGE_BYTES_MAX, decode, encode
from runtime.core.messages import (
    ITEMS_MAX,
    Canary,
    CancelRequested,
    Credit,
    Finished,
    Heartbeat,
    Message,
    Offer,
    Waiting,
    Watch,
)
from runtime.errors import UndecodableMessage

A = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
B = UUID("01890a5d-ac97-7000-8000-0000000000ff")

# The wire, version 1. A message may get a second line here; a line may never change or go.
GOLDEN: list[tuple[Message, str]] = [
    (
        Offer(7, 3, ((A, 1), (B, 300))),
        "950107039292c41001890a5dac96774bbcceb302099a80570192c41001890a5dac97700080000000000000ffcd012c00",
    ),
    (
        Offer(0, 0, (), 2),
        "950100009002",
    ),
    (
        Watch(3, (A, B)),
        "84a17601a174a57761746368ab696e6361726e6174696f6e03a369647392c41001890a5dac96774bbcceb302099a8057c41001890a5dac97700080000000000000ff",
    ),
    (
        Finished((A, B)),
        "83a17601a174a866696e6973686564a369647392c41001890a5dac96774bbcceb302099a8057c41001890a5dac97700080000000000000ff",
    ),
    (
        Credit(3, (128, 0, 1)),
        "84a17601a174a6637265646974ab696e6361726e6174696f6e03a76372656469747393cc800001",
    ),
    (
        CancelRequested(A, 2),
        "84a17601a174a663616e63656ca26964c41001890a5dac96774bbcceb302099a8057a7617474656d707402",
    ),
    (
        Heartbeat(
            incarnation=3, view=7, sequence=70_000, lag_ms=1.5, table_hash="ad91fcda65e413a2", credits=(5,)
        ),
        "89a17601a174a462656174ab696e6361726e6174696f6e03a47669657707a873657175656e6365ce00011170a66c61675f6d73cb3ff8000000000000aa7461626c655f68617368b061643931666364613635653431336132a7637265646974739105a772756e6e696e6700",
    ),
    (
        Heartbeat(incarnation=3, view=7, sequence=9, lag_ms=0.0, table_hash="", credits=(), running=7),
        "89a17601a174a462656174ab696e6361726e6174696f6e03a47669657707a873657175656e636509a66c61675f6d73cb0000000000000000aa7461626c655f68617368a0a76372656469747390a772756e6e696e6707",
    ),
    (
        Canary(3, 9),
        "84a17601a174a663616e617279ab696e6361726e6174696f6e03a873657175656e636509",
    ),
    (
        Waiting((1, 70_000)),
        "83a17601a174a777616974696e67a562616e64739201ce00011170",
    ),
]

INTS = st.integers(0, 2**63 - 1)
IDS = st.uuids()
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Offer, INTS, INTS, st.lists(st.tuples(IDS, INTS), max_size=5).map(tuple), st.integers(0, 2)),
    st.builds(Watch, INTS, st.lists(IDS, max_size=5).map(tuple)),
    st.builds(Finished, st.lists(IDS, max_size=5).map(tuple)),
    st.builds(Credit, INTS, st.lists(INTS, max_size=3).map(tuple)),
    st.builds(Canary, INTS, INTS),
    st.builds(Waiting, st.lists(INTS, max_size=3).map(tuple)),
    st.builds(CancelRequested, IDS, INTS),
    st.builds(
        Heartbeat,
        incarnation=INTS,
        view=INTS,
        sequence=INTS,
        lag_ms=st.floats(0, 1e9),
        table_hash=st.text("0123456789abcdef", max_size=16),
        credits=st.lists(INTS, max_size=3).map(tuple),
        running=INTS,
    ),
)


@pytest.mark.parametrize(("message", "hexes"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_bytes(message: Message, hexes: str) -> None:
    assert encode(message).hex() == hexes
    assert decode(bytes.fromhex(hexes)) == message


def test_every_message_has_its_golden_bytes() -> None:
    assert {type(message) for message, _ in GOLDEN} == set(get_args(Message))


@settings(max_examples=100, deadline=None)
@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    decoded = decode(encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


def test_an_offer_is_a_compact_array() -> None:
    offer = Offer(7, 3, ((A, 1), (B, 2)))
    assert msgpack.unpackb(encode(offer)) == [1, 7, 3, [[A.bytes, 1], [B.bytes, 2]], 0]
    hundred = Offer(7, 3, tuple((UUID(int=n), 1) for n in range(100)))
    assert len(encode(hundred)) <= 21 * 100


# -- evolution --------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(MESSAGES, st.binary(max_size=300) | st.lists(st.integers(), max_size=3).map(str) | st.none())
def test_unknown_fields_of_later_releases_are_skipped(message: Message, more: Any) -> None:
    body = msgpack.unpackb(encode(message))
    if isinstance(body, list):
        body = [*body[:3], [[*pair, more] for pair in body[3]], body[4], more, {"x": more}]
    else:
        body |= {"later": more, "z": [more]}
    assert decode(msgpack.packb(body)) == message


def test_a_field_with_a_default_may_be_missing_and_no_other() -> None:
    beat = Heartbeat(incarnation=3, view=7, sequence=9, lag_ms=0.5, table_hash="ab", credits=(5,), running=3)
    body = msgpack.unpackb(encode(beat))
    without = {name: value for name, value in body.items() if name != "running"}
    assert decode(msgpack.packb(without)) == dataclasses.replace(beat, running=0)
    for name in without:
        with pytest.raises(UndecodableMessage):
            decode(msgpack.packb({key: value for key, value in without.items() if key != name}))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([2, 7, 3, []], "version 2, this node knows 1"),
        ([True, 7, 3, []], "version True"),
        ([], "version None"),
        ([1, 7, 3], "an offer has at least 4 parts, not 3"),
        ([1, -7, 3, []], "-7 is not an integer of 0…2^63-1"),
        ([1, 2**63, 3, []], "9223372036854775808 is not an integer"),
        ([1, True, 3, []], "True is not an integer"),
        ([1, 7, 3, [[A.bytes]]], "list is not a pair with an id"),
        ([1, 7, 3, [[A.bytes[:15], 1]]], "is not an id of 16 bytes"),
        ([1, 7, 3, [[str(A), 1]]], "is not an id of 16 bytes"),
        ([1, 7, 3, [[A.bytes, 1.0]]], "1.0 is not an integer"),
        ([1, 7, 3, [[A.bytes, 1]] * (ITEMS_MAX + 1)], "list is not an array of at most 4096 items"),
        (1, "a message is an array or a map, not int"),
        ({}, "version None"),
        ({"v": 1}, "unknown tag None"),
        ({"v": 1, "t": ["watch"]}, "unknown tag list"),
        ({"v": 1, "t": "x" * 1_000}, "unknown tag 'xxx"),
        ({"v": 1, "t": "watch", "ids": []}, "watch.incarnation is missing"),
        ({"v": 1, "t": "watch", "incarnation": 1, "ids": b"x"}, "watch.ids: b'x' is not an array"),
        ({"v": 1, "t": "finished", "ids": [3]}, "finished.ids: 3 is not an id"),
        (
            {"v": 1, "t": "credit", "incarnation": 1, "credits": [None]},
            "credit.credits: None is not an integer",
        ),
        ({"v": 1, "t": "cancel", "id": None, "attempt": 1}, "cancel.id: None is not an id"),
    ],
)
def test_what_is_wrong_is_said(body: object, problem: str) -> None:
    with pytest.raises(UndecodableMessage) as undecodable:
        decode(msgpack.packb(body))
    assert problem in str(undecodable.value)
    assert len(str(undecodable.value)) < 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lag_ms", float("nan")),
        ("lag_ms", "1"),
        ("lag_ms", True),
        ("table_hash", b"ab"),
        ("table_hash", "a" * 257),
        ("credits", 1),
        ("credits", [None]),
        ("running", -1),
    ],
)
def test_a_heartbeat_with_a_wrong_field_is_refused(field: str, value: object) -> None:
    beat = Heartbeat(incarnation=3, view=7, sequence=9, lag_ms=0.5, table_hash="ab", credits=(5,))
    with pytest.raises(UndecodableMessage, match=f"beat.{field}: "):
        decode(msgpack.packb(msgpack.unpackb(encode(beat)) | {field: value}))


# -- foreign bytes ----------------------------------------------------------------------------------


def check_foreign(body: bytes) -> None:
    try:
        message = decode(body)
    except UndecodableMessage:
        return
    assert decode(encode(message)) == message


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
@example(b"\xdf\xff\xff\xff\xff")  # a map of four billion
@example(b"\xdd\xff\xff\xff\xff")  # an array of four billion
@example(b"\xc6\xff\xff\xff\xff")  # four gigabytes of bytes
@example(b"\x91" * 5_000)  # nested beyond the unpacker's stack
@example(b"\xd6\xff\xff\xff\xff\xff")  # a timestamp
@example(b"\xc7\x0c\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")  # one that no calendar knows
@example(b"\x81\x90\x01")  # a list as a key
@example(b"\x01\x01")  # two values
@example(b"\xa1\xff")  # not UTF-8
@example(b"")
def test_random_bytes_decode_to_nothing_or_one_of_ours(body: bytes) -> None:
    check_foreign(body)


@settings(max_examples=150, deadline=None)
@given(MESSAGES, st.data())
def test_mutated_messages_decode_to_nothing_or_one_of_ours(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check_foreign(bytes(body))


@settings(max_examples=100, deadline=None)
@given(MESSAGES, st.data())
def test_a_message_that_is_cut_off_is_never_half_read(message: Message, data: st.DataObject) -> None:
    body = encode(message)
    with pytest.raises(UndecodableMessage):
        decode(body[: data.draw(st.integers(0, len(body) - 1))])


# -- sizes ------------------------------------------------------------------------------------------


def test_the_largest_message_fits() -> None:
    ids = [UUID(bytes=os.urandom(16)) for _ in range(ITEMS_MAX)]
    largest = Offer(2**63 - 1, 2**63 - 1, tuple((task_id, 2**63 - 1) for task_id in ids))
    assert len(encode(largest)) <= MESSAGE_BYTES_MAX
    assert decode(encode(largest)) == largest


@pytest.mark.parametrize(
    "message",
    [
        Offer(1, 1, ((A, 1),) * (ITEMS_MAX + 1)),
        Watch(1, (A,) * (ITEMS_MAX + 1)),
        Finished((A,) * (ITEMS_MAX + 1)),
    ],
)
def test_a_message_that_nobody_would_read_is_not_written(message: Message) -> None:
    with pytest.raises(ValueError, match="4097 ids in one message: at most 4096 are allowed"):
        encode(message)


def test_more_bytes_than_any_message_has_are_not_even_unpacked() -> None:
    with pytest.raises(UndecodableMessage, match=f"at most {MESSAGE_BYTES_MAX} are allowed"):
        decode(msgpack.packb([1, 7, 3, [], bytes(MESSAGE_BYTES_MAX)]))
