"""The `noria` command. Nothing is imported here: `noria --help` has to be quick."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `noria` script."""
    import sys  # noqa: PLC0415 - see above

    from node.cli.app import execute  # noqa: PLC0415 - see above

    sys.exit(execute(sys.argv[1:]))
