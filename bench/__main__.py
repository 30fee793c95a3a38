"""All benchmarks: `python -m bench [PART…]`, where a part is `node`, `peers`, `keyed`, `workflows`, `cluster`, `load`, or
a workload of `node`."""

from __future__ import annotations

import asyncio
import signal
import sys

from bench import keyed, node
from bench.beside import beside
from bench.cluster import cluster
from bench.load import load
from bench.workflows import workflows


async def main(words: list[str]) -> None:
    for word in words or ["node", "peers", "keyed", "workflows", "cluster", "load"]:
        name, _, size = word.partition("=")
        if name == "cluster":
            await cluster(*([int(size)] if size else []))
        elif name == "peers":
            await beside(*([int(size)] if size else []))
        elif name == "load":
            await load(*([float(size)] if size else []))
        elif name == "workflows":
            await workflows(*([int(size)] if size else []))
        elif name == "keyed":
            await keyed.main([])
        else:
            await node.main([] if name == "node" else [name])


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # what was started is stopped, however this ends
    asyncio.run(main(sys.argv[1:]))
