"""Three nodes for the tests of a module, on services that these share: each test finds them running and at rest."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from tests.faults.load import Load
from tests.faults.rig import Node, Rig
from tests.faults.services import Services
from tests.faults.stage import Appearance, Stage
from tests.faults.watch import Watch
from tests.support.history import History
from tests.support.processes import wait_until

LEASE_S: Final = 4.0
PATIENT_S: Final = 30.0  # lease of the node that is stopped for less than that
QUIET_S: Final = 20.0


class Trio:
    """`a` and `b` have a lease of LEASE_S; `c` has a long one, and its ways to the services can be cut."""

    def __init__(self, services: Services) -> None:
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self.services = services
        self.sound = True  # until a test fails: then the next one gets other nodes
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="noria-stage-"))
        self.stage = self._stack.enter_context(Stage(Path(folder) / "socket"))
        self.rig = Rig(services, self.stage)
        self._stack.callback(self.rig.close)
        lease = f"{LEASE_S:g}"
        self.a = self.rig.node("a", start=False, LEASE_S=lease)
        self.b = self.rig.node("b", start=False, LEASE_S=lease)
        self.c = self.rig.node("c", start=False, wired=True, LEASE_S=f"{PATIENT_S:g}")
        try:
            self.rig.start_all()
        except BaseException:
            self.close()
            raise
        self._watch = self._stack.enter_context(Watch(self.rig))

    @property
    def nodes(self) -> list[Node]:
        return [self.a, self.b, self.c]

    def close(self) -> None:
        self._stack.close()

    def load(self, *nodes: Node, clients: int = 3) -> Load:
        """Posts through these, or all."""
        return Load(*(nodes or self.nodes), clients=clients)

    # -- waiting -------------------------------------------------------------------------------------

    def rest(self) -> Self:
        """All three run, own slots as all of them see it, and `a` may bury who dies from now on."""
        self.rig.start_all()
        self.wait_slots(self.nodes, {"a", "b", "c"})
        self.wait_unbroken(self.a)
        return self

    def wait_slots(self, seen_by: Sequence[Node], owners: set[str], timeout_s: float = QUIET_S) -> None:
        """Until these, and no others, own slots."""

        def agreed() -> bool:
            return all({n for n, slots in one.slots().items() if slots} == owners for one in seen_by)

        wait_until(agreed, timeout_s, lambda: f"owners {owners}: {[one.ring() for one in seen_by]}")

    def wait_unbroken(self, node: Node) -> None:
        """Until its lease has been renewed in time for as long as it takes to bury one of a or b."""
        ask = "SELECT unbroken_since < clock_timestamp() - interval '1 s' * $2 AS fit FROM noria.lease WHERE incarnation = $1"

        def fit() -> bool:
            return bool(self.rig.sql(ask, node.incarnation, LEASE_S)[0]["fit"])

        wait_until(fit, QUIET_S, lambda: f"{node.name} is not fit to bury anybody")

    # -- work ----------------------------------------------------------------------------------------

    def hold(self, name: str, count: int = 30) -> list[Appearance]:
        """The bodies of so many tasks that have begun, wherever they belong, and wait for `name` to be released."""
        self.stage.hold(name)
        number = next(self._numbers)
        posts = zip(range(count), itertools.cycle(self.nodes))
        ids = [node.accepted("act", key=f"{name}-{number}-{nth}", name=name) for nth, node in posts]
        return [self.stage.wait_id(task_id) for task_id in ids]

    def on(self, node: Node, bodies: list[Appearance]) -> list[Appearance]:
        found = [body for body in bodies if body.pid == node.process.pid]
        assert found, f"nothing runs on {node.name}: the ring has given it nothing"
        return found

    def taken_over_s(self, since_s: float, bodies: list[Appearance], timeout_s: float) -> float:
        """Seconds from then (time.monotonic) until the second attempts of all of these had begun."""
        late = [self.stage.wait_id(body.id, attempt=2, timeout_s=timeout_s) for body in bodies]
        return max(body.started_s for body in late) - since_s

    def state(self, incarnation: int) -> int:
        """Of its lease: 1 active, 8 left, 9 dead."""
        [row] = self.rig.sql("SELECT state FROM noria.lease WHERE incarnation = $1", incarnation)
        return int(row["state"])

    def check(self) -> History:
        """All work ends, the history is sound, and the next test may go on with these nodes."""
        history = self.rig.check()
        self.sound = True
        return history


class Trios:
    """One Trio after the other: a new one when a test has failed."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._trio: Trio | None = None

    def get(self) -> Trio:
        self._services.heal()
        if self._trio is not None and not self._trio.sound:
            self.close()
        if self._trio is None:
            self._trio = Trio(self._services)
        self._trio.sound = False
        return self._trio.rest()

    def close(self) -> None:
        if self._trio is not None:
            self._trio.close()
            self._trio = None


@contextmanager
def trios(services: Services) -> Iterator[Trios]:
    made = Trios(services)
    try:
        yield made
    finally:
        made.close()


def elapsed(since_s: float) -> float:
    return time.monotonic() - since_s


def pause(seconds: float) -> None:
    """The length of a fault, not a wait for anything."""
    threading.Event().wait(seconds)
