"""Marks: a version is left out up to a start, others are not, and callers' tags stay what they are."""

from __future__ import annotations

import pytest

from runtime.core.task import BandKey, Lane
from runtime.core.versions import left_to_others, may_serve, tags_in

KEY = BandKey("scrape", Lane.MEDIUM, requires=("eu", "gpu"))
ONE, OTHER = "1" * 64, "2" * 64


def test_only_starts_of_that_version_up_to_that_number_are_left_out() -> None:
    left = left_to_others(KEY, ONE, 7)
    tags = frozenset({"gpu", "eu", "fast"})
    assert not may_serve(left.requires, tags, ONE, 7)
    assert not may_serve(left.requires, tags, ONE, 3)
    assert may_serve(left.requires, tags, ONE, 8), "what starts later may have been mended"
    assert may_serve(left.requires, tags, OTHER, 7)
    assert not may_serve(left.requires, frozenset({"gpu"}), OTHER, 7), "tags are required as before"


def test_a_second_version_that_cannot_bind_it_is_left_out_too() -> None:
    left = left_to_others(left_to_others(KEY, ONE, 7), OTHER, 9)
    tags = frozenset(KEY.requires)
    assert [may_serve(left.requires, tags, version, 9) for version in (ONE, OTHER, "3" * 64)] == [
        True,  # started since
        False,
        True,
    ]


def test_a_later_try_of_the_same_version_replaces_its_mark() -> None:
    once, again = left_to_others(KEY, ONE, 7), left_to_others(KEY, ONE, 12)
    assert left_to_others(once, ONE, 12) == again


@pytest.mark.parametrize("key", [KEY, BandKey("scrape", Lane.LOW)])
def test_tags_of_callers_come_through(key: BandKey) -> None:
    left = left_to_others(left_to_others(key, ONE, 7), OTHER, 9)
    assert tags_in(left.requires) == key.requires
    assert left.requires == tuple(sorted(left.requires)), "bands are interned by this order"
