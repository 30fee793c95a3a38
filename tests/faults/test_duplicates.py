"""One key, one task: under a hundred clients at once, on two nodes, and across a kill."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.faults.rig import Answer, Node, Rig

CLIENTS: Final = 100


def at_once(node_of: list[Node], names: list[str], key: str) -> list[Answer]:
    """All clients post at the same moment, each its own name, under one key."""
    start = threading.Barrier(CLIENTS)

    def post(client: int) -> Answer:
        start.wait(10)
        return node_of[client % len(node_of)].post("act", key=key, name=names[client % len(names)])

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(post, range(CLIENTS)))


@pytest.mark.timeout(180)
def test_one_key_is_one_task_whoever_asks(rig: Rig) -> None:
    first, second = rig.two_nodes("first", "second")
    same = at_once([first, second], ["once"], "same")
    assert {answer.status for answer in same} == {200, 202}
    assert sum(answer.status == 202 for answer in same) == 1
    [task_id] = {answer.id for answer in same}
    assert first.view(task_id, wait_s=10)["state"] == "succeeded"
    assert len(rig.stage.seen("once")) == 1

    mixed = at_once([first, second], ["this", "that"], "mixed")
    assert {answer.status for answer in mixed} == {200, 202, 422}
    [winner] = {answer.id for answer in mixed if answer.status != 422}
    refused = [answer.body for answer in mixed if answer.status == 422]
    assert {(body["type"], body["existing_id"]) for body in refused} == {
        ("urn:noria:error:idempotency-key-reused", winner)
    }
    assert len(refused) == CLIENTS // 2

    rig.stage.hold("in-hand")
    before = first.accepted("act", key="across", name="in-hand")
    rig.stage.wait_id(before)
    first.kill()
    assert second.post("act", key="across", name="in-hand").id == before, "while it is lost"
    rig.stage.release("in-hand")
    rig.check()
    first.start()
    again = first.post("act", key="across", name="in-hand")
    assert (again.status, again.id, again.body["state"]) == (200, before, "succeeded")
    assert first.post("act", key="across", name="other").status == 422
    rig.check()
    assert [body.attempt for body in rig.stage.seen("in-hand")] == [1, 2]
