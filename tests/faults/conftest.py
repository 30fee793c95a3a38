"""One durable PostgreSQL for the folder; a stage, a database and nodes for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.record import Record
from tests.faults.rig import Rig
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
def rig(record: Record, stage: Stage) -> Iterator[Rig]:
    rig = Rig(record, stage)
    try:
        yield rig
    finally:
        rig.close()
