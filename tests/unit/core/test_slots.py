from __future__ import annotations

from collections import Counter
from hashlib import sha256
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.slots import SLOTS, routing_key, slot_of

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


# Rows carry slots, so these may never change; they are what PostgreSQL 15 gave for the SQL of the docstring.
@pytest.mark.parametrize(
    ("key", "slot"),
    [("", 944), ("order-17", 681), ("käse", 2291), ("🦆", 1957), (str(ID), 1981)],
)
def test_slots_agree_with_sql(key: str, slot: int) -> None:
    assert slot_of(key) == slot


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_slot_is_the_first_two_bytes_modulo_4096(key: str) -> None:
    assert slot_of(key) == int(sha256(key.encode("utf-8")).hexdigest()[:4], 16) % 4096


def test_slots_are_even() -> None:
    counts = Counter(slot_of(f"key-{n}") for n in range(40 * SLOTS))
    assert set(counts) == set(range(SLOTS))
    # chi-square over 4095 degrees of freedom: mean 4095, standard deviation 90; six of them
    assert sum((count - 40) ** 2 / 40 for count in counts.values()) < 4095 + 6 * 90.5


def test_the_actor_key_wins_over_the_idempotency_key_over_the_id() -> None:
    assert routing_key(ID, "once", "account-42") == "account-42"
    assert routing_key(ID, "once") == "once"
    assert routing_key(ID, None, "account-42") == "account-42"
    assert routing_key(ID) == str(ID)


def test_an_empty_key_is_a_key() -> None:
    assert routing_key(ID, "", None) == ""
    assert routing_key(ID, "once", "") == ""
