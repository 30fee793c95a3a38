"""Membership decisions: what the next view is, and who is silent.

Law: a view follows from two things that every member can read, the leases in the record and who is heard over the
broker. So any member may propose, all propose the same, and the compare-and-set on the number picks one.

- Only the record's lease says dead. Then, and only then, work is taken over (by fences, not by this).
- Silence over the broker says unreachable: no slots, but its work still commits. A member that is heard again says so
  itself: it hears its own heartbeats and reads that it is taken for unreachable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

from runtime.core.ring import WEIGHT_MAX
from runtime.core.task import NodeView
from runtime.core.view import Member, Standing, View

_LIVING: Final = {"active": Standing.ACTIVE, "draining": Standing.DRAINING}


@dataclass(frozen=True, slots=True)
class Heard:
    """What this member knows of others over the broker: who has fallen silent, and whether it hears itself."""

    silent: frozenset[int] = frozenset()
    itself: bool = True


def next_view(view: View, leases: Collection[NodeView], heard: Heard, me: int) -> View | None:
    """The view that should follow, or None when the present one is right."""
    members = members_of(leases)
    standing = {member.incarnation: member.standing for member in view.members}
    wanted = tuple(_judged(member, standing.get(member.incarnation), heard, me) for member in members)
    if wanted == view.members:
        return None
    return View(number=view.number + 1, members=wanted, by=me, reason=difference(view.members, wanted))


def members_of(leases: Iterable[NodeView]) -> tuple[Member, ...]:
    """Living incarnations that have joined; of several with one name the newest, for a new start takes over."""
    newest: dict[str, NodeView] = {}
    for lease in sorted(leases, key=lambda lease: lease.incarnation):
        if lease.state in _LIVING:
            newest[lease.node] = lease
    return tuple(_member(lease) for lease in sorted(newest.values(), key=lambda lease: lease.incarnation))


def rank(view: View, me: int) -> int:
    """Whose turn it is to propose: 0 at once, 1 if nobody has after one round, and so on."""
    members = [member.incarnation for member in view.members if member.standing is not Standing.UNREACHABLE]
    return members.index(me) if me in members else 0


def is_own_affair(view: View, wanted: View, me: int) -> bool:
    """Whether this member's own place changes: it need not wait for its turn to say so."""
    return view.find(me) != wanted.find(me)


def difference(before: Iterable[Member], after: Iterable[Member]) -> str:
    """What changed, for people: "n2 joined, n1 is unreachable"."""
    old, new = ({member.incarnation: member for member in members} for members in (before, after))
    said = [f"{member.node} joined" for number, member in new.items() if number not in old]
    said += [f"{member.node} is gone" for number, member in old.items() if number not in new]
    said += [
        f"{member.node} is {member.standing.value}"
        for number, member in new.items()
        if number in old and old[number].standing is not member.standing
    ]
    return ", ".join(said) or "facts of a member changed"


def digest_of(handlers: Iterable[str]) -> str:
    """16 hex digits of a set of names."""
    return blake2b("\0".join(sorted(handlers)).encode(), digest_size=8).hexdigest()


def _judged(member: Member, before: Standing | None, heard: Heard, me: int) -> Member:
    """A member that drains is not judged. A new one is believed."""
    if member.standing is not Standing.ACTIVE or before is None:
        return member
    if member.incarnation == me:
        unreachable = before is Standing.UNREACHABLE and not heard.itself
    else:
        unreachable = before is Standing.UNREACHABLE or member.incarnation in heard.silent
    return replace(member, standing=Standing.UNREACHABLE) if unreachable else member


def _member(lease: NodeView) -> Member:
    about = lease.about
    return Member(
        node=lease.node,
        incarnation=lease.incarnation,
        standing=_LIVING[lease.state],
        weight=min(WEIGHT_MAX, max(0.0, float(about.get("weight", 1.0)))),
        tags=tuple(sorted(about.get("tags", ()))),
        digest=digest_of(about.get("handlers", ())),
    )
