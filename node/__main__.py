"""`python -m node`: the same as `noria node`, for process managers and tests."""

from __future__ import annotations

import os
import sys

from node.settings import read
from node.wiring import run_process
from runtime.errors import NoriaError

EXIT_USAGE = 2


def main() -> int:
    try:
        settings = read(os.environ)
        return run_process(settings)
    except NoriaError as wrong:
        print(wrong, file=sys.stderr)
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
