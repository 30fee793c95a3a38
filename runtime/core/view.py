"""Views: the numbered, agreed list of a cluster's members.

Law: a view is a value. Its number only grows, by compare-and-set (port Coordinator), so views are totally ordered
and one number means one list everywhere. A view is a proposal about speed: who gets which offers. Who may commit is
decided by leases and fences in the record alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Standing(StrEnum):
    """How the cluster sees a member. Only active ones own slots."""

    ACTIVE = "active"
    UNREACHABLE = "unreachable"  # not heard over the broker; its lease is alive and its work still commits
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One incarnation. Everything but `standing` is fixed for its life."""

    node: str
    incarnation: int
    standing: Standing = Standing.ACTIVE
    weight: float = 1.0  # share of the slots, relative to the others
    tags: tuple[str, ...] = ()  # sorted
    digest: str = ""  # of the names of its handlers, which stand in its lease


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    number: int
    members: tuple[Member, ...] = ()  # by incarnation, one per node name
    by: int = 0  # the incarnation that proposed it
    reason: str = ""  # what changed, for people: "n2 joined"

    def find(self, incarnation: int) -> Member | None:
        return next((member for member in self.members if member.incarnation == incarnation), None)

    @property
    def active(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.standing is Standing.ACTIVE)


NO_VIEW: Final = View(number=0)
VIEWS_KEPT: Final = 10_000  # that a log holds at least; older ones may be gone


def view_to_json(view: View) -> dict[str, Any]:
    """As it is stored; `view_from_json` is its inverse. Later releases may add fields, which are skipped."""
    return {
        "number": view.number,
        "by": view.by,
        "reason": view.reason,
        "members": [
            {
                "node": member.node,
                "incarnation": member.incarnation,
                "standing": member.standing.value,
                "weight": member.weight,
                "tags": list(member.tags),
                "digest": member.digest,
            }
            for member in view.members
        ],
    }


def view_from_json(value: Mapping[str, Any]) -> View:
    """Raises ValueError, saying which part is not as `view_to_json` writes it."""
    try:
        members = tuple(
            Member(
                node=str(member["node"]),
                incarnation=int(member["incarnation"]),
                standing=Standing(member["standing"]),
                weight=float(member["weight"]),
                tags=tuple(member["tags"]),
                digest=str(member["digest"]),
            )
            for member in value["members"]
        )
        return View(
            number=int(value["number"]), members=members, by=int(value["by"]), reason=str(value["reason"])
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise ValueError(f"not a view: {type(wrong).__name__}: {wrong}") from wrong
