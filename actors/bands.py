"""The bands this node knows: interned combinations that waiting rows carry and a node chooses by.

Bands are never deleted or changed, so a cache of them is never wrong, only behind; `refresh` reads the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runtime.core.task import Band, BandKey
from runtime.ports import Catalog


class Bands:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._by_key: dict[BandKey, Band] = {}
        self._by_id: dict[int, Band] = {}
        self._read_up_to = 0

    def __getitem__(self, band_id: int) -> Band:
        return self._by_id[abs(band_id)]

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Band]:
        return iter(self._by_id.values())

    def get(self, band_id: int) -> Band | None:
        return self._by_id.get(abs(band_id))

    def id_of(self, key: BandKey) -> int | None:
        band = self._by_key.get(key)
        return None if band is None else band.id

    async def intern(self, keys: Iterable[BandKey]) -> list[Band]:
        """Make sure that these are known; returns those that were not known here."""
        unknown = {key for key in keys if key not in self._by_key}
        if not unknown:
            return []
        return self._remember(await self._catalog.intern(sorted(unknown, key=_order)))

    async def refresh(self) -> list[Band]:
        """Read bands that others made; returns those that were not known here."""
        fresh = await self._catalog.bands(after=self._read_up_to)
        if fresh:
            # ids of concurrent transactions may appear out of order: look back a little the next time
            self._read_up_to = max(self._read_up_to, fresh[-1].id - _LOOK_BACK)
        return self._remember(fresh)

    def _remember(self, bands: Iterable[Band]) -> list[Band]:
        fresh = [band for band in bands if band.id not in self._by_id]
        for band in fresh:
            self._by_id[band.id] = band
            self._by_key[band.key] = band
        return fresh


_LOOK_BACK = 100


def _order(key: BandKey) -> tuple[str, int, str, tuple[str, ...], bool]:
    return (key.handler, key.lane, key.tenant, key.requires, key.keyed)
