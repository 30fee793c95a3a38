"""What must be true of what the callers were told and of what the record says, when all is over.

Law: pure. The rules of a history (tests/support/history.py) hold for every real system; those that are added here
are about this load: orders and receipts, answers, and how many requests may go wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from tests.support.history import SUCCEEDED, History, Submission, violations

if TYPE_CHECKING:
    from loadtests.driver import Played
    from loadtests.journal import Entry
    from loadtests.record import Record

ANSWERS: Final = frozenset(
    {200, 202, 429, 503, None}
)  # None: the connection broke, or nobody answered in time
REFUSED_MAX: Final = 0.05  # of the requests of a scenario that were not accepted
_SHOWN_MAX: Final = 5


def findings(
    played: Sequence[Played], record: Record, killed: Sequence[str], ended: Sequence[str]
) -> list[str]:
    """What is wrong, in words; empty where nothing was lost or doubled and all was answered as it must be.

    `killed` names the nodes that were killed, `ended` says which ended without that.
    """
    found = list(ended)
    found += violations(history(played, record, killed))
    found += _some(_unsuccessful(record))
    found += _some(_receipts(record))
    for one in played:
        found += _answers(one)
    return found


def history(played: Sequence[Played], record: Record, killed: Sequence[str]) -> History:
    """As the checker reads it. Receipts were asked for by their orders."""
    submissions = [one for entry in _entries(played) for one in _submissions(entry)]
    submissions += [
        Submission(key=None, request="load.receipt", status=202, id=task.id)
        for task in record.tasks.values()
        if task.order_id is not None
    ]
    return History(
        submissions=submissions,
        tasks=record.stored,
        waiting=record.waiting,
        running=record.running,
        outcomes=record.outcomes,
        attempts=record.attempts,
        members=record.members,
        faulted=frozenset(one.incarnation for one in record.members if one.node in killed),
        kills=len(killed),
    )


def _entries(played: Sequence[Played]) -> Iterator[Entry]:
    for one in played:
        yield from one.entries


def _submissions(entry: Entry) -> Iterator[Submission]:
    for number, key in enumerate(entry.keys):
        told = entry.accepted and entry.ids is not None and entry.new is not None and number < len(entry.ids)
        yield Submission(
            key=key,
            request=entry.handler,
            status=entry.status,
            id=entry.ids[number] if told and entry.ids else None,
            duplicate=bool(told and entry.new and not entry.new[number]),
            retry_after=entry.retry_after,
        )


def _unsuccessful(record: Record) -> Iterator[str]:
    for one in record.outcomes:
        if one.status != SUCCEEDED:
            yield f"every task succeeds: {one.id} ({record.tasks[one.id].handler}) did not"


def _receipts(record: Record) -> Iterator[str]:
    """The ledger: what an order did was committed with its outcome, so once."""
    receipts = Counter(task.order_id for task in record.tasks.values() if task.order_id is not None)
    done = {one.id for one in record.outcomes if one.status == SUCCEEDED}
    for task in record.tasks.values():
        if task.handler == "load.order" and (made := receipts.pop(task.id, 0)) != (task.id in done):
            yield f"an order that is done has one receipt, another has none: {task.id} has {made}"
    for order_id in receipts:
        yield f"an order that is done has one receipt, another has none: {order_id} is no order on record"


def _answers(played: Played) -> list[str]:
    title, entries = played.scenario.title, [entry for entry in played.entries if not entry.cut]
    found = []
    if not any(entry.accepted for entry in entries):
        found.append(f"{title}: nothing was accepted")
    if len(played.marks) < len(played.scenario.faults):
        found.append(f"{title}: only {len(played.marks)} of {len(played.scenario.faults)} faults came about")
    if played.drained_s is None:
        found.append(f"{title}: work was left when its time was over")
    statuses = Counter(entry.status for entry in entries)
    wrong = sorted(statuses.keys() - ANSWERS, key=str)
    found += [f"{title}: {statuses[status]} requests were answered {status}" for status in wrong]
    if statuses[None] and not played.scenario.faults:
        found.append(f"{title}: {statuses[None]} requests were not answered, though no node was killed")
    refused = sum(not entry.accepted for entry in entries)
    if refused > REFUSED_MAX * len(entries):
        found.append(f"{title}: {refused} of {len(entries)} requests were not accepted (5 % may be)")
    return found


def _some(examples: Iterator[str]) -> list[str]:
    found = list(examples)
    more = [f"and {len(found) - _SHOWN_MAX} more"] if len(found) > _SHOWN_MAX else []
    return found[:_SHOWN_MAX] + more
