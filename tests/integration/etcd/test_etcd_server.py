"""The servers that tests start end with them, however those end."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.etcd_server import etcd
from tests.support.processes import spawned

if TYPE_CHECKING:
    from pathlib import Path

SESSION: Final = """
import threading
from tests.support.etcd_server import etcd
with etcd(3) as cluster:
    cluster.members[1].freeze()
    print("url", cluster.url, flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_whoever_is_interrupted_leaves_no_server(tmp_path: Path, number: signal.Signals) -> None:
    with spawned(sys.executable, "-c", SESSION, env={"TMPDIR": str(tmp_path)}) as session:
        session.wait_line("url http://127.0.0.1")
        assert [process.name for process in session.survivors()].count("etcd") == 3
        session.signal(number)
        session.wait_exit()
        session.wait_no_survivors()
        assert list(tmp_path.glob("noria-test-etcd-*")) == [] or number != signal.SIGINT


def test_a_member_that_was_frozen_is_ended_too() -> None:
    with etcd() as cluster:
        member = cluster.members[0]
        member.freeze()
        assert not member.healthy
        member.thaw()
        cluster.wait_ready()
        member.freeze()
    assert not member.answers
