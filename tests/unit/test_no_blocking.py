"""The guard against blocking calls in the event loop sees our code, and only ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockingError

import runtime.errors

if TYPE_CHECKING:
    from collections.abc import Callable


def _sleeper(file: str) -> Callable[[], None]:
    """A function that blocks, as if it stood in `file`."""
    space: dict[str, Any] = {}
    exec(compile("import time\ndef sleeper():\n    time.sleep(0.001)\n", file, "exec"), space)  # noqa: S102 - ours
    sleeper: Callable[[], None] = space["sleeper"]
    return sleeper


OURS = _sleeper(runtime.errors.__file__)


async def test_a_blocking_call_of_ours_fails_the_test() -> None:
    with pytest.raises(BlockingError):
        OURS()


async def test_a_library_may_do_what_it_wants() -> None:
    before_s = time.perf_counter()
    _sleeper("library.py")()
    assert time.perf_counter() > before_s


@pytest.mark.allow_blocking("this is what the marker is for")
async def test_the_marker_allows_it() -> None:
    before_s = time.perf_counter()
    OURS()
    assert time.perf_counter() > before_s


def test_no_loop_no_fault() -> None:
    before_s = time.perf_counter()
    OURS()
    assert time.perf_counter() > before_s
