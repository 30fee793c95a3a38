"""`noria limits` and `noria limit …` against a node; what they do is what the client and HTTP do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from node.client import InvalidTask, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.client import SyncClient
    from tests.integration.cli.conftest import Done


def test_from_set_to_rm(noria: Callable[..., Done], client: SyncClient) -> None:
    assert "no handler has a limit" in noria("limits").err
    done = noria("limit", "set", "add", "--rate", "100/s", "--burst", "20", "--running", "5")
    assert (done.code, done.err.strip()) == (0, "add: 100/s in bursts of 20 and 5 at once")
    [found] = client.limits()
    assert found == {
        "handler": "add", "rate_limit": "100/s", "burst": 20, "max_running": 5, "limit_per": "handler",
        "declared": None, "set_by": found["set_by"],
    }  # fmt: skip
    assert noria("limits", "--json").json == {"limits": [found]}
    [heading, row] = noria("limits").out.splitlines()
    assert heading.split() == ["HANDLER", "RATE", "BURST", "RUNNING", "PER", "FROM"]
    assert row.split()[:5] == ["add", "100/s", "20", "5", "handler"]
    changed = noria("limit", "set", "add", "--running", "7", "--json").json
    assert (changed["rate_limit"], changed["max_running"]) == (None, 7)
    assert client.submit("add", {"a": 1, "b": 2}).result(10) == 3
    assert noria("limit", "rm", "add").err.strip() == "add: no limit"
    assert client.limits() == []


def test_what_is_wrong_is_told(noria: Callable[..., Done], client: SyncClient) -> None:
    assert "say what: --rate, --running, or both" in noria("limit", "set", "add").err
    bad = noria("limit", "set", "add", "--rate", "fast")
    assert bad.code == 5
    assert "rate_limit: 'fast' is not a count per period" in bad.err
    assert noria("limit", "set", "nobody", "--running", "1").code == 4
    assert noria("limit", "rm", "add").code == 4
    with pytest.raises(InvalidTask) as refused:
        client.set_limit("add", burst=3)
    assert refused.value.errors == (("#/burst", "goes with rate_limit, and there is none"),)
    with pytest.raises(InvalidTask, match="give rate_limit or max_running"):
        client.set_limit("add")
    with pytest.raises(NotFound, match="there is no limit set by hand"):
        client.unset_limit("add")
