"""One turn of a key on this node: which message runs next, and what the turn comes to.

Law: messages run one after the other in the order of the record; only read-only ones that follow each other run side
by side, each on an instance of its own. After a message that did not succeed the instance is made anew from the
last good state, so nothing half done is ever seen or stored. Here is no I/O: the caller runs bodies and commits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from actors.authoring.actor import Actor
from actors.authoring.limits import RESULT_BYTES_MAX
from actors.authoring.registry import HandlerDef
from actors.authoring.state import ActorDef, StateNotStorable
from actors.executor.bodies import Move, Run, describe
from actors.executor.storing import is_large
from actors.keyed.activations import Activation, bound
from runtime.core import decisions
from runtime.core.keyed import Turn, TurnEnd
from runtime.core.task import ErrorInfo, Finish, Requeue, Settlement, Status

_READ_ONLY: Final = "ReadOnlyViolation"
_REFUSALS_MAX: Final = 1


class ActiveTurn:
    """`activation` is None for functions with an actor key: they have order, but no state."""

    def __init__(
        self,
        turn: Turn,
        activation: Activation | None,
        runs: Iterable[Run],
        handler: HandlerDef,
        now_s: float,
    ) -> None:
        self.turn = turn
        self.handler = handler  # of its first message
        self.activation = activation
        self.began_s = now_s
        self.ends: list[tuple[Run, Move]] = []
        self.bodies = 0
        self.failed = False  # something did not succeed
        self.more = False  # more messages wait, or came meanwhile
        self._left = deque(runs)
        self._running: dict[Run, Actor | None] = {}  # with the instance that is its self
        self._good = b"" if activation is None else activation.state
        self._written = False
        self._halted = False
        self._refusals = 0

    @property
    def actor(self) -> UUID:
        return self.turn.actor

    @property
    def key(self) -> str:
        return self.turn.claims[0].actor_key or ""

    @property
    def definition(self) -> ActorDef | None:
        return None if self.activation is None else self.activation.definition

    @property
    def runs(self) -> list[Run]:
        return [*self._left, *self._running, *(run for run, _ in self.ends)]

    # -- going on -----------------------------------------------------------------------------------

    def next(self) -> list[Run]:
        """What to start now; nothing when the turn is over."""
        while self._left and not self._halted:
            if self._left[0].claim.expired:
                expired = self._left.popleft()
                self.ends.append((expired, decisions.after_expiry(expired.claim)))
                continue
            return self._start()
        self.release()
        return []

    def _start(self) -> list[Run]:
        started = [self._left.popleft()]
        if self.activation is not None and started[0].handler.options.read_only:
            while self._left and self._left[0].handler.options.read_only and not self._left[0].claim.expired:
                started.append(self._left.popleft())
        for run in started:
            self._running[run] = self._bind(run)
        self.bodies += 1
        return started

    def _bind(self, run: Run) -> Actor | None:
        if self.activation is None:
            return None
        if run.handler.options.read_only:
            instance = self._fresh(self.activation.definition)
            run.handler = bound(run.handler, instance)
            return instance
        run.handler = self.activation.bound(run.handler)
        return self.activation.instance

    def _fresh(self, definition: ActorDef) -> Actor:
        return definition.load(self._good, definition.state_version)

    def halt(self) -> None:
        """Start nothing more."""
        self._halted = True

    def release(self) -> None:
        """Hand back what has not begun."""
        self._halted = True
        while self._left:
            run = self._left.popleft()
            self.ends.append((run, decisions.after_release(run.claim)))

    # -- ending -------------------------------------------------------------------------------------

    def ended(self, run: Run, move: Move) -> bool:
        """A message has ended; True when no other is under way."""
        instance = self._running.pop(run, None)
        if is_large(move):
            detail = f"{len(move.result or b'')} bytes; of a keyed actor at most {RESULT_BYTES_MAX}, kept with its state"
            move = _failed(move, ErrorInfo("ResultTooLarge", detail))
        elif isinstance(move, Finish) and move.status is Status.SUCCEEDED:
            move = self._keep_state(run, instance, move)
        self.ends.append((run, move))
        if not (isinstance(move, Finish) and move.status is Status.SUCCEEDED):
            self._undo(run)
            if isinstance(move, Requeue) and not (self.definition is not None and self.definition.passes):
                self._halted = True
        return not self._running

    def _keep_state(self, run: Run, instance: Actor | None, move: Finish) -> Finish:
        """The state that a message left behind; or its failure, where that cannot be kept."""
        definition = self.definition
        if definition is None or instance is None:
            return move
        try:
            state = definition.dump(instance)
        except StateNotStorable as refused:
            return _failed(move, describe(refused))
        if not run.handler.options.read_only:
            self._good, self._written = state, True
        elif state != self._good:
            what = f"{run.handler.name} is read_only=True and changed the state"
            return _failed(move, ErrorInfo(_READ_ONLY, what))
        return move

    def _undo(self, run: Run) -> None:
        self.failed = True
        if self.activation is not None and not run.handler.options.read_only:
            definition = self.activation.definition
            fresh = self._fresh(definition)
            self.activation = Activation(definition, fresh, self.activation.state, self.activation.version)

    def end(self, incarnation: int, now_s: float) -> TurnEnd:
        """What to commit."""
        settlements = tuple(_settlement(run, incarnation, move, now_s) for run, move in self.ends)
        definition = self.definition
        if definition is None or not self._written:
            return TurnEnd(actor=self.actor, version=self.turn.version, settlements=settlements)
        return TurnEnd(
            actor=self.actor,
            version=self.turn.version,
            settlements=settlements,
            state=self._good,
            state_version=definition.state_version,
        )

    def committed(self) -> Activation | None:
        """The instance as it is on record now."""
        if self.activation is not None and self._written:
            self.activation.state = self._good
            self.activation.version = self.turn.version + 1
        return self.activation

    @property
    def may_try_again(self) -> bool:
        """After the record has refused what this turn holds."""
        return self._refusals < _REFUSALS_MAX

    def refused(self) -> None:
        """Of a turn that the record refuses: its one message fails; of several, each has to try alone."""
        self._refusals += 1
        self.failed = True
        self._written = False
        if len(self.ends) == 1:
            run, move = self.ends[0]
            error = ErrorInfo("ResultNotStorable", "PostgreSQL refused the result or the tasks it submitted")
            self.ends = [(run, _failed(move, error))]
        else:
            self.ends = [(run, decisions.after_release(run.claim)) for run, _ in self.ends]


def _settlement(run: Run, incarnation: int, move: Move, now_s: float) -> Settlement:
    claim = run.claim
    if not run.started_s:  # it never ran: as if it had begun and ended with the commit
        return Settlement(claim.id, claim.attempt, incarnation, move, 0.0, 0.0)
    return Settlement(claim.id, claim.attempt, incarnation, move, now_s - run.started_s, now_s - run.ended_s)


def _failed(move: Move, error: ErrorInfo) -> Finish:
    return Finish(status=Status.FAILED, error=error, failures=move.failures + 1, crashes=move.crashes)
