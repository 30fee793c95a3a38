"""Settings of a node: one declarative table, read once, validated whole.

Every setting is an environment variable `NORIA_<NAME>`, a flag `--<name>`, and a field of `Settings`; secrets may
also come from a file named by `NORIA_<NAME>_FILE`. Nothing else reads the environment, and nothing reads it at import.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtime.errors import SettingsError

Parse = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """`parse` turns text into the value and raises ValueError saying what is allowed. `default` is a value."""

    name: str
    parse: Parse
    default: Any
    help: str
    secret: bool = False

    @property
    def variable(self) -> str:
        return f"NORIA_{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.name.lower().replace("_", "-")

    @property
    def field(self) -> str:
        return self.name.lower()


# -- parsers ----------------------------------------------------------------------------------------


def _text(value: str) -> str:
    return value


def _names(value: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[,\s]+", value) if part)


def _whole(least: int, most: int) -> Parse:
    def parse(value: str) -> int:
        number = int(value) if re.fullmatch(r"[+-]?\d+", value) else None
        if number is None or not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return number

    return parse


_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(least: float, most: float) -> Parse:
    def parse(value: str) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", value)
        seconds = float(match[1]) * _UNITS[match[2] or ""] if match else -1.0
        if not least <= seconds <= most:
            raise ValueError(f"a duration from {least:g} to {most:g} seconds, such as 30, 500ms, 5m or 7d")
        return seconds

    return parse


def _one_of(*allowed: str) -> Parse:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return value.lower()

    return parse


def _node_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError("1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    return value


def _url(*schemes: str) -> Parse:
    def parse(value: str) -> str:
        if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return value

    return parse


def _etcd_url(value: str) -> str:
    from runtime.adapters.etcd import parse  # noqa: PLC0415 - not needed for --help

    try:
        parse(value)
    except ValueError as wrong:  # it never repeats a user or a password
        raise ValueError(f"a URL of etcd: {wrong}") from None
    return value


def _results_url(value: str) -> str:
    from runtime.adapters.objects import parse  # noqa: PLC0415 - not needed for --help

    try:
        parse(value)
    except ValueError as wrong:
        raise ValueError(f"a place for results: {wrong}") from None
    return value


def _number(least: float, most: float) -> Parse:
    def parse(value: str) -> float:
        number = float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else -1.0
        if not least <= number <= most:
            raise ValueError(f"a number from {least:g} to {most:g}")
        return number

    return parse


# -- the table --------------------------------------------------------------------------------------

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "POSTGRES_DSN",
        _url("postgresql", "postgres"),
        None,
        "PostgreSQL 15 or newer, direct or through session pooling",
        secret=True,
    ),
    Setting(
        "AMQP_URL",
        _url("amqp", "amqps"),
        None,
        "RabbitMQ, amqp://user:password@host:5672/vhost; default: nodes find work in PostgreSQL",
        secret=True,
    ),
    Setting(
        "ETCD_URL",
        _etcd_url,
        None,
        "etcd for the list of members, http(s)://[user:password@]host:2379[,host:2379…][?ca=…&cert=…&key=…]; "
        "default: it is in PostgreSQL",
        secret=True,
    ),
    Setting(
        "EVENTS",
        _one_of("final", "all", "off"),
        "final",
        "which changes of tasks are published to RabbitMQ's exchange noria.events",
    ),
    Setting(
        "RESULTS_URL",
        _results_url,
        None,
        "where results above 256 KiB lie: s3://bucket/prefix?endpoint=…&region=…&sse=…, or file:///folder that all "
        "nodes see; default: they fail (noria dev: a folder of DATA_DIR)",
        secret=True,  # it holds none, but where somebody put keys into it they are not shown
    ),
    Setting(
        "RESULT_MAX_BYTES",
        _whole(256 * 1024, 1 << 30),
        64 << 20,
        "size that a result may have, with RESULTS_URL",
    ),
    Setting(
        "S3_ACCESS_KEY_ID",
        _text,
        None,
        "who this node is to the S3 server; default: as Amazon's tools find it",
    ),
    Setting("S3_SECRET_ACCESS_KEY", _text, None, "the secret of S3_ACCESS_KEY_ID", secret=True),
    Setting("HANDLERS", _names, (), "modules, files or packages with handlers, separated by commas"),
    Setting("NODE_NAME", _node_name, None, "stable name of this node (default: the host's name)"),
    Setting("HTTP_HOST", _text, "127.0.0.1", "address to listen on"),
    Setting("HTTP_PORT", _whole(0, 65535), 8080, "port to listen on; 0 lets the system choose"),
    Setting(
        "AUTH", _one_of("on", "off"), "on", "off: serve addresses other than loopback without authentication"
    ),
    Setting("TAGS", _names, (), "what this node offers to tasks that require it, such as gpu,eu"),
    Setting("WEIGHT", _number(0, 100), 1.0, "share of the ring, relative to the other nodes; 0: none"),
    Setting("CONCURRENCY", _whole(1, 100_000), 100, "async bodies that run at the same time"),
    Setting("THREADS", _whole(1, 1_000), 8, "plain `def` bodies that run at the same time"),
    Setting(
        "CPU_PROCESSES", _whole(0, 1_000), max(1, (os.cpu_count() or 1)), "`cpu=True` bodies at the same time"
    ),
    Setting(
        "TRANSACTIONS",
        _whole(1, 1_000),
        4,
        "handlers' own transactions (ctx.transaction()) at the same time; connections are made when needed",
    ),
    Setting("LEASE_S", _seconds(1, 300), 6.0, "how long the record believes a silent node alive"),
    Setting("HEARTBEAT_S", _seconds(0.1, 60), 1.0, "how often nodes tell each other that they are there"),
    Setting("DRAIN_S", _seconds(0, 3600), 30.0, "how long running work may go on after SIGTERM"),
    Setting(
        "MAX_BACKLOG",
        _whole(1, 10**9),
        None,
        "refuse new tasks (429) while this many wait; default: no limit",
    ),
    Setting("RETENTION_S", _seconds(1, 10 * 365 * 86400), 7 * 86400.0, "how long finished tasks are kept"),
    Setting("KEYS_S", _seconds(0, 10 * 365 * 86400), 86400.0, "idempotency keys are kept at least this long"),
    Setting("DATA_DIR", _text, ".noria", "folder of the embedded PostgreSQL (noria dev)"),
    Setting("LOG_LEVEL", _one_of("debug", "info", "warning", "error"), "info", "what is logged"),
    Setting("LOG_FORMAT", _one_of("text", "json"), "text", "how it is logged"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One field per entry of SETTINGS, in lower case; durations in seconds."""

    postgres_dsn: str
    amqp_url: str | None = None
    etcd_url: str | None = None
    results_url: str | None = None
    result_max_bytes: int = 64 << 20
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = None
    events: str = "final"
    handlers: tuple[str, ...] = ()
    node_name: str = "node"
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    auth: str = "on"
    tags: tuple[str, ...] = ()
    weight: float = 1.0
    concurrency: int = 100
    threads: int = 8
    cpu_processes: int = 1
    transactions: int = 4
    lease_s: float = 6.0
    heartbeat_s: float = 1.0
    drain_s: float = 30.0
    max_backlog: int | None = None
    retention_s: float = 7 * 86400.0
    keys_s: float = 86400.0
    data_dir: str = ".noria"
    log_level: str = "info"
    log_format: str = "text"

    def __repr__(self) -> str:
        return f"Settings(node_name={self.node_name!r}, http={self.http_host}:{self.http_port})"  # no secrets


