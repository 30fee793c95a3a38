"""etcd that asks who we are: by password, by certificate, and by both."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import runtime.adapters.etcd.coordinator
from runtime.adapters.etcd import open_coordinator
from runtime.core.view import View
from runtime.errors import Unavailable
from tests.support.etcd_server import Certificates, EtcdCluster, certificates, etcd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.ports import Coordinator

USER: Final = "noria"
PASSWORD: Final = "s3cret@:/?#"  # noqa: S105 - of servers that live for a test
ANSWER_S: Final = 2.0
SLACK_S: Final = 0.5


pytestmark = pytest.mark.usefixtures("grpc_engine")


@pytest.fixture
def server() -> Iterator[EtcdCluster]:
    with etcd() as one:
        yield one


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(files: Certificates) -> Iterator[EtcdCluster]:
    with etcd(tls=files) as one:
        yield one


async def works(one: Coordinator, other: Coordinator, number: int) -> None:
    """Proposes that view through `one`, and `other` is woken by it."""
    waiting = asyncio.create_task(other.newer(number - 1, 20))
    assert await other.newer(number - 1, 0.2) is None
    assert await one.propose(View(number=number))
    assert await waiting == View(number=number)


async def back(coordinator: Coordinator) -> View:
    """Once it answers again."""
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                return await coordinator.view()
            await asyncio.sleep(0.02)


# -- passwords ---------------------------------------------------------------------------------------


async def test_a_user_with_a_password_reads_writes_and_watches(
    server: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runtime.adapters.etcd.coordinator, "_LOOK_S", 60.0
    )  # nobody looks unless a watch says so
    await asyncio.to_thread(server.enable_auth, USER, PASSWORD, "/noria/")
    url = server.url_of(user=USER, password=PASSWORD)
    async with open_coordinator(url) as one, open_coordinator(url) as other:
        await works(one, other, 1)
        await works(other, one, 2)


@pytest.mark.parametrize(
    ("user", "password", "prefix", "why"),
    [
        (USER, "wrong-s3cret", "", "authentication failed"),
        ("nobody", PASSWORD, "", "authentication failed"),
        ("", "", "", "user name is empty"),
        (USER, PASSWORD, "/elsewhere", "permission denied"),
    ],
)
async def test_whoever_is_not_let_in_is_told_why_without_the_password(
    server: EtcdCluster, caplog: pytest.LogCaptureFixture, user: str, password: str, prefix: str, why: str
) -> None:
    caplog.set_level(logging.DEBUG)
    await asyncio.to_thread(server.enable_auth, USER, PASSWORD, "/noria/")
    url = server.url_of(user=user, password=password, prefix=prefix)
    async with open_coordinator(url) as coordinator:
        for ask in (coordinator.view(), coordinator.propose(View(number=1)), coordinator.newer(0, 30)):
            before_s = time.monotonic()
            with pytest.raises(Unavailable, match=why) as told:
                await ask
            assert time.monotonic() - before_s < ANSWER_S + SLACK_S
            assert "s3cret" not in str(told.value)
    assert "s3cret" not in caplog.text


async def test_a_token_that_its_server_has_forgotten_is_replaced(server: EtcdCluster) -> None:
    await asyncio.to_thread(server.enable_auth, USER, PASSWORD, "/noria/")
    url = server.url_of(user=USER, password=PASSWORD)
    async with open_coordinator(url) as one, open_coordinator(url) as other:
        await works(one, other, 1)
        await asyncio.to_thread(server.members[0].kill)
        server.members[0].start()
        await asyncio.to_thread(server.wait_ready)
        await back(one)
        await back(other)
        await works(one, other, 2)


async def test_who_has_a_user_before_etcd_asks_for_one_goes_on_when_it_does(server: EtcdCluster) -> None:
    url = server.url_of(user=USER, password=PASSWORD)
    async with open_coordinator(url) as one, open_coordinator(url) as other:
        await works(one, other, 1)
        await asyncio.to_thread(server.enable_auth, USER, PASSWORD, "/noria/")
        await works(one, other, 2)


# -- certificates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_certificates_on_both_sides(secure: EtcdCluster, host: str) -> None:
    url = secure.url_of(prefix=f"/{host}").replace("127.0.0.1", host, 1)
    async with open_coordinator(url) as one, open_coordinator(url) as other:
        await works(one, other, 1)


async def test_certificates_and_a_password(files: Certificates) -> None:
    with etcd(tls=files) as server:
        await asyncio.to_thread(server.enable_auth, USER, PASSWORD, "/noria/")
        async with open_coordinator(server.url_of(user=USER, password=PASSWORD)) as coordinator:
            assert await coordinator.propose(View(number=1))


@pytest.mark.parametrize("wrong", ["no certificate", "other ca", "no tls", "usual cas"])
async def test_whoever_is_not_trusted_or_does_not_trust_is_told_soon(
    secure: EtcdCluster, files: Certificates, tmp_path: Path, wrong: str
) -> None:
    place = f"{secure.endpoints}/x"
    ours = f"cert={files.cert}&key={files.key}"
    urls = {
        "no certificate": f"https://{place}?ca={files.ca}",
        "other ca": f"https://{place}?ca={certificates(tmp_path).ca}&{ours}",
        "no tls": f"http://{place}",
        "usual cas": f"https://{place}?{ours}",
    }
    async with open_coordinator(urls[wrong]) as coordinator:
        before_s = time.monotonic()
        with pytest.raises(Unavailable):
            await coordinator.view()
        assert time.monotonic() - before_s < ANSWER_S + SLACK_S
