"""What a URL says about etcd: where it is, under which prefix, who we are, and whom we trust.

    http(s)://[USER:PASSWORD@]HOST[:2379][,HOST[:2379]...][/PREFIX][?ca=FILE&cert=FILE&key=FILE]

Law: no message repeats the user or the password, and neither does the value's own representation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

SHAPE: Final = "http(s)://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/PREFIX][?ca=FILE&cert=FILE&key=FILE]"
PORT: Final = 2379
PREFIX: Final = "/noria/"
_ENDPOINT: Final = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
_IDENTITY: Final = "both a user and a password are needed, USER:PASSWORD@; special characters as %XX"
_FILES: Final = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdUrl:
    endpoints: tuple[str, ...]  # host:port
    prefix: str = PREFIX  # of all keys; begins and ends with a slash
    secure: bool = False
    user: str | None = None
    password: str = field(default="", repr=False)
    ca: Path | None = None  # of those who may have signed the servers' certificates; None: the usual ones
    cert: Path | None = None  # of ours, with its key
    key: Path | None = None


def parse(url: str) -> EtcdUrl:
    """Raises ValueError, which names the part that is wrong and what is allowed."""
    scheme, found, rest = url.strip().partition("://")
    if not found or scheme not in {"http", "https"}:
        raise ValueError(f"scheme: allowed are http and https; the URL is {SHAPE}")
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    identity, known, hosts = place.rpartition("@")
    if "@" in path or "@" in query:  # then what looks like the host may be half a password: do not show it
        raise ValueError(f"user: {_IDENTITY}")
    user, password = _identity(identity) if known else (None, "")
    secure = scheme == "https"
    return EtcdUrl(
        endpoints=tuple(_endpoint(host) for host in hosts.split(",")),
        prefix=_prefix(path),
        secure=secure,
        user=user,
        password=password,
        **_files(query, secure=secure),
    )


def _identity(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise ValueError(f"user: {_IDENTITY}")
    return unquote(user), unquote(password)


def _endpoint(text: str) -> str:
    found = _ENDPOINT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"host: {text!r} is none; allowed: HOST or HOST:PORT, several with commas between them"
        )
    port = int(found["port"] or PORT)
    if not 0 < port < 1 << 16:
        raise ValueError(f"port: {port} is none; allowed: 1 to 65535")
    return f"{found['host']}:{port}"


def _prefix(path: str) -> str:
    if "#" in path:
        raise ValueError(f"prefix: {path!r} holds a #")
    inner = unquote(path).strip("/")
    return f"/{inner}/" if inner else PREFIX


def _files(query: str, *, secure: bool) -> dict[str, Path]:
    given = parse_qsl(query, keep_blank_values=True)
    for name, value in given:
        if name not in _FILES:
            raise ValueError(f"{name}: no such option; allowed: {', '.join(_FILES)}")
        if not value:
            raise ValueError(f"{name}: names no file")
        if not secure:
            raise ValueError(f"{name}: needs https")
    files = {name: Path(value) for name, value in given}
    if ("cert" in files) != ("key" in files):
        raise ValueError("cert: a certificate needs its key, and a key its certificate")
    return files
