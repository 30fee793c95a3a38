"""A client of one S3 server: opened once at start, which reads files (the library's models, certificates)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError

from runtime.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.adapters.objects.url import Keys, S3Url

_REGION: Final = "us-east-1"  # what servers other than Amazon's take for any
_CONNECTIONS_MAX: Final = 64  # more than may be read and written at the same time
_CONNECT_S: Final = 3.0
_READ_S: Final = 10.0  # of silence
_TRIES: Final = 3  # of one request; beyond that the caller repeats


@asynccontextmanager
async def open_client(where: S3Url, keys: Keys | None) -> AsyncIterator[Any]:
    """Speaks to nobody yet. Without keys the library looks for them where Amazon's tools do (AWS_… variables, the
    role of the machine). Raises SettingsError."""
    config = AioConfig(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        max_pool_connections=_CONNECTIONS_MAX,
        # a server of one's own has no DNS names of buckets
        s3={"addressing_style": "path" if where.endpoint else "auto"},
        # ours is SHA-256, where it counts: other servers know no other, or trip over the trailers of the default
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
    )
    try:
        opening = _session().create_client(
            "s3",
            region_name=where.region or (_REGION if where.endpoint else None),
            endpoint_url=where.endpoint,
            aws_access_key_id=keys.access_key_id if keys else None,
            aws_secret_access_key=keys.secret_access_key if keys else None,
            config=config,
        )
        client = await opening.__aenter__()
    except (BotoCoreError, ValueError) as refused:
        raise SettingsError(f"RESULTS_URL: {refused}") from refused
    try:
        yield client
    finally:
        await opening.__aexit__(None, None, None)


@cache
def _session() -> Any:
    """One for the process: it keeps what it has read of the library's models, a quarter of a second's work."""
    return get_session()
