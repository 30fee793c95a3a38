"""Where the node is and who asks: arguments first, then the environment, then the local default.

Read when a client is constructed, never at import. Secrets may come from a file (`NORIA_API_KEY_FILE`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runtime.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "http://127.0.0.1:8080"


def resolve_url(url: str | None, env: Mapping[str, str] | None = None) -> str:
    """The base URL without a trailing slash. Raises SettingsError if it is not http(s) with a host."""
    env = os.environ if env is None else env
    name, value = ("url", url) if url else ("NORIA_URL", env.get("NORIA_URL") or DEFAULT_URL)
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and parts.hostname is not None and parts.port != 0
    except ValueError:  # a port that is no number, an IPv6 address that is not closed
        valid = False
    if not valid:
        raise SettingsError(f"{name}={value!r}: must be http://HOST[:PORT] or https://HOST[:PORT]")
    return value.rstrip("/")


def resolve_api_key(api_key: str | None, env: Mapping[str, str] | None = None) -> str | None:
    """Raises SettingsError if the key's file cannot be read or the key does not fit into a header."""
    env = os.environ if env is None else env
    key = api_key or env.get("NORIA_API_KEY") or _from_file(env.get("NORIA_API_KEY_FILE"))
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise SettingsError("NORIA_API_KEY: must be printable ASCII without spaces")
    return key or None


def _from_file(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"NORIA_API_KEY_FILE={path!r}: cannot be read ({exc})") from exc
