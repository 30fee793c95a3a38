"""A RabbitMQ server of the tests' own: own node name, folder, ports and epmd; it ends when its starter ends.

    with RabbitServer() as server:      # about 4 s; 1 scheduler, no plugins, nothing shared with the machine
        connect(server.url)
        server.kill()                   # kill -9
        server.start()

Every method blocks and may be called from any thread (`asyncio.to_thread(server.alarm, True)`), one at a time.
What goes through `ctl` costs about a second: the tool is an Erlang machine of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from runtime.adapters.embedded.child import Child, spawn
from tests.support import packages
from tests.support.packages import ServiceMissingError
from tests.support.processes import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

URL_VARIABLE: Final = "NORIA_TEST_AMQP_URL"  # a server to use where a test does not hurt it
BIN_VARIABLE: Final = "NORIA_TEST_RABBITMQ_BIN"  # folder of another rabbitmq-server and rabbitmqctl
# Not the wrappers of /usr/sbin, which change the user.
_BIN_DEBIAN: Final = Path("/usr/lib/rabbitmq/bin")
_PREFIX: Final = "noria-test-rabbitmq-"
_START_S: Final = 45.0
_NUMBERS: Final = count(1)
# Cheap on a small machine that does other things too: one scheduler, which never spins.
_THRIFTY: Final = "+sbwt none +sbwtdcpu none +sbwtdio none +A 4 +P 65536"
_NORMAL_WATERMARK: Final = "0.4"


class RabbitServer:
    """One server; `start` and what breaks it may be repeated for as long as the object lives."""

    def __init__(self, bin_dir: Path | None = None, *, schedulers: int = 1) -> None:
        self._bin = bin_dir or programs()
        packages.remove_left_behind(_PREFIX)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._schedulers = schedulers
        self._node = f"noria-test-{os.getpid()}-{next(_NUMBERS)}@localhost"
        self.port = free_port()
        self._dist_port = free_port()
        self._epmd_port = free_port()
        self._epmd: Child | None = None
        self._server: Child | None = None
        self._undo: dict[str, Callable[[], None]] = {}  # what `heal` has to take back

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        """Of the Erlang machine."""
        return self._running().pid

    def start(self) -> None:
        """Return once it serves. Queues and messages that were durable are there again."""
        self._folder.chmod(0o700)
        if self._epmd is None or self._epmd.poll() is not None:
            self._epmd = self._spawn(
                [_which("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1"], "epmd.log"
            )
        self._server = self._spawn([str(self._bin / "rabbitmq-server")], "server.log")
        self._undo.clear()
        wait_until(self._serves, _START_S, lambda: f"RabbitMQ does not serve:\n{self.log}")

    def stop(self) -> None:
        """An orderly end of the whole server."""
        self.thaw()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop_app(self) -> None:
        """The broker ends in order, its Erlang machine stays: faster than `restart`."""
        self.ctl("stop_app")
        self._undo["start_app"] = self.start_app

    def start_app(self) -> None:
        self.ctl("start_app")
        self._undo.pop("start_app", None)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        self._running().send_signal(signal.SIGSTOP)
        self._undo["thaw"] = self.thaw

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)
        self._undo.pop("thaw", None)

    def alarm(self, on: bool) -> None:
        """The memory alarm: publishing connections are blocked."""
        self.ctl("set_vm_memory_high_watermark", "0.00001" if on else _NORMAL_WATERMARK)
        self._undo["alarm"] = partial(self.alarm, False)
        if not on:
            del self._undo["alarm"]

    def close_all_connections(self) -> None:
        self.ctl("close_all_connections", "said the test")

    def delete_queue(self, name: str) -> None:
        self.ctl("delete_queue", name)

    def queues(self) -> dict[str, tuple[int, int]]:
        """Messages (ready and unacknowledged) and consumers of each queue, by name."""
        said = self.ctl("list_queues", "name", "messages", "consumers", "--no-table-headers")
        rows = (line.split("\t") for line in said.splitlines() if line.strip())
        return {name: (int(messages), int(consumers)) for name, messages, consumers in rows}

    def ctl(self, *arguments: str) -> str:
        """Output of `rabbitmqctl --quiet arguments`. Raises AssertionError with what it said when it fails."""
        done = subprocess.run(
            [self._bin / "rabbitmqctl", "--quiet", "--node", self._node, *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}".strip()
            raise AssertionError(f"rabbitmqctl {' '.join(arguments)}: {said}\n{self.log}")
        return done.stdout

    def heal(self) -> None:
        """Take back what was done to it, so that the next test finds it as it was; cheap when nothing was."""
        if self._server is None or self._server.poll() is not None:
            self.start()
        for undo in (self._undo.get(name) for name in ("thaw", "start_app", "alarm")):
            if undo is not None:
                undo()

    def close(self) -> None:
        """End it for good; its data is thrown away."""
        self._end(signal.SIGKILL)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """The end of what it said."""
        texts = [path.read_text(errors="replace") for path in sorted(self._folder.glob("**/*.log"))]
        return "\n".join(texts)[-4000:]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> Child:
        assert self._server is not None, "the server was not started"
        return self._server

    def _end(self, number: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(number)
            try:
                self._server.wait(30)
            finally:
                self._server.kill()

    def _serves(self) -> bool:
        """Whether it answers the AMQP greeting; its listener is the last that it starts."""
        if (code := self._running().poll()) is not None:
            raise AssertionError(f"RabbitMQ ended with {code}:\n{self.log}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as peer:
                peer.sendall(b"AMQP\0\0\x09\x01")
                return peer.recv(1) == b"\x01"
        except OSError:
            return False

    def _spawn(self, command: Sequence[str], log: str) -> Child:
        with (self._folder / log).open("ab") as output:
            work = partial(spawn, command, end_signal=signal.SIGKILL, env=self._environment(), output=output)
            return _lasting_thread().submit(work).result()

    def _environment(self) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_", "NORIA_"))}
        erlang = f"+S {self._schedulers}:{self._schedulers} {_THRIFTY}"
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return ours | {
            "HOME": str(self._folder),  # holds the cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the Erlang machine instead of watching it
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{erlang} {loopback}",
            "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 {_THRIFTY} {loopback}",
        }


def programs() -> Path:
    """The folder of rabbitmq-server and rabbitmqctl; installed from Debian where that is possible.

    Raises ServiceMissingError.
    """
    if chosen := os.environ.get(BIN_VARIABLE):
        return Path(chosen)
    if not (_BIN_DEBIAN / "rabbitmq-server").exists():
        packages.install(
            f"RabbitMQ in {_BIN_DEBIAN}",
            "rabbitmq-server",
            otherwise=f", or name another one's folder in {BIN_VARIABLE}",
        )
    return _BIN_DEBIAN


def _which(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ServiceMissingError(f"{program} is not on the PATH: it comes with Erlang, as RabbitMQ does")
    return found


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    """Children end with the thread that started them, so that must be none that ends before this process."""
    return ThreadPoolExecutor(1, thread_name_prefix="rabbitmq-starter")
