"""Node processes with a place for large results: a folder, or a bucket of the tests' S3 server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import free_port, node, wait_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.support.processes import Spawned
    from tests.support.s3_server import S3Server
    from tests.support.services import PostgresServer

HANDLERS = Path(__file__).with_name("results_handlers.py")
EXAMPLE = HANDLERS.parents[3] / "examples" / "08_large_results.py"


@dataclass(frozen=True)
class Stand:
    """A database and a place for results, on which node processes are started."""

    dsn: str
    folder: Path
    results: dict[str, str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def node(self, **settings: str) -> AbstractContextManager[Spawned]:
        return node(
            {
                "NORIA_POSTGRES_DSN": self.dsn, "NORIA_HTTP_PORT": str(self.port), "NORIA_LEASE_S": "2",
                "NORIA_HANDLERS": f"{HANDLERS},{EXAMPLE}", "NORIA_TEST_STARTS": str(self.folder / "starts"), **self.results,
                "NORIA_CPU_PROCESSES": "1", "PYTHONPATH": str(HANDLERS.parents[3]),
                **{f"NORIA_{name}": value for name, value in settings.items()},
            }
        )  # fmt: skip

    def wait_ready(self, process: Spawned) -> None:
        wait_url(f"{self.url}/readyz", process=process, timeout_s=40)

    def starts(self, task_id: str) -> list[int]:
        """Attempts of this task whose body began."""
        path = self.folder / "starts"
        lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(task_id)]

    def objects(self) -> list[Path]:
        """Files of the folder of results, without what is being written."""
        return list((self.folder / "results").glob("*/[0-9a-f]*/*.*"))


@pytest.fixture
def stand(pg_dsn: str, tmp_path: Path) -> Stand:
    """With a folder."""
    folder = {"NORIA_RESULTS_URL": (tmp_path / "results").as_uri()}
    return Stand(pg_dsn, tmp_path, folder, free_port())


@pytest.fixture
def s3_stand(pg_dsn: str, tmp_path: Path, s3_server: S3Server) -> Stand:
    return Stand(pg_dsn, tmp_path, s3_server.settings(), free_port())


@pytest.fixture(scope="module", params=["folder", "s3"])
def serving(
    request: pytest.FixtureRequest, pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    """A node that runs for the whole module, on each of the two."""
    folder = tmp_path_factory.mktemp("results")
    results = {"NORIA_RESULTS_URL": (folder / "results").as_uri()}
    if request.param == "s3":
        results = request.getfixturevalue("s3_server").settings()
    with pg_server.database(migrated=True) as dsn:
        made = Stand(dsn, folder, results, free_port())
        with made.node() as process:
            made.wait_ready(process)
            yield made
