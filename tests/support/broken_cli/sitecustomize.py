"""Put on the path of a command to see what people see when Noria itself is broken."""

from node.cli import context


def broken(*_args: object, **_options: object) -> None:
    raise ZeroDivisionError("a bug of ours")


context.with_client = broken  # type: ignore[assignment]  # that is the point
