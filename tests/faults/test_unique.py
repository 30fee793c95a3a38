"""Unique tasks while nodes are killed: there is one at a time, and nothing that a dead node held stands in the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Final

import pytest

from tests.faults.rig import Node, Rig
from tests.support.processes import wait_until

EXISTING: Final = {"mode": "existing", "key": "one"}
REPLACE: Final = {"mode": "replace", "key": "newest"}


def keep_posting(nodes: tuple[Node, Node], over: Event, handler: str, unique: dict[str, Any]) -> set[str]:
    """To both nodes in turn, until it is over; the ids that were answered."""
    ids: set[str] = set()
    turn = 0
    while not over.is_set():
        turn += 1
        answer = nodes[turn % 2].post(handler, _unique=unique, timeout_s=3)
        if answer.status in {200, 202}:
            ids.add(answer.id)
        else:
            assert answer.status in {None, 503}, answer
            time.sleep(0.01)  # a dead node refuses thousands a second
    return ids


def ends(rig: Rig, handler: str, status: int) -> int:
    query = (
        "SELECT count(*) AS count FROM noria.outcome o JOIN noria.task t USING (id) JOIN noria.band b ON b.id = t.band"
        " WHERE b.handler = $1 AND o.status = $2"
    )
    return int(rig.sql(query, handler, status)[0]["count"])


@pytest.mark.timeout(120)
def test_nodes_are_killed_while_all_post_the_same(rig: Rig) -> None:
    one, other = rig.two_nodes("a", "b")
    over = Event()
    with ThreadPoolExecutor(6) as pool:
        posting = [pool.submit(keep_posting, (one, other), over, "act", EXISTING) for _ in range(3)]
        posting += [pool.submit(keep_posting, (other, one), over, "fails", REPLACE) for _ in range(3)]
        for victim in (one, other):
            _more(lambda: ends(rig, "act", 0), 5)
            victim.kill()
            _more(lambda: ends(rig, "act", 0), 5)
            victim.start()
        over.set()
        answered = set().union(*(each.result(20) for each in posting))
    rig.wait_final()
    made = rig.sql("SELECT id::text FROM noria.task")
    assert answered <= {row["id"] for row in made}
    overlaps = rig.sql(
        "SELECT count(*) AS count FROM (SELECT t.created_at, lag(o.finished_at) OVER (ORDER BY t.seq) AS before"
        " FROM noria.task t JOIN noria.outcome o USING (id) JOIN noria.band b ON b.id = t.band"
        " WHERE b.handler = 'act') x WHERE created_at < before"
    )
    assert overlaps[0]["count"] == 0
    replaced = rig.sql("SELECT attempt FROM noria.outcome WHERE error ->> 'type' = 'Replaced'")
    assert replaced, "nothing was replaced"
    assert ends(rig, "fails", 2) == len(replaced)
    for handler, unique in (("act", EXISTING), ("fails", REPLACE)):
        assert one.post(handler, _unique=unique).status == 202, "something was left behind"
    rig.wait_final()
    rig.check()


def _more(count: Callable[[], int], more: int) -> None:
    enough = count() + more
    wait_until(lambda: count() >= enough, 40, lambda: f"{count()} of {enough}")
