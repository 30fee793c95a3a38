"""What chaos does: to a node, to several, to a service, to the way between them, and to two of these at once."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.faults.rig import Node, Rig
from tests.support.processes import wait_until

LEASE_S: Final = 4.0
EXIT_DEAD: Final = 75
_EXIT_S: Final = 60.0
_MOMENTS_S: Final = (0.3, 1.0, 2.5)
_LONG: Final = frozenset({"a node wakes after three leases", "PostgreSQL stands still"})

Disaster = Callable[[], None]


class Disasters:
    """`all` by name; each returns when its fault is over. `revive` then starts those that ended because of it."""

    def __init__(self, rig: Rig, chance: random.Random) -> None:
        services = rig.services
        assert services.rabbitmq is not None, "chaos is for a whole cluster"
        assert services.etcd is not None, "chaos is for a whole cluster"
        self._rig = rig
        self._chance = chance
        self._record = rig.record
        self._rabbitmq = services.rabbitmq
        self._etcd = services.etcd
        self._joiners = 0
        self.all: dict[str, Disaster] = {
            "a node is killed": self._kill,
            "two nodes are killed": self._kill_two,
            "all nodes are killed": self._kill_all,
            "a node drains and comes back": self._drain,
            "a node joins, works and leaves": self._join,
            "a node stands still for a moment": self._pause,
            "a node wakes after three leases": self._zombie,
            "a node is cut off from RabbitMQ": self._cut_from_rabbitmq,
            "a node is cut off from PostgreSQL": self._cut_from_postgresql,
            "RabbitMQ is killed": self._rabbitmq_killed,
            "RabbitMQ stands still": self._rabbitmq_frozen,
            "RabbitMQ is out of memory": self._rabbitmq_alarm,
            "RabbitMQ closes all connections": self._rabbitmq_closes,
            "etcd is killed": self._etcd_killed,
            "etcd stands still": self._etcd_frozen,
            "PostgreSQL restarts": lambda: self._restart(signal.SIGINT),
            "PostgreSQL crashes": lambda: self._restart(signal.SIGQUIT),
            "PostgreSQL stands still": self._postgresql_frozen,
            "a node and PostgreSQL are killed": self._node_and_postgresql,
            "a node is killed while RabbitMQ is away": self._node_without_rabbitmq,
            "a node is killed while etcd is away": self._node_without_etcd,
        }

    def weight(self, name: str) -> float:
        """How often, relative to the others."""
        return 0.3 if name in _LONG else 1.0

    def revive(self) -> list[str]:
        """Start those that read themselves dead after a fault of their own; their names. Nobody else may have ended."""
        back = []
        for node in self._rig.nodes:
            if node.alive:
                continue
            faults = [one.kind for one in self._rig.faults if one.incarnation == node.incarnation]
            node.died(EXIT_DEAD)
            assert {"freeze", "cut"} & set(faults), (
                f"{node.name} ended without a fault\n{node.process.output}"
            )
            node.start()
            back.append(node.name)
        return back

    # -- nodes ---------------------------------------------------------------------------------------

    def _some(self, count: int = 1) -> list[Node]:
        return self._chance.sample(self._rig.nodes, count)

    def _last(self, *lengths_s: float) -> None:
        """How long the fault lasts."""
        threading.Event().wait(self._chance.choice(lengths_s))

    def _kill_these(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.kill()
        self._last(0, 1.0, LEASE_S + 1)  # who comes back at once finds its own work not yet given up
        self._rig.start_all()

    def _kill(self) -> None:
        self._kill_these(self._some())

    def _kill_two(self) -> None:
        self._kill_these(self._some(2))

    def _kill_all(self) -> None:
        self._kill_these(list(self._rig.nodes))

    def _drain(self) -> None:
        [node] = self._some()
        self._drain_and_wait(node)
        node.start()

    def _drain_and_wait(self, node: Node) -> None:
        node.ask_to_drain()
        code = node.process.wait_exit(_EXIT_S)
        assert code == 0, f"{node.name} drained with {code}\n{node.process.output}"

    def _join(self) -> None:
        self._joiners += 1
        joiner = Node(self._rig, f"joiner-{self._joiners}", {"LEASE_S": f"{LEASE_S:g}"})
        try:
            joiner.start()
            self._last(*_MOMENTS_S)
            if self._chance.random() < 0.5:
                joiner.kill()
            else:
                self._drain_and_wait(joiner)
        finally:
            joiner.close()

    def _pause(self) -> None:
        [node] = self._some()
        node.freeze()
        self._last(LEASE_S * 0.15, LEASE_S * 0.4, LEASE_S * 0.6)
        node.thaw()
        self._settle(node)

    def _zombie(self) -> None:
        [node] = self._some()
        node.freeze()
        self._last(LEASE_S * 3)
        node.thaw()
        node.process.wait_exit(_EXIT_S)

    def _settle(self, node: Node) -> None:
        """Until it has renewed its lease, or has read that it is dead."""
        ask = "SELECT alive_until > clock_timestamp() AND state < 8 AS lives FROM noria.lease WHERE incarnation = $1"
        wait_until(
            lambda: not node.alive or self._rig.sql(ask, node.incarnation)[0]["lives"], _EXIT_S,
            lambda: f"{node.name} neither lives nor ends\n{node.process.output}",
        )  # fmt: skip

    # -- ways ----------------------------------------------------------------------------------------

    @property
    def _wired(self) -> Node:
        return next(node for node in self._rig.nodes if hasattr(node, "to_record"))

    def _cut_from_rabbitmq(self) -> None:
        with self._befallen("cut off from RabbitMQ"):
            self._wired.to_rabbitmq.cut()
            self._last(1.0, LEASE_S, LEASE_S * 2)
            self._wired.to_rabbitmq.mend()

    def _cut_from_postgresql(self) -> None:
        node = self._wired
        cut = self._rig.befall("cut", node)
        node.to_record.cut()
        self._last(0.5, LEASE_S / 2, LEASE_S * 2)
        node.to_record.mend()
        cut.over()
        self._settle(node)

    # -- services ------------------------------------------------------------------------------------

    @contextmanager
    def _befallen(self, kind: str) -> Iterator[None]:
        befallen = self._rig.befall(kind)
        yield
        befallen.over()

    def _rabbitmq_killed(self) -> None:
        with self._befallen("RabbitMQ is killed"):
            self._rabbitmq.kill()
            self._last(*_MOMENTS_S)
            self._rabbitmq.start()

    def _rabbitmq_frozen(self) -> None:
        with self._befallen("RabbitMQ stands still"):
            self._rabbitmq.freeze()
            self._last(1.0, LEASE_S, LEASE_S * 2)
            self._rabbitmq.thaw()

    def _rabbitmq_alarm(self) -> None:
        with self._befallen("RabbitMQ is out of memory"):
            self._rabbitmq.alarm(True)
            self._last(*_MOMENTS_S)
            self._rabbitmq.alarm(False)

    def _rabbitmq_closes(self) -> None:
        with self._befallen("RabbitMQ closes all connections"):
            self._rabbitmq.close_all_connections()

    def _etcd_killed(self) -> None:
        with self._befallen("etcd is killed"), self._without_etcd():
            self._last(*_MOMENTS_S)

    def _etcd_frozen(self) -> None:
        [server] = self._etcd.members
        with self._befallen("etcd stands still"):
            server.freeze()
            self._last(1.0, LEASE_S)
            server.thaw()

    @contextmanager
    def _without_etcd(self) -> Iterator[None]:
        [server] = self._etcd.members
        server.kill()
        yield
        server.start()
        self._etcd.wait_ready()

    def _restart(self, how: signal.Signals) -> None:
        with self._befallen("PostgreSQL restarts"):
            self._record.stop(how)
            self._last(0, 0, LEASE_S / 2, LEASE_S * 2)
            self._record.start()

    def _postgresql_frozen(self) -> None:
        with self._befallen("PostgreSQL stands still"):
            self._record.freeze()
            self._last(0.5, LEASE_S, LEASE_S * 2, LEASE_S * 4)
            self._record.thaw()

    # -- two at once ---------------------------------------------------------------------------------

    def _node_and_postgresql(self) -> None:
        [node] = self._some()
        node.kill()
        self._restart(signal.SIGQUIT)
        node.start()

    def _node_without_rabbitmq(self) -> None:
        with self._befallen("RabbitMQ is killed"):
            self._rabbitmq.kill()
            self._kill()
            self._rabbitmq.start()

    def _node_without_etcd(self) -> None:
        with self._befallen("etcd is killed"), self._without_etcd():
            self._kill()