def read(environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Settings:
    """Flags win over the environment. `flags` maps field names to texts; None means not given.

    Raises SettingsError that lists everything that is wrong.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text, origin = _text_of(setting, environment, flags or {}, problems)
        if text is None:
            values[setting.field] = setting.default
            continue
        try:
            values[setting.field] = setting.parse(text)
        except ValueError as wrong:
            shown = "(its value is not shown)" if setting.secret else repr(text)
            problems.append(f"{origin}: {shown} is not {wrong}")
    problems += _unknown(environment)
    if values.get("postgres_dsn") is None and not any("POSTGRES_DSN" in problem for problem in problems):
        problems.append(
            "NORIA_POSTGRES_DSN: not set; give the URL of a PostgreSQL, or use `noria dev`, which has its own"
        )
    problems += _relations(values)
    if problems:
        raise SettingsError("settings:\n" + "\n".join(f"  {problem}" for problem in problems))
    values["node_name"] = values["node_name"] or _host_name()
    return Settings(**values)


def _text_of(
    setting: Setting, environment: Mapping[str, str], flags: Mapping[str, str | None], problems: list[str]
) -> tuple[str | None, str]:
    flag = flags.get(setting.field)
    if flag is not None:
        return flag, setting.flag
    if environment.get(setting.variable):
        return environment[setting.variable], setting.variable
    file = environment.get(f"{setting.variable}_FILE") if setting.secret else None
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").strip(), f"{setting.variable}_FILE"
        except OSError as unreadable:
            problems.append(f"{setting.variable}_FILE: {file!r} cannot be read ({unreadable.strerror})")
    return None, setting.variable


_FOR_CLIENTS: Final = {"NORIA_URL", "NORIA_API_KEY", "NORIA_API_KEY_FILE", "NORIA_DEBUG"}


def _unknown(environment: Mapping[str, str]) -> list[str]:
    known = (
        {s.variable for s in SETTINGS} | {f"{s.variable}_FILE" for s in SETTINGS if s.secret} | _FOR_CLIENTS
    )
    return [
        f"{name}: no such setting" for name in sorted(environment)
        if name.startswith("NORIA_") and not name.startswith("NORIA_TEST_") and name not in known
    ]  # fmt: skip


def _relations(values: Mapping[str, Any]) -> list[str]:
    problems = []
    host = values.get("http_host", "")
    if values.get("auth") == "on" and host not in {"127.0.0.1", "::1", "localhost"}:
        problems.append(
            f"NORIA_HTTP_HOST: {host!r} is not loopback, and this version has no authentication yet; "
            "set NORIA_AUTH=off if that is meant"
        )
    if (values.get("s3_access_key_id") is None) != (values.get("s3_secret_access_key") is None):
        problems.append("NORIA_S3_ACCESS_KEY_ID, NORIA_S3_SECRET_ACCESS_KEY: set both or none")
    return problems


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:63]
    return name if re.match(r"[A-Za-z0-9]", name) else "node"
