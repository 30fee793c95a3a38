"""Settings of a cluster: what is wrong is said before anything starts, and no secret with it."""

from __future__ import annotations

import pytest

from node.settings import read
from runtime.errors import SettingsError

_NEEDED = {"NORIA_POSTGRES_DSN": "postgresql://db"}


def test_what_a_cluster_needs_is_read() -> None:
    given = {
        "NORIA_AMQP_URL": "amqp://noria:secret@mq/",
        "NORIA_ETCD_URL": "http://me:secret@a:2379,b:2379/noria",
        "NORIA_WEIGHT": "0.5",
        "NORIA_HEARTBEAT_S": "500ms",
    }
    settings = read(_NEEDED | given)
    assert (settings.amqp_url, settings.etcd_url) == (given["NORIA_AMQP_URL"], given["NORIA_ETCD_URL"])
    assert (settings.weight, settings.heartbeat_s) == (0.5, 0.5)
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "ETCD_URL",
            "http://me:secret@a:99999",
            "is not a URL of etcd: port: 99999 is none; allowed: 1 to 65535",
        ),
        ("ETCD_URL", "http://me:secret@", "is not a URL of etcd: host: '' is none"),
        ("ETCD_URL", "https://me:secret@a?nope=1", "nope: no such option; allowed: ca, cert, key"),
        ("ETCD_URL", "etcd://me:secret@a", "scheme: allowed are http and https"),
        ("AMQP_URL", "http://me:secret@mq", "is not a URL that begins with amqp:// or amqps://"),
        ("WEIGHT", "101", "'101' is not a number from 0 to 100"),
        ("WEIGHT", "-1", "'-1' is not a number from 0 to 100"),
        ("HEARTBEAT_S", "0", "'0' is not a duration from 0.1 to 60 seconds"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(_NEEDED | {f"NORIA_{name}": value})
    assert f"NORIA_{name}: " in str(refused.value)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
