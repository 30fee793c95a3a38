"""Why a task that is due does not run yet, judged for the whole cluster."""

from __future__ import annotations

from actors.world import World
from runtime.core.task import TaskView


def waits_for(world: World, view: TaskView) -> tuple[str, str]:
    """(reason, detail) of a `ready` task; the reasons are words of `waiting.reason`."""
    if view.handler in world.capacity.paused.handlers:
        return "paused", f"the handler {view.handler} is paused"
    if view.tenant in world.capacity.paused.tenants:
        return "paused", f"the tenant {view.tenant} is paused"
    if not _can_run(world, view.handler, view.requires):
        if not _can_run(world, view.handler, ()):
            return "no_handler", f"no active node has the handler {view.handler} loaded"
        together = " together" if len(view.requires) > 1 else ""
        bears = f"bears {', '.join(view.requires)}{together}"
        return "no_tags", f"no active node that has the handler {view.handler} {bears}"
    if (limit := world.capacity.limits.get(view.handler)) is not None and not view.unbound:
        reason = "concurrency" if limit.rate is None else "rate_limit"
        return reason, f"waits for its turn under the limit of {view.handler}: {limit}"
    if view.unbound:
        detail = f"the arguments do not bind to a version of {view.handler} that tried; waits for a node with another"
        return "no_handler", detail
    if view.suspect:
        return "no_capacity", "its process died more than once, so it waits for a node to run it alone"
    if view.actor_key is not None:
        return "actor_busy", "messages to one key run one at a time; waits for its turn"
    return "no_capacity", "waits for its turn"


def _can_run(world: World, handler: str, requires: tuple[str, ...]) -> bool:
    """Whether any active member could; a node that is in no view (yet) counts too, for it pulls."""
    cluster = world.cluster
    if cluster.placement.table(handler, requires) or cluster.placement.eligible(handler, requires):
        return True
    in_view = cluster.view.find(world.incarnation) is not None
    return not in_view and handler in world.registry and world.tags.issuperset(requires)
