"""What a URL says about where large results lie.

    file:///FOLDER
    s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&sse=AES256|aws:kms&kms_key=ID]

Keys are never part of it. Without an endpoint it is Amazon's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

SHAPE: Final = (
    "file:///FOLDER or s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&sse=AES256|aws:kms&kms_key=ID]"
)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OPTIONS: Final = ("endpoint", "region", "sse", "kms_key")
_ENCRYPTIONS: Final = ("AES256", "aws:kms")


@dataclass(frozen=True, slots=True)
class FolderUrl:
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Url:
    """`prefix` of all keys is empty or ends with a slash. `sse`: how the server encrypts what it stores."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    sse: str | None = None
    kms_key: str | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """Who we are to the server."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def parse(url: str) -> FolderUrl | S3Url:
    """Raises ValueError, which names the part that is wrong and what is allowed."""
    parts = urlsplit(url.strip())
    if "@" in parts.netloc:
        raise ValueError("user: keys do not belong here; they are settings of their own")
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or len(parts.path) < 2 or parts.query:
            raise ValueError("folder: an absolute path is needed, file:///FOLDER")
        return FolderUrl(Path(unquote(parts.path)))
    if parts.scheme != "s3":
        raise ValueError(f"scheme: allowed are file and s3; the URL is {SHAPE}")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"bucket: {parts.netloc!r} is no name of a bucket")
    prefix = unquote(parts.path).strip("/")
    return S3Url(bucket=parts.netloc, prefix=f"{prefix}/" if prefix else "", **_options(parts.query))


def folder_url(path: Path) -> str:
    """What `parse` reads as this folder."""
    return path.absolute().as_uri()


def _options(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in given.items():
        if name not in _OPTIONS:
            raise ValueError(f"{name}: no such option; allowed: {', '.join(_OPTIONS)}")
        if not value:
            raise ValueError(f"{name}: is empty")
    if (endpoint := given.get("endpoint")) is not None:
        where = urlsplit(endpoint)
        if where.scheme not in {"http", "https"} or not where.hostname or where.path.strip("/"):
            raise ValueError("endpoint: allowed is http(s)://HOST[:PORT]")
        if "@" in where.netloc:
            raise ValueError("endpoint: keys do not belong here; they are settings of their own")
    if (sse := given.get("sse")) is not None and sse not in _ENCRYPTIONS:
        raise ValueError(f"sse: allowed are {' and '.join(_ENCRYPTIONS)}")
    if "kms_key" in given and sse != "aws:kms":
        raise ValueError("kms_key: needs sse=aws:kms")
    return given
