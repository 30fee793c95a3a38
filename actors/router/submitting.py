"""How a door of the node (HTTP, Harness) hands tasks to the router.

Law: capacity that was reserved for a birth is given back exactly once, whoever gives up: the router once it has taken
the tasks, this module before. A slot that leaked would be lost until the node restarts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from actors.authoring.registry import HandlerDef, Kind
from actors.intake.intake import Prepared
from actors.intake.requests import TaskSpec
from actors.router.messages import Message, Submit
from actors.world import World
from runtime.core.task import Acceptance
from runtime.errors import AskError, MailboxFull, Overloaded, Unavailable
from runtime.kernel.actor import Ref


async def submit(
    world: World, router: Ref[Message], specs: Sequence[TaskSpec], timeout_s: float
) -> tuple[list[Prepared], list[Acceptance]]:
    """Validate and store these, all or none; the acceptances are in order.

    Raises InvalidInput, Overloaded (nothing was done) or Unavailable (it may have been).
    """

    served: dict[int, bool] = {}
    cluster, broker = world.cluster, world.broker
    # an owner that cannot be told would find it a second later: better started here at once
    anywhere = cluster.alone or broker is None or not broker.reachable

    def birth(band: int, handler: HandlerDef, slot: int, prefers: tuple[str, ...]) -> int | None:
        if band not in served:
            known = world.bands[band]
            held = known.keyed or world.capacity.paused.holds(known)
            served[band] = not held and world.serves(known) is not None
        if not served[band] or not (anywhere or cluster.is_mine(world.bands[band], slot, prefers)):
            return None
        return world.incarnation if world.capacity.reserve(band, handler) else None

    if anywhere:
        for kind, count in _at_once(world, specs).items():
            await world.capacity.door.wait(kind, count)
    prepared = await world.intake.prepare(specs, birth, posted=True)
    message = Submit(tuple(prepared))
    try:
        return prepared, await router.ask(message, timeout_s)
    except MailboxFull as full:
        raise Overloaded(str(full)) from full
    except AskError as unanswered:
        raise Unavailable(f"whether the tasks were stored is not known: {unanswered}") from unanswered
    finally:
        if not message.taken:  # it was refused, or nobody waits any more and it will be dropped unread
            give_back(world, prepared)


def _at_once(world: World, specs: Sequence[TaskSpec]) -> Counter[Kind]:
    """How many bodies of each kind would start here now if there were room."""
    immediate = (s.handler for s in specs if not s.delay_s and s.run_at is None and s.actor_key is None)
    handlers = Counter(immediate)
    kinds: Counter[Kind] = Counter()
    for name, count in handlers.items():
        handler = world.registry.get(name)
        if handler is not None and name not in world.capacity.limits:
            kinds[handler.kind] += count
    return kinds


def give_back(world: World, tasks: Sequence[Prepared]) -> None:
    """Free what was reserved for those of them that were to be born running."""
    for prepared in tasks:
        if prepared.task.born_on is not None:
            handler = world.registry.get(world.bands[prepared.task.band].handler)
            if handler is not None:
                world.capacity.give_back(handler.kind, share=handler.share)
