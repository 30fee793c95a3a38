"""Fixtures that every test may use; the real work is in tests/support."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import pytest
from blockbuster import BlockBuster

from tests.support import packages, rabbitmq_server, services
from tests.support import s3_server as s3_server_of_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What runs before a node serves anybody, or beside it, may read files where it stands.
_MAY_BLOCK: Final = ("runtime/adapters/embedded/", "runtime/adapters/postgres/migrate.py", "node/dev/")
_ROOT: Final = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a shell starts what runs in the background with SIGINT ignored, and every child would inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "allow_blocking(reason): our code may block the loop here")


@pytest.fixture(scope="session")
def blockbuster() -> BlockBuster:
    """Makes a blocking call (sleep, file, socket, lock) an error where a loop runs and a frame of ours is on
    the stack. Frames of libraries alone do not count, so drivers and loops (also uvloop) are left alone.
    """

    def at(place: str) -> ModuleType:  # stands for what lies there, so that nothing has to be imported
        module = ModuleType(place)
        module.__file__ = f"{_ROOT}/{place}"
        return module

    scanned = [at(place) for place in ("runtime/", "actors/", "node/")]
    buster = BlockBuster(scanned, excluded_modules=[at(place) for place in _MAY_BLOCK])
    for name in ("os.stat", "io.BufferedReader.read", "io.TextIOWrapper.read"):
        # asyncpg looks for a .pgpass file whenever it connects, a few microseconds
        buster.functions[name].can_block_in("asyncpg/connect_utils.py", "_read_password_file")
    for function in buster.functions.values():  # the library's models and certificates, before a node serves
        function.can_block_in("runtime/adapters/objects/s3_client.py", "open_client")
    # with its last channel gRPC ends its thread and waits for it, less than a millisecond
    buster.functions["threading.Lock.acquire"].can_block_in("runtime/adapters/etcd/endpoints.py", "close")
    return buster


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest, blockbuster: BlockBuster) -> Iterator[None]:
    """Active in every test but those marked `allow_blocking("why")`; costs half a millisecond."""
    if request.node.get_closest_marker("allow_blocking"):
        yield
        return
    blockbuster.activate()
    yield
    blockbuster.deactivate()


@pytest.fixture(scope="session")
def pg_server() -> Iterator[services.PostgresServer]:
    """The session's PostgreSQL (the embedded version, or NORIA_TEST_POSTGRES_DSN)."""
    with services.main_server() as server:
        yield server


@pytest.fixture
def pg_dsn(pg_server: services.PostgresServer) -> Iterator[str]:
    """DSN of a migrated database of this test's own."""
    with pg_server.database(migrated=True) as dsn:
        yield dsn


@pytest.fixture
def pg_dsn_empty(pg_server: services.PostgresServer) -> Iterator[str]:
    """DSN of an empty database of this test's own."""
    with pg_server.database(migrated=False) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def pg15_server() -> Iterator[services.PostgresServer]:
    """PostgreSQL 15, the oldest supported one."""
    try:
        binaries = services.postgresql_15()
    except packages.ServiceMissingError as exc:
        pytest.fail(str(exc), pytrace=False)
    with services.embedded_server(binaries) as server:
        yield server


@pytest.fixture
def pg15_dsn(pg15_server: services.PostgresServer) -> Iterator[str]:
    """DSN of a migrated database of this test's own on PostgreSQL 15."""
    with pg15_server.database(migrated=True) as dsn:
        yield dsn


@pytest.fixture
def pg15_dsn_empty(pg15_server: services.PostgresServer) -> Iterator[str]:
    """DSN of an empty database of this test's own on PostgreSQL 15."""
    with pg15_server.database(migrated=False) as dsn:
        yield dsn


@pytest.fixture(params=["pg_server", "pg15_server"], ids=["pg18", "pg15"])
def pg_each_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test twice: a migrated database on the embedded version, and one on the oldest supported."""
    server: services.PostgresServer = request.getfixturevalue(request.param)
    with server.database(migrated=True) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def grpc_engine() -> Iterator[None]:
    """Keeps gRPC's poller thread for the session. Else it is joined, which blocks, whenever the last channel happens
    to be collected: in the middle of any test."""
    import grpc.aio  # 30 MB, for those who need it

    async def call(function: Callable[[], None]) -> None:
        function()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves the thread's loop alone
        runner.run(call(grpc.aio.init_grpc_aio))
        yield
        gc.collect()
        runner.run(call(grpc.aio.shutdown_grpc_aio))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[rabbitmq_server.RabbitServer]:
    """The session's own RabbitMQ, for tests that break it and `heal` it."""
    try:
        server = rabbitmq_server.RabbitServer()
    except packages.ServiceMissingError as exc:
        pytest.fail(str(exc), pytrace=False)
    with server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3_server_of_tests.S3Server]:
    """The session's own S3 server; who breaks it starts it again."""
    try:
        with s3_server_of_tests.s3() as server:
            yield server
    except packages.ServiceMissingError as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> str:
    """RabbitMQ for tests that do not hurt it: NORIA_TEST_AMQP_URL, else the session's own."""
    return os.environ.get(rabbitmq_server.URL_VARIABLE) or str(request.getfixturevalue("rabbitmq").url)
