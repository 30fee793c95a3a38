"""Import the handlers as a node would, and tell what came of it as JSON. Starts nothing.

    python -m node.dev.importing [--whole] FILE|MODULE...

With --whole, Noria's own code is imported too, all that a node has: a mistake there ends the process.

Run in a process of its own: imports may fail, hang, print or exit. stdout carries the JSON and nothing else
(what the imported code prints goes to stderr).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import NoriaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WHOLE: Final = "--whole"
OWN: Final = {"actors", "node", "runtime"}


@dataclass(frozen=True, slots=True)
class Found:
    """One handler: where it stands ("file:line") and the JSON Schema of its arguments."""

    name: str
    source: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checked:
    """`error` is empty when a node can load it all. `files` are those to watch, also after an error."""

    handlers: tuple[Found, ...] = ()
    files: tuple[str, ...] = ()
    error: str = ""


def load(handlers: Sequence[str]) -> Checked:
    """Import them here and now."""
    from actors.authoring.registry import Registry  # noqa: PLC0415 - only the process of its own needs this

    try:
        registry = Registry.load(handlers)
    except NoriaError as exc:
        return Checked(files=_local_files(handlers), error=str(exc))
    definitions = [registry.get(name) for name in registry.names]
    found = tuple(Found(d.name, d.source, d.schema) for d in definitions if d is not None)
    return Checked(found, _local_files(handlers))


def _local_files(handlers: Sequence[str]) -> tuple[str, ...]:
    """Source files that are the user's: not of Python, of installed packages, or of Noria itself."""
    files = {Path(file).resolve() for file in (*named_files(handlers), *_module_files())}
    library = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    own = [sys.modules[name].__path__[0] for name in OWN if name in sys.modules]
    apart = [Path(folder).resolve() for folder in (*library, *own)]
    return tuple(sorted(str(f) for f in files if f.is_file() and not any(f.is_relative_to(p) for p in apart)))


def _module_files() -> Iterator[str]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            yield file


def named_files(handlers: Sequence[str]) -> Iterator[str]:
    """The files that these names mean, as far as they exist: known also where an import fails."""
    for handler in handlers:
        dotted = Path(*handler.split("."))
        for path in (Path(handler), dotted.with_name(dotted.name + ".py"), dotted):
            if path.is_dir():
                every = path.rglob if (path / "__init__.py").exists() else path.glob
                yield from map(str, every("*.py"))
            elif path.is_file():
                yield str(path)


def main(arguments: Sequence[str]) -> None:
    answer = os.dup(1)
    os.dup2(2, 1)
    if arguments[:1] == [WHOLE]:
        import node.wiring  # noqa: F401, PLC0415 - only when asked for

        arguments = arguments[1:]
    checked = load(arguments)
    with os.fdopen(answer, "w", encoding="utf-8") as out:
        json.dump(asdict(checked), out)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)  # threads that the imported code may have started do not hold us up


if __name__ == "__main__":
    main(sys.argv[1:])
