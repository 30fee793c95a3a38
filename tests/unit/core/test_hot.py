"""Hot keys are found in bounded memory, whatever else is in the stream."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from runtime.core.hot import HotKeys


@given(
    stream=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=200), kept=st.integers(1, 10)
)
def test_what_is_hot_is_kept_and_hardly_overcounted(stream: list[tuple[int, int]], kept: int) -> None:
    hot: HotKeys[int] = HotKeys(kept)
    real: Counter[int] = Counter()
    for key, count in stream:
        hot.add(key, count)
        real[key] += count
    total = sum(real.values())
    found = dict(hot.take(kept))
    assert len(found) <= kept
    for key, count in found.items():
        assert real[key] <= count <= real[key] + total / kept
    assert {key for key, count in real.items() if count > total / kept} <= found.keys()
    assert hot.take(kept) == []


def test_the_hottest_comes_first() -> None:
    hot: HotKeys[str] = HotKeys()
    for key, count in (("a", 1), ("b", 3), ("c", 2), ("a", 1)):
        hot.add(key, count)
    assert hot.take(2) == [("b", 3), ("a", 2)]
