"""Print the part of requirements.lock that the named packages need, hashes and all. An image has no test tools.

    python deploy/requirements.py noria watchfiles > run.txt     (`noria`: what pyproject.toml depends on)

Should anything be missing here, `pip install --require-hashes` refuses it.
"""

# ruff: noqa: INP001 - a script, not a package
from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def blocks(lock: str) -> dict[str, str]:
    """Each package's lines: its pin, its hashes, and who wants it."""
    parts = re.split(r"^(?=[a-z0-9][a-z0-9._-]*==)", lock, flags=re.MULTILINE)
    return {part.split("==", 1)[0]: part for part in parts if "==" in part}


def wanted_by(block: str) -> set[str]:
    """The packages that its `# via` comments name."""
    return set(re.findall(r"^ +#(?: via)? +([a-z0-9][a-z0-9._-]*)", block, flags=re.MULTILINE)) - {"via"}


def needed(lock: str, names: list[str]) -> list[str]:
    """The packages of these names and all that those want, in the order of the lock."""
    found, chosen, todo = blocks(lock), set[str](), set(names)
    while todo:
        chosen |= todo
        todo = {name for name, block in found.items() if wanted_by(block) & todo} - chosen
    if missing := chosen - found.keys():
        raise SystemExit(f"not in requirements.lock: {', '.join(sorted(missing))}")
    return [name for name in found if name in chosen]


def dependencies(project: str) -> list[str]:
    """Names in `dependencies` of a pyproject.toml."""
    listed = tomllib.loads(project)["project"]["dependencies"]
    return [re.split(r"[^A-Za-z0-9._-]", entry, maxsplit=1)[0].lower() for entry in listed]


def main(arguments: list[str]) -> None:
    names = [name for name in arguments if name != "noria"]
    if "noria" in arguments:
        names += dependencies(Path("pyproject.toml").read_text(encoding="utf-8"))
    lock = Path("requirements.lock").read_text(encoding="utf-8")
    found = blocks(lock)
    sys.stdout.write("".join(found[name] for name in needed(lock, names)))


if __name__ == "__main__":
    main(sys.argv[1:])
