"""Those who post tasks, wait for them, cancel some; and whether what they were told is what the record says."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from actors.intake.requests import TaskSpec, request_digest
from runtime.core.task import DEFAULT_TENANT, Duplicate, Lane, State, Status, Stored
from runtime.core.unique import Unique
from runtime.errors import AskError, IncarnationDead, NoriaError, Overloaded, Unavailable
from tests.simulation.sim_handlers import EVERYWHERE
from tests.simulation.sim_node import Lost
from tests.simulation.sim_record import done_at_once

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tests.simulation.sim_node import Life, Shared, SimNode

_PATIENCE_S: Final = 3.0
_TENANTS: Final = ("default", "acme", "beta")
_CANCELLED: Final = 0.2
_ERRORS: Final = {"ValueError", "TimedOut", "NodeCrashed", "ParentFailed"}
_FAILURES: Final = {"doomed": 2, "parent": 1, "limited": 1, "works": 0, "naps": 0}


# All callers of a world mean the same one.
UNIQUE: Final = (
    Unique(mode="existing", key="one"),
    Unique(mode="replace", key="newest"),
    Unique(mode="debounce", key="last", for_s=4.0, max_s=10.0),
)

_DELAYS_S: Final[dict[str | None, tuple[float | None, ...]]] = {
    None: (None, None, 2.5),
    "existing": (None, None, 2.5),
    "replace": (2.5, 4.0),  # long enough to be replaced
    "debounce": (None,),
}


class Callers:
    def __init__(self, random: Random, nodes: Sequence[SimNode], shared: Shared) -> None:
        self._random = random
        self._nodes = nodes
        self._shared = shared
        self._fail = shared.history.fail
        self._poison_left = random.choice((0, 0, 1))
        self._unique = random.choice(UNIQUE)
        self._tags = sorted({tag for node in nodes for tag in node.profile.tags})
        self._requests: dict[str, TaskSpec] = {}
        self._ids: dict[str, UUID] = {}
        done_at_once(shared.record.store.set_tenant_weight("acme", 3))

    async def call(self, key: str, within_s: float) -> None:
        """Post one task at some time, and stay until it is final."""
        random = self._random
        await asyncio.sleep(random.uniform(0, within_s))
        spec = self._requests[key] = self._request(key)
        task_id = await self._insist(spec)
        self._ids[key] = task_id
        self._shared.record.promises.accepted.add(task_id)
        if random.random() < _CANCELLED:
            await asyncio.sleep(random.expovariate(1))
            with suppress(NoriaError, Lost):
                life = await self._some_life()
                self._shared.history.counts["cancels"] += 1
                await life.ask(life.service.cancel(task_id), _PATIENCE_S)
        while not await self._is_final(task_id):  # noqa: ASYNC110 - it is a question over a line
            await asyncio.sleep(0.1)

    async def _is_final(self, task_id: UUID) -> bool:
        life = await self._some_life()
        try:
            view = await life.ask(life.service.wait(task_id, _PATIENCE_S), _PATIENCE_S + 2)
        except (NoriaError, Lost):
            return False
        if view is None:
            self._fail(f"{task_id} was accepted, and its caller is told that it does not exist")
            return True
        if view.state.final:
            self._check_told(task_id, view.state)
        return view.state.final

    async def _insist(self, spec: TaskSpec) -> UUID:
        while True:
            life = await self._some_life()
            try:
                [answer] = await life.ask(life.service.submit([spec]), _PATIENCE_S)
            except (Unavailable, Overloaded, AskError, IncarnationDead, Lost):
                await asyncio.sleep(0.2)
                continue
            acceptance = answer.acceptance
            if isinstance(acceptance, Duplicate) and spec.unique is not None:
                self._shared.history.counts["unique found"] += 1
            if not isinstance(acceptance, Stored | Duplicate):
                self._fail(f"{spec.idempotency_key} was answered with {acceptance}")
            return answer.task.id if isinstance(acceptance, Stored) else acceptance.id

    async def _some_life(self) -> Life:
        node = self._random.choice(self._nodes)
        await node.up.wait()
        return node.life

    def _request(self, key: str) -> TaskSpec:
        random = self._random
        if self._poison_left:
            self._poison_left -= 1
            poison = request_digest({"handler": "poison", "payload": {}})
            return TaskSpec(handler="poison", idempotency_key=key, digest=poison, tenant=_tenant_of(key))
        handler, payload = random.choice(
            (
                ("works", {"for_s": round(random.choice((0.0, 0.3, 2.0, 6.0)), 3)}),
                ("works", {"for_s": round(random.choice((0.0, 0.3, 2.0, 6.0)), 3)}),
                ("flaky", {"failures": random.randint(0, 3)}),
                ("together", {"failures": random.randint(0, 2)}),
                ("doomed", {}),
                ("late", {"deaf": random.random() < 0.5}),
                ("naps", {"until_attempt": random.randint(1, 4)}),
                ("parent", {"name": key}),
                ("limited", {"for_s": round(random.choice((0.0, 0.3, 1.5)), 3)}),
            )
        )
        unique = random.choice((None, *[self._unique] * 4)) if handler == "works" else None
        wish = random.random() if self._tags else 1.0
        tags = tuple(self._tags)
        return TaskSpec(
            handler=handler,
            payload=payload,
            idempotency_key=key,
            tenant=_tenant_of(key) if unique is None else DEFAULT_TENANT,
            priority=random.choice((None, Lane.HIGH, Lane.LOW)),
            requires=tags if wish < 0.15 and handler in EVERYWHERE else (),
            prefers=tags if 0.15 <= wish < 0.4 else (),
            delay_s=random.choice(_DELAYS_S[None if unique is None else unique.mode]),
            unique=unique,
            digest=request_digest({"handler": handler, "payload": payload}),
        )

    # -- the end ------------------------------------------------------------------------------------

    def _check_told(self, task_id: UUID, state: State) -> None:
        outcome = self._shared.record.tables.outcomes.get(task_id)
        if outcome is None or outcome.status.state is not state:
            self._fail(f"the caller of {task_id} was told {state}, the record says {outcome}")

    def check_outcomes(self) -> None:
        """After the end of all."""
        tables = self._shared.record.tables
        for task_id, outcome in tables.outcomes.items():
            error = outcome.error.type if outcome.error else None
            if outcome.status is Status.SUCCEEDED and json.loads(outcome.result or b"") != outcome.attempt:
                self._fail(f"{task_id} has the result of another attempt: {outcome}")
            if outcome.status is Status.FAILED and error not in _ERRORS:
                self._fail(f"{task_id} failed without a reason to: {outcome}")
        for key, task_id in self._ids.items():
            self._check_outcome(key, self._requests[key], tables.outcomes[task_id])

    def _check_family(self, key: str, tenant: str, *, succeeded: bool) -> None:
        """All of what it submitted is there, or nothing; and the join ended as the parts said."""
        tables = self._shared.record.tables
        names = ("0", "1", "join")
        family = [tables.keys.get((tenant, f"{key}/{name}")) for name in names]
        found = [each for each in family if each is not None]
        if len(found) != (len(names) if succeeded else 0):
            self._fail(f"{key} succeeded: {succeeded}; there are of its children {family}")
            return
        if found:
            *parts, join = [tables.outcomes[each].status for each in found]
            if (join is Status.SUCCEEDED) is not all(part is Status.SUCCEEDED for part in parts):
                self._fail(f"the parts of {key} came to {parts}, and its join to {join.name}")

    def _check_outcome(self, key: str, spec: TaskSpec, outcome: Any) -> None:
        crashed = outcome.error is not None and outcome.error.type == "NodeCrashed"
        if spec.handler == "poison" and not (outcome.status is Status.CANCELLED or crashed):
            self._fail(f"a poison task ended without being found out: {outcome}")
        if spec.handler == "parent":
            self._check_family(key, spec.tenant, succeeded=outcome.status is Status.SUCCEEDED)
        if outcome.status is Status.CANCELLED or crashed:
            return
        failures = _FAILURES.get(spec.handler)
        if spec.handler in {"flaky", "together"}:
            failures = spec.payload["failures"]
        if spec.handler == "late" and not spec.payload["deaf"]:
            failures = 2
        if failures is not None and outcome.failures != failures:
            self._fail(f"{spec.handler} ended after {outcome.failures} failures, not {failures}: {outcome}")


def _tenant_of(key: str) -> str:
    return _TENANTS[crc32(key.encode()) % len(_TENANTS)]
