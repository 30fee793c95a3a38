"""`noria workflow`: drawn from above to below, listed, cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors import Workflow, chain, chord, task
from node.cli.exits import Code
from tests.support.client_handlers import add, echo, fail, gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.client import SyncClient
    from tests.integration.cli.conftest import Done


def test_a_workflow_is_drawn(noria: Callable[..., Done], node_url: str, client: SyncClient) -> None:
    parts = [task(add, a=n) for n in range(20)]
    flow = chain(chord(parts, then=task(echo, value=1)), task(fail), task(add, a=1))
    handle = client.submit_workflow(flow)
    handle.wait(20)
    shown = noria("--url", node_url, "workflow", "show", handle.id)
    assert shown.code == Code.DONE
    assert shown.out.splitlines() == [
        f"workflow {handle.id}  failed, 23 of 23 ended (100 %)",
        "",
        "  ✓ add … add_20 (20)  20 succeeded",
        "  │",
        "  ✓ echo  succeeded  ← add, add_2, add_3, add_4 and 16 more",
        "  │",
        "  ✗ fail  failed (ValueError: boom)  ← echo",
        "  │",
        "  ✗ add_21  failed (ParentFailed)  ← fail",
    ]
    assert len(noria("--url", node_url, "workflow", "show", "--all", handle.id).out.splitlines()) == 28
    status = noria("--url", node_url, "status", handle["add_21"].id).out
    assert f"add_21 of {handle.id}" in status
    assert handle["fail"].id in status
    dead = noria("--url", node_url, "dead", "list", "--workflow", handle.id, "--quiet").out.split()
    assert set(dead) == {handle["fail"].id, handle["add_21"].id}
    told = noria("--url", node_url, "workflow", "show", "--json", handle.id).json
    assert (told["id"], told["state"], len(told["tasks"])) == (handle.id, "failed", 23)


def test_workflows_are_listed_and_cancelled(
    noria: Callable[..., Done], node_url: str, client: SyncClient
) -> None:
    flow = Workflow()
    flow.add(task(gate, name="cli"), name="held")
    flow.add(task(add, a=1), name="last", after=["held"])
    handle = client.submit_workflow(flow)
    listed = noria("--url", node_url, "workflow", "list", "--limit", "1").out.splitlines()
    assert listed[0].split() == ["WORKFLOW", "STATE", "ENDED", "TASKS", "CREATED"]
    assert listed[1].startswith(f"{handle.id}  running  0 of 2  1 blocked, 1 ")
    assert noria("--url", node_url, "workflow", "list", "--json").json["workflows"][0]["id"] == handle.id
    cancelled = noria("--url", node_url, "workflow", "cancel", handle.id)
    assert (cancelled.code, cancelled.out) == (Code.DONE, "")
    assert cancelled.err.startswith(f"{handle.id}  ")
    assert handle.wait(20).state == "cancelled"
    missing = noria("--url", node_url, "workflow", "show", "01890000-0000-7000-8000-000000000000")
    assert missing.code == Code.NOT_FOUND
