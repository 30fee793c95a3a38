"""Large results outside of the record: in a folder, or in a bucket of any server that speaks S3.

url.py   what RESULTS_URL says   folder.py   s3.py   the port   s3_client.py   how the bucket is reached

Importing this package is cheap: the S3 library (time at every start, 10 MB) is imported by who opens a bucket.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runtime.adapters.objects.folder import FolderObjects
from runtime.adapters.objects.url import FolderUrl, Keys, S3Url, parse
from runtime.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.ports import Objects

__all__ = ["FolderUrl", "Keys", "S3Url", "open_objects", "parse"]

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_objects(where: FolderUrl | S3Url, keys: Keys | None, name: str) -> AsyncIterator[Objects]:
    """Objects under `name` at that place, which others may share. A bucket may be away.

    Raises SettingsError where the place will not do: wrong keys, no such bucket, a folder that cannot be written.
    """
    if isinstance(where, FolderUrl):
        folder = FolderObjects(where.path / name)
        await asyncio.to_thread(folder.check)
        yield folder
        return
    await asyncio.to_thread(_import_s3)  # the loop need not stand still for it
    from runtime.adapters.objects.s3 import S3Objects  # noqa: PLC0415 - what it costs, see above
    from runtime.adapters.objects.s3_client import open_client  # noqa: PLC0415

    async with open_client(where, keys) as client:
        bucket = S3Objects(client, where, name)
        try:
            await bucket.check()
        except Unavailable as away:
            log.warning("large results wait until their store is back: %s", away)
        yield bucket


def _import_s3() -> None:
    import runtime.adapters.objects.s3  # noqa: PLC0415
    import runtime.adapters.objects.s3_client  # noqa: F401, PLC0415
