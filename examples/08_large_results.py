"""Results that are too large for the database lie apart from it: in a folder, or in a bucket of any S3 server.

    noria dev examples/08_large_results.py            # in .noria/results; nothing to set

    noria submit export rows:=200000 --wait > /dev/null
    noria result ID -o export.csv                     # streamed, checked by its SHA-256

    NORIA_RESULTS_URL='s3://bucket/prefix?region=eu-central-1&sse=AES256'      # for `noria node`, with
    NORIA_S3_ACCESS_KEY_ID=…  NORIA_S3_SECRET_ACCESS_KEY_FILE=…                # keys, or a role of the machine

A handler just returns it, as `bytes` or as JSON. The outcome commits when the result is stored; if the bucket is away
the body is not run again, and the task says why it waits. Above 256 KiB and up to NORIA_RESULT_MAX_BYTES (64 MiB).
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from actors import Context, handler, task
from node.client import SyncClient


@dataclass
class Sale:
    day: int
    shop: str
    cents: int


@handler(timeout_s=600)
def export(ctx: Context, rows: int) -> bytes:
    """A plain `def` runs in a thread: making a large result must not hold the node."""
    text = io.StringIO()
    lines = csv.writer(text)
    for row in range(rows):
        lines.writerow([row, f"shop {row % 97}", row * 31 % 10_000])
    return text.getvalue().encode()


@handler
def sales(ctx: Context, rows: int) -> list[Sale]:
    return [Sale(day=row % 365, shop=f"shop {row % 97}", cents=row * 31 % 10_000) for row in range(rows)]


def fetch(url: str, target: Path) -> str:
    """From any program: `result()` is the value itself, `save_result` a file of any size."""
    with SyncClient(url) as client:
        exported = client.submit(task(export, rows=200_000))
        found = client.submit(task(sales, rows=20_000)).result(timeout_s=60)
        exported.result(timeout_s=60)
        saved = client.save_result(exported.id, target)
        assert saved.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    return f"{len(found)} sales, {saved.size} bytes in {target.name}"
