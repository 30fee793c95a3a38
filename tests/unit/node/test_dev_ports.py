"""Ports for nodes that are started together: the first one is a promise, the others are an offer."""

from __future__ import annotations

import socket

import pytest

from node.dev.ports import free_ports, url_of
from runtime.errors import EmbeddedError


def test_they_follow_the_first_and_leave_out_what_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        taken = probe.getsockname()[1]
        ports = free_ports("127.0.0.1", taken - 1, 3)
    assert ports[0] == taken - 1
    assert taken not in ports
    assert len(set(ports)) == 3


def test_the_first_one_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        taken = probe.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"cannot listen on 127.0.0.1:{taken}"):
            free_ports("127.0.0.1", taken, 1)


def test_no_port_in_particular_and_none_beyond_the_last() -> None:
    assert len(set(free_ports("127.0.0.1", 0, 16))) == 16
    first, second = free_ports("127.0.0.1", 65_535, 2)
    assert first == 65_535
    assert 0 < second < 65_535


def test_what_listens_everywhere_is_reached_here() -> None:
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"  # noqa: S104 - as a container does
    assert url_of("::", 80) == "http://[::1]:80"
    assert url_of("10.1.2.3", 80) == "http://10.1.2.3:80"
