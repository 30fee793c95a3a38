"""All benchmarks: `python -m bench [PART…]`, where a part is `node` (all of its workloads) or one of them, `peers`, `keyed`,
`workflows`, `cluster` or `load`; some take a size, as `cluster=3`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from bench import keyed, node
from bench.beside import beside
from bench.cluster import cluster
from bench.load import load
from bench.workflows import workflows

_SIZED: Final[dict[str, tuple[Callable[..., Awaitable[None]], Callable[[str], float]]]] = {
    "peers": (beside, int),  # rounds
    "workflows": (workflows, int),  # fan-outs
    "cluster": (cluster, int),  # rounds
    "load": (load, float),  # seconds for each case
}
_UNSIZED: Final[dict[str, Callable[[], Awaitable[None]]]] = {
    "node": partial(node.main, []),
    **{name: partial(node.main, [name]) for name in node.WORKLOADS},
    "keyed": partial(keyed.main, []),
}
_ALL: Final = ("node", "peers", "keyed", "workflows", "cluster", "load")


def part(word: str) -> Callable[[], Awaitable[None]]:
    """What to run. Raises SystemExit with what is wrong."""
    name, has_size, size = word.partition("=")
    if name in _UNSIZED and not has_size:
        return _UNSIZED[name]
    if name not in _SIZED:
        known = ", ".join([*_UNSIZED, *(f"{each}[=SIZE]" for each in _SIZED)])
        raise SystemExit(f"{word!r} is no benchmark; there are {known}")
    run, read = _SIZED[name]
    try:
        return partial(run, *([read(size)] if has_size else []))
    except ValueError:
        raise SystemExit(f"{word!r}: {size!r} is no number") from None


async def main(words: list[str]) -> None:
    for run in [part(word) for word in words or _ALL]:
        await run()


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # what was started is stopped, however this ends
    if {"-h", "--help"} & set(sys.argv):
        raise SystemExit(f"{__doc__}\n{node.__doc__}")
    asyncio.run(main(sys.argv[1:]))
