"""`python -m node.cli`, where the script is not on the PATH."""

from __future__ import annotations

from node.cli import main

main()
