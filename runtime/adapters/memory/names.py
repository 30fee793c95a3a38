"""Names that all nodes share: interned bands and the catalog of handlers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.core.lanes import USUAL_WEIGHT, check_weight
from runtime.core.task import Band, BandKey, HandlerEntry, Paused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Names:
    def __init__(self) -> None:
        self._bands: dict[BandKey, Band] = {}
        self._by_id: list[Band] = []  # index = id - 1: bands are never deleted
        self._handlers: dict[str, HandlerEntry] = {}
        self._weights: dict[str, int] = {}
        self._paused_tenants: set[str] = set()

    def intern(self, keys: Iterable[BandKey]) -> list[Band]:
        return [self._bands.get(key) or self._make(key) for key in keys]

    def band(self, band_id: int) -> Band:
        """The band of a positive or negative id."""
        return self._by_id[abs(band_id) - 1]

    def bands(self, after: int) -> list[Band]:
        return self._by_id[max(after, 0) :]

    def publish(self, entries: Sequence[HandlerEntry]) -> None:
        for entry in entries:
            known = self._handlers.get(entry.name)
            self._handlers[entry.name] = replace(entry, paused=known is not None and known.paused)

    def handlers(self) -> list[HandlerEntry]:
        return [entry for _, entry in sorted(self._handlers.items())]

    def paused(self) -> Paused:
        handlers = frozenset(entry.name for entry in self.handlers() if entry.paused)
        return Paused(handlers, frozenset(self._paused_tenants))

    def set_paused(self, handler: str, *, paused: bool) -> bool:
        known = self._handlers.get(handler)
        if known is None:
            return False
        self._handlers[handler] = replace(known, paused=paused)
        return True

    def set_tenant_paused(self, tenant: str, *, paused: bool) -> None:
        self._paused_tenants.discard(tenant)
        if paused:
            self._paused_tenants.add(tenant)

    def tenant_weights(self) -> dict[str, int]:
        return dict(self._weights)

    def tenant_weight(self, tenant: str) -> int:
        return self._weights.get(tenant, USUAL_WEIGHT)

    def set_tenant_weight(self, tenant: str, weight: int) -> None:
        check_weight(weight)
        self._weights.pop(tenant, None)
        if weight != USUAL_WEIGHT:
            self._weights[tenant] = weight

    def _make(self, key: BandKey) -> Band:
        band = Band(
            id=len(self._by_id) + 1,
            handler=key.handler,
            lane=key.lane,
            tenant=key.tenant,
            requires=key.requires,
            keyed=key.keyed,
        )
        self._by_id.append(band)
        self._bands[key] = band
        return band
