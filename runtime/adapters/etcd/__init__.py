"""Views on etcd 3.4 and newer, through etcd3aio.

url.py   what ETCD_URL says   endpoints.py   who is asked, and for how long   coordinator.py   the port

Importing this package is cheap: gRPC (30 MB) is imported by who opens a coordinator.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runtime.adapters.etcd.url import EtcdUrl, parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.adapters.etcd.coordinator import EtcdCoordinator

__all__ = ["EtcdUrl", "open_coordinator", "parse"]


@asynccontextmanager
async def open_coordinator(url: str) -> AsyncIterator[EtcdCoordinator]:
    """Connects when it is first asked, so etcd may be away.

    Raises ValueError (the URL, see `parse`), SettingsError (a file of certificates that cannot be used).
    """
    where = parse(url)
    await asyncio.to_thread(_import_grpc)  # a third of a second that the loop need not stand still for
    from runtime.adapters.etcd.coordinator import EtcdCoordinator  # noqa: PLC0415 - what it costs, see above
    from runtime.adapters.etcd.endpoints import Endpoints, credentials_of  # noqa: PLC0415

    endpoints = Endpoints(where, await asyncio.to_thread(credentials_of, where))
    try:
        yield EtcdCoordinator(endpoints, where.prefix)
    finally:
        await endpoints.close()


def _import_grpc() -> None:
    import runtime.adapters.etcd.coordinator  # noqa: F401, PLC0415
