"""etcd servers of the tests' own: one, or three that agree, on loopback with ports and folders of their own.

    with etcd() as cluster: ...     one server        with etcd(3) as cluster: ...    three of them
    cluster.url                     for NORIA_ETCD_URL; cluster.members[0].kill(), freeze(), thaw(), start()

Nothing here needs pytest. Servers end with the process that started them, however that ends. etcd is installed from
Debian where that is possible; a missing one is a failure that says what to do, never a silent skip.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import quote

from runtime.adapters.embedded.child import Child, spawn
from tests.support import packages
from tests.support.packages import ServiceMissingError
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES: Final = {"etcd": "etcd-server", "etcdctl": "etcd-client"}
_PREFIX: Final = "noria-test-etcd-"
_READY_S: Final = 20.0
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: who signed, and one certificate for servers and clients on loopback."""

    ca: Path
    cert: Path
    key: Path


class Member:
    """One etcd server. It keeps its data and ports from one start to the next."""

    def __init__(self, name: str, folder: Path, ports: tuple[int, int, int]) -> None:
        self.name = name
        self.port, self.peer_port, self._metrics_port = ports
        self._folder = folder
        self._child: Child | None = None
        self._frozen = False
        self.command: list[str | Path] = []  # set by who knows the others

    def start(self) -> None:
        """It serves when it has found its leader: see EtcdCluster.wait_ready."""
        assert self._child is None, f"{self.name} runs"
        with self._log("ab") as log:
            self._child = spawn(
                self.command, end_signal=signal.SIGKILL, env={"PATH": os.environ["PATH"]}, output=log
            )

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
            self._frozen = False

    def freeze(self) -> None:
        """It keeps its connections and answers nothing, from the moment that this returns."""
        self._signal(signal.SIGSTOP)
        self._frozen = True
        wait_until(self._stands_still, 5, lambda: f"{self.name} goes on")

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self._frozen = False

    @property
    def answers(self) -> bool:
        """Neither killed nor frozen."""
        return self._child is not None and not self._frozen

    @property
    def healthy(self) -> bool:
        """It knows a leader, a majority answers, and it listens to clients."""
        return b'"health":"true"' in self._ask("/health") and self._listens()

    @property
    def leads(self) -> bool:
        return b"\netcd_server_is_leader 1\n" in self._ask("/metrics")

    @property
    def output(self) -> str:
        """The end of what it logged."""
        with self._log("rb") as log:
            return log.read().decode(errors="replace")[-3_000:]

    @property
    def flags(self) -> list[str]:
        """Of its own: where it is and where it listens for people."""
        return [
            f"--name={self.name}",
            f"--data-dir={self._folder / self.name}",
            f"--listen-metrics-urls=http://{_HOST}:{self._metrics_port}",
        ]

    def _ask(self, path: str) -> bytes:
        if not self.answers:
            return b""
        connection = http.client.HTTPConnection(_HOST, self._metrics_port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            connection.close()

    def _listens(self) -> bool:
        try:
            socket.create_connection((_HOST, self.port), timeout=2).close()
        except OSError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None, f"{self.name} does not run"
        self._child.send_signal(number)

    def _stands_still(self) -> bool:
        """Threads on other cores go on for a moment after a SIGSTOP."""
        assert self._child is not None
        stats = [stat.read_text() for stat in Path(f"/proc/{self._child.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    def _log(self, mode: str) -> IO[bytes]:
        return (self._folder / f"{self.name}.log").open(mode)


class EtcdCluster:
    """Servers that agree with each other. Calls block."""

    def __init__(self, folder: Path, size: int, tls: Certificates | None, flags: tuple[str, ...]) -> None:
        self._tls = tls
        self._scheme = "https" if tls else "http"
        ports = iter(free_ports(3 * size))
        self.members = [Member(f"m{n}", folder, (next(ports), next(ports), next(ports))) for n in range(size)]
        peers = ",".join(f"{member.name}=http://{_HOST}:{member.peer_port}" for member in self.members)
        for member in self.members:
            member.command = [_binary("etcd"), *member.flags, *self._shared(member, peers), *flags]

    @property
    def endpoints(self) -> str:
        return ",".join(f"{_HOST}:{member.port}" for member in self.members)

    @property
    def url(self) -> str:
        """For NORIA_ETCD_URL: all servers."""
        return self.url_of()

    def url_of(self, *members: Member, user: str = "", password: str = "", prefix: str = "") -> str:
        """Of these servers, or all."""
        places = ",".join(f"{_HOST}:{member.port}" for member in members or self.members)
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        files = f"?ca={self._tls.ca}&cert={self._tls.cert}&key={self._tls.key}" if self._tls else ""
        return f"{self._scheme}://{who}{places}{prefix}{files}"

    def start(self) -> None:
        for member in self.members:
            member.start()
        self.wait_ready()

    def wait_ready(self, timeout_s: float = _READY_S) -> None:
        """Until all that answer are healthy and agree on who leads."""
        asked = [member for member in self.members if member.answers]
        wait_until(
            lambda: all(member.healthy for member in asked) and any(member.leads for member in asked),
            timeout_s,
            lambda: "etcd is not ready\n" + "\n".join(member.output for member in asked),
        )

    @property
    def leader(self) -> Member:
        """The one that leads; waits for an election."""
        found: list[Member] = []

        def elected() -> bool:
            found[:] = [member for member in self.members if member.leads]
            return len(found) == 1

        wait_until(elected, _READY_S, lambda: "etcd has no leader")
        return found[0]

    def ctl(self, *arguments: str, user: str = "") -> str:
        """What etcdctl says. `user` is name:password."""
        tls = self._tls
        options = [f"--endpoints={self.endpoints}", "--command-timeout=10s"]
        options += [f"--cacert={tls.ca}", f"--cert={tls.cert}", f"--key={tls.key}"] if tls else []
        options += [f"--user={user}"] if user else []
        done = subprocess.run(
            [_binary("etcdctl"), *options, *arguments],
            env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        if done.returncode != 0:
            raise AssertionError(f"etcdctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def compact(self) -> None:
        """Forget the whole history up to now, as etcd does by itself from time to time."""
        status = self.ctl("endpoint", "status", "--write-out=json")
        revision = max(int(found) for found in re.findall(r'"revision":(\d+)', status))
        self.ctl("compact", str(revision), "--physical")

    def enable_auth(self, user: str, password: str, prefix: str) -> None:
        """From now on only `user` may read and write below `prefix`; root, whose password is the same, may all."""
        for name in ("root", user):
            self.ctl("user", "add", f"{name}:{password}")
            self.ctl("role", "add", name)
            self.ctl("user", "grant-role", name, name)
        self.ctl("role", "grant-permission", user, "readwrite", prefix, "--prefix=true")
        self.ctl("auth", "enable")

    def close(self) -> None:
        for member in self.members:
            member.kill()

    def _shared(self, member: Member, peers: str) -> list[str]:
        """Flags that say where the others are, and how fast an election is."""
        flags = [
            f"--listen-client-urls={self._scheme}://{_HOST}:{member.port}",
            f"--advertise-client-urls={self._scheme}://{_HOST}:{member.port}",
            f"--listen-peer-urls=http://{_HOST}:{member.peer_port}",
            f"--initial-advertise-peer-urls=http://{_HOST}:{member.peer_port}",
            f"--initial-cluster={peers}",
            "--logger=zap",
            "--log-outputs=stderr",
        ]
        if (tls := self._tls) is not None:
            flags += [f"--cert-file={tls.cert}", f"--key-file={tls.key}"]
            flags += ["--client-cert-auth", f"--trusted-ca-file={tls.ca}"]
        return flags


@contextmanager
def etcd(
    size: int = 1, *, tls: Certificates | None = None, flags: tuple[str, ...] = ()
) -> Iterator[EtcdCluster]:
    """A cluster that runs for this block, in a thread that lives as long. Raises ServiceMissingError."""
    programs()
    packages.remove_left_behind(_PREFIX)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = EtcdCluster(folder, size, tls, flags)
        stack.callback(cluster.close)
        cluster.start()
        yield cluster


def certificates(folder: Path) -> Certificates:
    """Made with openssl, for 127.0.0.1 and localhost, good for a day."""
    ca, ca_key, cert, key, request = (folder / f"{n}.pem" for n in ("ca", "ca-key", "cert", "key", "request"))
    extensions = folder / "extensions.cnf"
    extensions.write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
    )
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        "req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "1", "-subj", "/CN=noria test CA"
    )
    _openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=noria test")
    _openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
             "-days", "1", "-extfile", extensions, "-out", cert)  # fmt: skip
    return Certificates(ca, cert, key)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceMissingError(f"openssl {arguments[0]}: {done.stderr}")


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody listened on just now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]


# -- programs ----------------------------------------------------------------------------------------


def programs() -> None:
    """Install what is missing. Raises ServiceMissingError."""
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if missing:
        packages.install("etcd", *missing)


def _binary(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ServiceMissingError(f"{program} is not installed: apt-get install {_PACKAGES[program]}")
    return found
