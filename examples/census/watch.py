"""Follows how the nodes come by their work, by what they tell Prometheus."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Self

import aiohttp

LOOK_S = 0.5
CLAIMS = re.compile(r'^noria_tasks_claimed_total\{via="(\w+)"\} (\S+)$', re.MULTILINE)


class Watch:
    """`urls` by node name."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._lives: dict[str, list[Counter[str]]] = {name: [Counter()] for name in urls}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(1))
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._follower.cancel()
        await asyncio.gather(self._follower, return_exceptions=True)
        await self._session.close()

    @property
    def claims(self) -> dict[str, Counter[str]]:
        """By node name and way, as last seen of each of its processes: a little less than there were where one died."""
        return {name: sum(lives, Counter()) for name, lives in self._lives.items()}

    async def look(self) -> None:
        """Once, now."""
        for name, url in self._urls.items():
            seen = Counter(
                {via: int(float(count)) for via, count in CLAIMS.findall(await self._metrics(url))}
            )
            lives = self._lives[name]
            if seen.total() >= lives[-1].total():
                lives[-1] = seen
            elif seen:
                lives.append(seen)  # a new process counts from the start

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def _metrics(self, url: str) -> str:
        try:
            async with self._session.get(f"{url}/metrics") as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return ""  # it is away
