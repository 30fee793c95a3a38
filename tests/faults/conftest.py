"""One durable PostgreSQL for the folder; a stage, a database and nodes for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.record import Record
from tests.faults.rig import Rig
from tests.faults.services import Services
from tests.faults.stage import Stage


@pytest.fixture(scope="session")
def record_server() -> Iterator[Record]:
    with TemporaryDirectory(prefix="noria-test-faults-") as folder:
        record = Record(Path(folder))
        try:
            record.start()
            yield record
        finally:
            record.close()


@pytest.fixture
def record(record_server: Record) -> Iterator[Record]:
    """The server, running again and answering when the test is over."""
    yield record_server
    record_server.heal()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with TemporaryDirectory(prefix="noria-stage-") as folder, Stage(Path(folder) / "socket") as stage:
        yield stage


@pytest.fixture
def rig(request: pytest.FixtureRequest, record: Record, stage: Stage) -> Iterator[Rig]:
    """On the record alone, or as the test asks by an indirect parameter, on "RabbitMQ" too."""
    with_rabbitmq = getattr(request, "param", "") == "RabbitMQ"
    rig = Rig(Services(record, request.getfixturevalue("rabbitmq") if with_rabbitmq else None), stage)
    try:
        yield rig
    finally:
        rig.close()
