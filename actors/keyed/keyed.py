"""Which keys have mail that belongs here, and their turns from begin to commit.

Law: everything here proposes. A key that is asked for may be somebody else's by now, a turn may come back with less
than was asked or not at all, its commit may fall: the record decides each time, and the look at all mail once a second
finds whatever was lost on the way. A key has at most one turn in hand here.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final
from uuid import UUID

from actors.activity import HotKey
from actors.authoring.registry import HandlerDef
from actors.authoring.state import ActorDef, StateNotLoadable, StateNotStorable
from actors.executor.attempts import Attempts
from actors.executor.bodies import Move, Run, Unbound, describe, move_of
from actors.executor.settling import Settled
from actors.keyed.activations import Activation, Activations
from actors.keyed.ending import Ended, Ending
from actors.keyed.messages import KeysWait, MailSeen, TurnsBegun
from actors.keyed.placing import placed_as
from actors.keyed.turn import ActiveTurn
from actors.world import World
from runtime.core import decisions
from runtime.core.hot import HotKeys
from runtime.core.keyed import NO_STATE, Ask, Mail, Pace, Turn
from runtime.core.task import Band, Requeue
from runtime.errors import Unavailable

log = logging.getLogger(__name__)

_WAITING_MAX: Final = 10_000  # keys; more are found by the next look
_KEYS_MAX: Final = 200  # in one statement
_MESSAGES_MAX: Final = 1_000
_PAGE: Final = 500  # lanes of keys
_PAGES_MAX: Final = 20  # of one look
_CAREFUL_MAX: Final = 10_000
_HOT_EVERY_S: Final = 10.0
_HOT_MOST: Final = 10
_NOBODY: Final = UUID(int=0)


class Keyed:
    """`runs` is what the node has in hand; `run` starts a body and `told` hears of ends on record; `settle` ends an
    attempt by itself.
    """

    def __init__(
        self,
        world: World,
        attempts: Attempts,
        runs: dict[UUID, Run],
        run: Callable[[Run], None],
        told: Callable[[Sequence[Settled]], None],
        settle: Callable[[Run, Move], None],
    ) -> None:
        self._world = world
        self._attempts = attempts
        self._runs = runs
        self._run = run
        self._told = told
        self._settle = settle
        self._ending = Ending(world.store, world.incarnation, world.clock, self._on_ended)
        self._activations = Activations()
        self._waiting: OrderedDict[UUID, HandlerDef] = (
            OrderedDict()
        )  # with the handler of a message that waits
        self._active: dict[UUID, ActiveTurn] = {}  # begun, running or being committed
        self._bodies = 0  # turns whose bodies have not all ended
        self._asked: dict[UUID, tuple[Ask, Activation | None]] = {}  # with what was said to be known
        self._paces: dict[str, Pace] = {}
        self._careful: set[UUID] = set()  # keys where something did not succeed: one message at a time
        self._looking = self._look_again = False
        self._after = _NOBODY  # where the next look goes on
        self._hot: HotKeys[tuple[str, str]] = HotKeys()  # by name of actor and key
        self._told_at_s = world.clock.now_s()

    def start(
        self, detach: Callable[[Coroutine[Any, Any, None]], None], tell: Callable[[Any], object]
    ) -> None:
        """`detach` runs a coroutine beside the executor; `tell` sends to it."""
        self._detach, self._tell = detach, tell

    async def close(self) -> None:
        """Release what has not run, and wait until all is committed. Bodies have ended before."""
        for turn in list(self._active.values()):
            turn.release()
        await self._ending.close()

    @property
    def idle(self) -> bool:
        """Nothing was asked for, so nothing more can come."""
        return not self._asked

    # -- which keys ---------------------------------------------------------------------------------

    def waits(self, message: KeysWait) -> None:
        """Messages to these keys wait."""
        for actor, band in message.keys:
            handler = self._serves(band)
            if handler is not None:
                self._add(actor, handler)
        self._begin()

    def look(self) -> None:
        """Look at all mail for what belongs here. One look at a time."""
        if not any(band.keyed and self._serves(band.id) is not None for band in self._world.bands):
            return
        if self._looking:
            self._look_again = True
            return
        self._looking = True
        self._detach(self._look())

    async def _look(self) -> None:
        lanes: list[Mail] = []
        after = self._after
        try:
            for _ in range(_PAGES_MAX):
                page = await self._world.store.mail(after, _PAGE)
                lanes += page
                after = page[-1].actor if len(page) == _PAGE else _NOBODY
                if after == _NOBODY:
                    break
        except Unavailable as away:
            log.debug("looking for mail: the record is away: %s", away)
        self._tell(MailSeen(tuple(lanes), after))

    def seen(self, message: MailSeen) -> None:
        """A look came back."""
        self._looking = False
        self._after = message.after
        for mail in message.lanes:
            handler = self._serves(mail.band)
            if handler is not None and not mail.busy and self._is_mine(mail, handler):
                self._add(mail.actor, handler)
        self._begin()
        if self._look_again:
            self._look_again = False
            self.look()

    def _is_mine(self, mail: Mail, handler: HandlerDef) -> bool:
        cluster = self._world.cluster
        if cluster.alone:
            return True
        band = self._world.bands[mail.band]
        name = placed_as(band.handler, mail.state_version if handler.actor is not None else 0)
        return cluster.placement.owner(mail.slot, name, band.requires) in {cluster.incarnation, None}

    def _serves(self, band_id: int) -> HandlerDef | None:
        """The handler of a band that this node may serve now; suspects have their own time."""
        band = self._world.bands.get(band_id) if band_id > 0 else None
        if band is None or self._world.capacity.paused.holds(band):
            return None
        return self._world.serves(band)

    def _add(self, actor: UUID, handler: HandlerDef) -> None:
        active = self._active.get(actor)
        if active is not None:
            active.more = True
        elif actor not in self._waiting and len(self._waiting) < _WAITING_MAX:
            self._waiting[actor] = handler

    def _must_stop(self, active: ActiveTurn | None = None) -> bool:
        """Whether nothing more may start; an isolated suspect goes on while the node is closed for it."""
        if self._world.fence.passed:
            return True
        return self._world.capacity.closed and not (active is not None and active.turn.claims[0].alone)

    # -- beginning ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin turns of keys that wait, as many as there is room for, in one statement; one at a time."""
        room = self._world.limits.concurrency - self._bodies
        if not self._waiting or self._asked or room <= 0 or self._must_stop():
            return
        asks: list[Ask] = []
        messages = 0
        while self._waiting and len(asks) < min(room, _KEYS_MAX) and messages < _MESSAGES_MAX:
            actor, handler = self._waiting.popitem(last=False)
            asks.append(self._ask(actor, handler))
            messages += asks[-1].limit
        self._detach(self._do_begin(asks, self._bands(), alone=False))

    def _ask(self, actor: UUID, handler: HandlerDef) -> Ask:
        activation = self._activations.get(actor)
        limit = 1 if actor in self._careful else self._pace(handler).limit()
        ask = Ask(actor=actor, limit=limit)
        if handler.actor is not None:
            ask = Ask(
                actor=actor,
                limit=limit,
                known=NO_STATE if activation is None else activation.version,
                loads=handler.actor.state_version,
                passes=handler.actor.passes,
            )
        self._asked[actor] = ask, activation
        return ask

    def _pace(self, handler: HandlerDef) -> Pace:
        return self._paces.setdefault(handler.actor_type or handler.name, Pace())

    def _bands(self) -> list[int]:
        return [band.id for band in self._world.bands if band.keyed and self._serves(band.id) is not None]

    def begin_alone(self, band: Band) -> None:
        """Begin one suspect of this band, with nothing beside it; TurnsBegun tells what came of it."""
        self._detach(self._do_begin_alone(band))

    async def _do_begin_alone(self, band: Band) -> None:
        try:
            mail = await self._world.store.mail(_NOBODY, _PAGE * _PAGES_MAX)
        except Unavailable as away:
            log.warning("looking for suspects: the record is away: %s", away)
            mail = []
        asks = [Ask(actor=each.actor, limit=1) for each in mail if each.band == -band.id and not each.busy][
            :1
        ]
        await self._do_begin(asks, [-band.id], alone=True)

    async def _do_begin(self, asks: Sequence[Ask], bands: Sequence[int], *, alone: bool) -> None:
        store, incarnation = self._world.store, self._world.incarnation
        try:
            turns = await store.begin_turns(asks, bands, incarnation, alone=alone)
            self._tell(TurnsBegun(tuple(turns), alone=alone))
        except Unavailable as away:
            log.warning("beginning %d turns: the record is away: %s", len(asks), away)
            self._tell(TurnsBegun((), alone=alone, failed=True))

    def begun(self, message: TurnsBegun) -> None:
        """An ask came back. Keys of which no turn came are found again by the next look."""
        asked = {} if message.alone else self._asked
        for turn in message.turns:
            ask, activation = asked.get(turn.actor, (None, None))
            active = self._take(turn, activation)
            active.more = ask is not None and len(turn.claims) == ask.limit
            self._go_on(active)
        if not message.alone:
            self._asked = {}
            if not message.failed:
                self._begin()

    def _take(self, turn: Turn, known: Activation | None) -> ActiveTurn:
        handlers = [self._handler(claim.band) for claim in turn.claims]
        runs = [
            Run(claim, handler, self._attempts.context(claim, handler, turn.fence))
            for claim, handler in zip(turn.claims, handlers, strict=True)
        ]
        now_s = self._world.clock.now_s()
        self._bodies += 1
        try:
            activation = _activation(turn, handlers[0].actor, known)
        except (StateNotLoadable, StateNotStorable) as unloadable:
            active = self._active[turn.actor] = ActiveTurn(turn, None, (), handlers[0], now_s)
            unbound = Unbound(describe(unloadable))
            active.ends = [(run, move_of(run, unbound, self._world.jitter())) for run in runs]
        else:
            active = self._active[turn.actor] = ActiveTurn(turn, activation, runs, handlers[0], now_s)
        for run in runs:
            run.turn = active
            self._runs[run.claim.id] = run
        return active

    def _handler(self, band_id: int) -> HandlerDef:
        handler = self._world.registry.get(self._world.bands[band_id].handler)
        assert handler is not None, "only bands that this node serves are asked for"
        return handler

    # -- running ------------------------------------------------------------------------------------

    def ended(self, run: Run, move: Move) -> None:
        """A body has ended."""
        active = run.turn
        assert active is not None, "told of keyed runs only"
        if active.ended(run, move):
            self._go_on(active)

    def _go_on(self, active: ActiveTurn) -> None:
        capacity = self._world.capacity
        pace = self._pace(active.handler) if active.bodies else None
        took_s = self._world.clock.now_s() - active.began_s
        if self._must_stop(active) or (pace is not None and pace.is_over(took_s)):
            active.halt()
        started = active.next()
        for run in started:
            capacity.take(run.handler.kind)
            self._run(run)
        if not started:
            if pace is not None:
                pace.took(active.bodies, took_s)
            self._bodies -= 1
            self._ending.put(active)
            self._begin()

    # -- ended --------------------------------------------------------------------------------------

    def _on_ended(self, batch: Sequence[Ended]) -> None:
        settled: list[Settled] = []
        for active, verdict in batch:
            self._active.pop(active.actor, None)
            if verdict.committed:
                self._on_committed(active)
                settled += [Settled(run, move, verdict) for run, move in active.ends]
            else:
                self._on_fallen(active)
        self._told(settled)
        self._begin()

    def _on_committed(self, active: ActiveTurn) -> None:
        actor, activation = active.actor, active.committed()
        if active.failed:
            if len(self._careful) < _CAREFUL_MAX:
                self._careful.add(actor)
        else:
            self._careful.discard(actor)
        self._hot.add((active.handler.actor_type or active.handler.name, active.key), len(active.ends))
        if activation is not None:
            self._activations.keep(actor, activation, self._world.clock.now_s())
        if active.more or any(isinstance(move, Requeue) and not move.delay_s for _, move in active.ends):
            self._add(actor, active.handler)

    def _on_fallen(self, active: ActiveTurn) -> None:
        """Somebody else has the key or its messages by now. What still runs under our name goes back."""
        log.warning("fenced: the turn of %s with %d messages", active.handler.name, len(active.ends))
        self._world.telemetry.count("fenced_commits_total", len(active.ends))
        self._activations.drop(active.actor)
        for run, _ in active.ends:
            run.turn = None
            self._settle(run, decisions.after_release(run.claim))

    def second(self) -> None:
        """Once a second."""
        self._activations.passivate(self._world.clock.now_s(), self._asked.keys() | self._active.keys())
        self._tell_of_hot_keys()
        self.look()

    def _tell_of_hot_keys(self) -> None:
        now_s, telemetry = self._world.clock.now_s(), self._world.telemetry
        if now_s - self._told_at_s < _HOT_EVERY_S:
            return
        telemetry.gauge("actor_activations", len(self._activations))
        telemetry.clear("actor_key_messages_per_second")
        hot = tuple(
            HotKey(actor, key, count / (now_s - self._told_at_s))
            for (actor, key), count in self._hot.take(_HOT_MOST)
        )
        for one in hot:
            telemetry.gauge("actor_key_messages_per_second", one.per_s, actor=one.actor, key=one.key)
        self._world.activity.hot_keys = hot
        self._told_at_s = now_s

    def halt(self) -> None:
        """Start nothing more: what has not begun is handed back as soon as what runs has ended."""
        self._waiting.clear()
        for active in self._active.values():
            active.halt()


def _activation(turn: Turn, definition: ActorDef | None, known: Activation | None) -> Activation | None:
    """Raises StateNotLoadable."""
    if definition is None:
        return None
    if known is not None and known.version == turn.version and turn.state is None:
        return known
    instance = definition.first() if turn.state is None else definition.load(turn.state, turn.state_version)
    return Activation(definition, instance, definition.dump(instance), turn.version)
