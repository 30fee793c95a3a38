"""The services of a cluster under test: a PostgreSQL, and a RabbitMQ and an etcd where they are wanted, all its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.record import Record
from tests.support.etcd_server import EtcdCluster, etcd
from tests.support.rabbitmq_server import RabbitServer


@dataclass(frozen=True, slots=True)
class Services:
    """`rabbitmq` None: nodes find work in PostgreSQL only. `etcd` None: views are in PostgreSQL."""

    record: Record
    rabbitmq: RabbitServer | None = None
    etcd: EtcdCluster | None = None

    def heal(self) -> None:
        """Whatever was done to them, they serve again."""
        self.record.heal()
        if self.rabbitmq is not None:
            self.rabbitmq.heal()
        if self.etcd is not None:
            for member in self.etcd.members:
                if not member.answers:
                    member.kill()
                    member.start()
            self.etcd.wait_ready()


@contextmanager
def services(*, rabbitmq: bool = True, with_etcd: bool = True) -> Iterator[Services]:
    """For this block. Raises ServiceMissingError."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="noria-test-faults-"))
        beside = stack.enter_context(ThreadPoolExecutor(1))
        rabbit = RabbitServer() if rabbitmq else None
        if rabbit is not None:
            stack.callback(rabbit.close)
        starting = None if rabbit is None else beside.submit(rabbit.start)  # it takes the longest
        record = Record(Path(folder))
        stack.callback(record.close)
        record.start()
        cluster = stack.enter_context(etcd()) if with_etcd else None
        if starting is not None:
            starting.result()
        yield Services(record, rabbit, cluster)
