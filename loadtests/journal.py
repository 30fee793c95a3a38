"""Every request of a caller and what came back, one JSON line each, written as soon as it is known.

Law: what a caller was told stands here before the caller asks for anything else; the audit believes nothing but
this file and the record. Standard library and orjson only: it is imported in two environments.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

import orjson


@dataclass(slots=True)
class Entry:
    """One request for one or more tasks.

    `at_s` is Unix time when it was sent, `node` the index of the URL. `status` None: no answer came, the tasks may
    be stored or not; `cut` says that its caller was ended before. `ids` and `new` (it was not there before) go with
    `keys`; None unless accepted.
    """

    at_s: float
    took_s: float
    node: int
    handler: str
    keys: list[str]
    status: int | None = None
    cut: bool = False
    retry_after: bool = False
    ids: list[str] | None = None
    new: list[bool] | None = None

    @property
    def accepted(self) -> bool:
        return self.status in {200, 202}


class Journal:
    """Appends; each line leaves this process at once, so that nothing is lost with it."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def note(self, entry: Entry) -> None:
        self._file.write(orjson.dumps(asdict(entry), option=orjson.OPT_APPEND_NEWLINE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Reader:
    """Reads on from where it stopped; a line that is half written waits for its rest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""

    def more(self) -> list[Entry]:
        """What was written since the last call; nothing while there is no file."""
        if self._file is None:
            if not self._path.exists():
                return []
            self._file = self._path.open("rb")
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [Entry(**orjson.loads(line)) for line in lines]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
