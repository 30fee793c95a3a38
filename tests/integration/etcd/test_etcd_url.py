"""What a URL of etcd may say, and how it is told that it says something else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.adapters.etcd import EtcdUrl, open_coordinator, parse
from runtime.errors import SettingsError

GOOD = {
    "http://etcd": EtcdUrl(endpoints=("etcd:2379",)),
    "http://etcd/": EtcdUrl(endpoints=("etcd:2379",)),
    " http://10.0.0.1:1\n": EtcdUrl(endpoints=("10.0.0.1:1",)),
    "http://a:1,b-c.d_e.f,[::1]:2": EtcdUrl(endpoints=("a:1", "b-c.d_e.f:2379", "[::1]:2")),
    "http://a/some/place/": EtcdUrl(endpoints=("a:2379",), prefix="/some/place/"),
    "http://a/b%20c": EtcdUrl(endpoints=("a:2379",), prefix="/b c/"),
    "https://a": EtcdUrl(endpoints=("a:2379",), secure=True),
    "http://u:p%40%2F%3A@a:1": EtcdUrl(endpoints=("a:1",), user="u", password="p@/:"),  # noqa: S106 - for no server
    "https://u:p:q@a,b:3/x?ca=/c.pem&cert=/d%20e.pem&key=k": EtcdUrl(
        endpoints=("a:2379", "b:3"),
        prefix="/x/",
        secure=True,
        user="u",
        password="p:q",  # noqa: S106 - for no server
        ca=Path("/c.pem"),
        cert=Path("/d e.pem"),
        key=Path("k"),
    ),
}
BAD = {
    "etcd:2379": "scheme",
    "amqp://etcd": "scheme",
    "": "scheme",
    "http://": "host: ''",
    "http://a,": "host: ''",
    "http://a b": "host: 'a b'",
    "http://a:x": "host: 'a:x'",
    "http://a:0": "port: 0",
    "http://a:65536": "port: 65536",
    "http://::1": "host: '::1'",
    "http://[::1": "host",
    "http://u@a": "user",
    "http://u:@a": "user",
    "http://:p@a": "user",
    "http://u:p/q@a": "user",
    "http://u:p?q@a": "user",
    "http://a#b": "host",
    "http://a/#b": "prefix",
    "https://a?tls=1": "tls: no such option; allowed: ca, cert, key",
    "https://a?ca=": "ca: names no file",
    "http://a?ca=/x": "ca: needs https",
    "https://a?cert=/x": "cert",
    "https://a?key=/x": "cert",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_good_url_says_all(url: str) -> None:
    assert parse(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_a_bad_url_is_told_which_part_is_wrong(url: str) -> None:
    with pytest.raises(ValueError, match=f"^{BAD[url]}"):
        parse(url)


@pytest.mark.parametrize(
    "url",
    ["http://u:s3cret@", "http://u:s3cret@a:x", "http://s3cret@a", "http://u:s3cret/@a", "ftp://u:s3cret@a"],
)
async def test_no_message_tells_a_password(url: str) -> None:
    with pytest.raises(ValueError) as told:
        async with open_coordinator(url):
            pass
    assert "s3cret" not in str(told.value)
    assert "s3cret" not in repr(parse("http://u:s3cret@a"))


async def test_a_file_that_is_not_there_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ETCD_URL: ca: /.* cannot be read: No such file"):
        async with open_coordinator(f"https://127.0.0.1:1?ca={tmp_path / 'ca.pem'}"):
            pass


@pytest.mark.parametrize("module", ["runtime.adapters.etcd", "node.client", "node.cli", "node.wiring"])
def test_grpc_is_imported_by_those_only_who_use_it(module: str) -> None:
    look = f"import sys, {module}; sys.exit('grpc' in sys.modules or 'etcd3aio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
