"""What NORIA_RESULTS_URL may say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node import settings
from runtime.adapters.objects import FolderUrl, Keys, S3Url, parse
from runtime.adapters.objects.url import folder_url
from runtime.errors import SettingsError

DSN = {"NORIA_POSTGRES_DSN": "postgresql://x"}


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("file:///var/results", FolderUrl(Path("/var/results"))),
        ("file:///a%20b", FolderUrl(Path("/a b"))),
        ("s3://bucket", S3Url(bucket="bucket")),
        ("s3://bucket/a/b/", S3Url(bucket="bucket", prefix="a/b/")),
        (
            "s3://b-1/x?endpoint=http://h:8333&region=eu-1&sse=aws:kms&kms_key=k",
            S3Url(
                bucket="b-1", prefix="x/", endpoint="http://h:8333", region="eu-1", sse="aws:kms", kms_key="k"
            ),
        ),
        ("s3://bucket?endpoint=http%3A%2F%2Fh%3A8333", S3Url(bucket="bucket", endpoint="http://h:8333")),
    ],
)
def test_allowed(url: str, means: FolderUrl | S3Url) -> None:
    assert parse(url) == means
    assert settings.read({**DSN, "NORIA_RESULTS_URL": url}).results_url == url


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("results", "scheme"),
        ("http://bucket", "scheme"),
        ("file://host/x", "folder"),
        ("file:///", "folder"),
        ("file:///x?y=1", "folder"),
        ("s3://", "bucket"),
        ("s3://Upper", "bucket"),
        ("s3://key:sesame@bucket", "user"),
        ("s3://bucket?endpoint=ftp://h", "endpoint"),
        ("s3://bucket?endpoint=http://key:sesame@h", "endpoint"),
        ("s3://bucket?endpoint=http://h/path", "endpoint"),
        ("s3://bucket?region=", "region"),
        ("s3://bucket?sse=rot13", "sse"),
        ("s3://bucket?kms_key=k", "kms_key"),
        ("s3://bucket?acl=public", "acl"),
    ],
)
def test_refused_with_the_part_that_is_wrong(url: str, part: str) -> None:
    with pytest.raises(ValueError, match=f"^{part}: ") as wrong:
        parse(url)
    assert "sesame" not in str(wrong.value)
    with pytest.raises(
        SettingsError, match=f"NORIA_RESULTS_URL: .* is not a place for results: {part}"
    ) as wrong:
        settings.read({**DSN, "NORIA_RESULTS_URL": url})
    assert "sesame" not in str(wrong.value)


def test_a_folder_and_its_url() -> None:
    assert parse(folder_url(Path("/a b/c#d"))) == FolderUrl(Path("/a b/c#d"))


def test_keys_come_together_and_are_not_shown() -> None:
    with pytest.raises(SettingsError, match="set both or none"):
        settings.read({**DSN, "NORIA_S3_ACCESS_KEY_ID": "k"})
    both = settings.read({**DSN, "NORIA_S3_ACCESS_KEY_ID": "k", "NORIA_S3_SECRET_ACCESS_KEY": "sesame"})
    assert (both.s3_access_key_id, both.s3_secret_access_key) == ("k", "sesame")
    assert "sesame" not in repr(both)
    assert "sesame" not in repr(Keys("k", "sesame"))


def test_a_node_without_s3_does_not_load_its_library() -> None:
    """It costs a node that has no bucket time at every start, and memory."""
    look = "import sys, node.wiring, node.settings; from runtime.adapters.objects import parse; parse('s3://bucket')"
    shown = "print(*(name for name in ('aiobotocore', 'botocore') if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{look}; {shown}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
