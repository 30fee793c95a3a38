"""Where handlers say that their bodies begin and end, and are told what to do: a socket server of the test.

Whoever dies leaves a broken connection behind, so the stage sees every end. See staged_handlers.py for their side:
they send {"id", "attempt", "pid", "name", "started_s"}, wait for one word, and send "end" and the time when they return.
The times are their own: a busy stage reads late.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from tests.support.events import Body

T = TypeVar("T")

GO: Final = "go"  # return
DIE: Final = "die"  # kill -9 of the own process
EXIT: Final = "exit"  # os._exit
FAIL: Final = "fail"  # raise


@dataclass(slots=True, eq=False)
class Appearance:
    """One body on the stage."""

    id: str
    attempt: int
    pid: int
    name: str
    started_s: float
    connection: socket.socket
    told: bool = False
    ended_s: float | None = None
    returned: bool = False


class Stage:
    """Bodies go on at once, but for names that are held until somebody tells them what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._orders: dict[str, str | None] = {}  # by name; None: held
        self._seen: list[Appearance] = []
        self._news = threading.Condition()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(512)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._news:
            for one in self._seen:
                one.connection.close()

    # -- for the test --------------------------------------------------------------------------------

    def hold(self, *names: str) -> None:
        """Bodies with these names wait, once they have begun."""
        with self._news:
            self._orders.update(dict.fromkeys(names))

    def always(self, name: str, word: str) -> None:
        """Every body with this name does this, as soon as it has begun."""
        with self._news:
            self._orders[name] = word

    def wait(self, name: str, *, attempt: int | None = None, timeout_s: float = 20) -> Appearance:
        """The body with this name (and attempt), as soon as it has begun."""

        def found() -> Appearance | None:
            return next(
                (a for a in self._seen if a.name == name and attempt in {None, a.attempt}),
                None,
            )

        return self._until(found, timeout_s, f"no body {name!r} (attempt {attempt}) began")

    def wait_id(self, task_id: str, *, attempt: int = 1, timeout_s: float = 20) -> Appearance:
        """The body of this attempt, as soon as it has begun."""

        def found() -> Appearance | None:
            return next((a for a in self._seen if (a.id, a.attempt) == (task_id, attempt)), None)

        return self._until(found, timeout_s, f"attempt {attempt} of {task_id} did not begin")

    def wait_end(self, body: Appearance, timeout_s: float = 20) -> None:
        self._until(lambda: body.ended_s is not None or None, timeout_s, f"{body.name!r} did not end")

    def wait_ends(self, attempts: set[tuple[str, int]], timeout_s: float = 20) -> None:
        """Until the ends of these (id, attempt) were heard, as far as their beginnings were: a busy stage reads late."""

        def all_ended() -> bool | None:
            return all(a.ended_s is not None for a in self._seen if (a.id, a.attempt) in attempts) or None

        self._until(all_ended, timeout_s, "attempts have succeeded whose bodies did not end")

    def tell(self, body: Appearance, word: str = GO) -> None:
        """A held body does this now."""
        with self._news:
            self._say(body, word)

    def release(self, *names: str) -> None:
        """Hold these names no longer; those that wait go on."""
        with self._news:
            for name in names:
                self._orders.pop(name, None)
            for body in self._seen:
                if body.name in names and not body.told:
                    self._say(body, GO)

    def seen(self, name: str | None = None) -> list[Appearance]:
        with self._news:
            return [one for one in self._seen if name in {None, one.name}]

    def bodies(self) -> list[Body]:
        """For the history. Bodies that have not ended last until now."""
        now_s = time.monotonic()
        to_unix_s = time.time() - now_s
        return [
            Body(
                id=a.id,
                attempt=a.attempt,
                pid=a.pid,
                started_s=a.started_s + to_unix_s,
                ended_s=(now_s if a.ended_s is None else a.ended_s) + to_unix_s,
                returned=a.returned,
            )
            for a in self.seen()
        ]

    def _until(self, look: Callable[[], T | None], timeout_s: float, why: str) -> T:
        deadline_s = time.monotonic() + timeout_s
        with self._news:
            while (found := look()) is None:
                if not self._news.wait(max(0.0, deadline_s - time.monotonic())):
                    seen = [(one.name, one.attempt) for one in self._seen[-20:]]
                    raise AssertionError(f"{why} in {timeout_s} s; the last that began: {seen}")
            return found

    # -- in threads ----------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r", encoding="utf-8") as lines:
            if not (hello := lines.readline()):
                return  # it died before it said who it is
            body = Appearance(**json.loads(hello), connection=connection)
            with self._news:
                self._seen.append(body)
                if (word := self._orders.get(body.name, GO)) is not None:
                    self._say(body, word)
                self._news.notify_all()
            try:
                last = lines.readline()
            except OSError:
                last = ""
            word, _, at_s = last.partition(" ")
            with self._news:
                body.ended_s, body.returned = float(at_s or time.monotonic()), word == "end"
                self._news.notify_all()

    def _say(self, body: Appearance, word: str) -> None:
        body.told = True
        with suppress(OSError):  # it is dead
            body.connection.sendall(f"{word}\n".encode())
