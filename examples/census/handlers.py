"""A census of Python source: count each file, hand each to a slow archive, and merge the counts."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import tokenize
from pathlib import Path

from typing_extensions import TypedDict

from actors import Context, handler

ARCHIVE_S = 2.0  # on average


class Count(TypedDict):
    files: int
    lines: int
    tokens: int
    names: int
    functions: int
    classes: int


def count_source(source: bytes) -> Count:
    """Raises SyntaxError and tokenize.TokenError for what is not Python."""
    tree = ast.parse(source)
    tokens = list(tokenize.tokenize(io.BytesIO(source).readline))
    return Count(
        files=1,
        lines=source.count(b"\n"),
        tokens=len(tokens),
        names=sum(token.type == tokenize.NAME for token in tokens),
        functions=sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree)),
        classes=sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree)),
    )


def add_up(parts: list[Count]) -> Count:
    total = Count(files=0, lines=0, tokens=0, names=0, functions=0, classes=0)
    for part in parts:
        total = Count(**{key: total[key] + part[key] for key in total})  # type: ignore[literal-required]  # its own keys
    return total


@handler("census.count", cpu=True, timeout_s=30, give_up_on=(SyntaxError,))
def count_file(ctx: Context, path: str) -> Count:
    """Count one file; runs in a process of its own, so that all cores work."""
    return count_source(Path(path).read_bytes())


@handler("census.archive", timeout_s=30)
async def archive(ctx: Context, path: str) -> str:
    """The digest of a file, once an archive has taken it. There is none: it is slow, as many a service is."""
    digest = hashlib.sha256(await asyncio.to_thread(Path(path).read_bytes))
    await asyncio.sleep(ARCHIVE_S * (0.5 + digest.digest()[0] / 256))
    return digest.hexdigest()


@handler("census.merge")
async def merge(ctx: Context, parts: list[Count]) -> Count:
    """Add up partial results."""
    return add_up(parts)
