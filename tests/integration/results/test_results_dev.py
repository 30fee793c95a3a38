"""`noria dev` keeps large results in a folder of its own, with nothing set."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from node.client import SyncClient
from tests.integration.results.conftest import EXAMPLE
from tests.support.processes import noria

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.processes import Spawned


@contextmanager
def dev(folder: Path, *flags: str) -> Iterator[tuple[Spawned, SyncClient]]:
    with noria("dev", *flags, str(EXAMPLE), env={"NORIA_HTTP_PORT": "0"}, cwd=folder) as process:
        url = process.wait_line(r"^  (http://\S+)", timeout_s=40)[1]
        process.wait_line("Ctrl-C stops everything", timeout_s=40)
        with SyncClient(url, retry_for_s=30) as client:
            yield process, client


def test_a_large_result_of_noria_dev(tmp_path: Path) -> None:
    with dev(tmp_path) as (process, client):
        t = client.submit("export", {"rows": 50_000})
        assert len(t.result(40)) > 256 * 1024
        assert t.seen is not None
        [stored] = (tmp_path / ".noria" / "results").glob(f"*/*/{t.id}.1")
        assert stored.stat().st_size == t.seen["result_ref"]["bytes"]
        process.signal(signal.SIGINT)
        assert process.wait_exit(30) == 0, process.output
    with dev(tmp_path, "--fresh"):
        assert not list((tmp_path / ".noria" / "results").glob("*/*/*.1"))
