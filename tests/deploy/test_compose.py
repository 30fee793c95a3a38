"""docker-compose.yml says what the nodes, their settings and each other need. No engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from node.settings import SETTINGS, read
from tests.deploy.test_image import instructions
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TEXT: Final = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
VARIABLE: Final = re.compile(r"\$\{(\w+):-(.*?)\}", re.DOTALL)
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(VARIABLE.sub(r"\2", TEXT))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
NODES: Final = {name: service for name, service in SERVICES.items() if name.startswith("node-")}
BEYOND_DRAIN_S: Final = 5  # what a node is given to end after its drain


def environment(service: dict[str, Any]) -> dict[str, str]:
    """What a node's process finds: the image's and the service's."""
    image = dict(word.split("=", 1) for words in instructions("ENV") for word in words.split())
    return {**image, **{name: str(value) for name, value in service["environment"].items()}}


def test_docker_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no `docker compose` here that could say whether it accepts docker-compose.yml")
    checked = subprocess.run(
        [docker, "compose", "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_there_are_three_nodes_with_names_and_ports_of_their_own() -> None:
    assert [service["environment"]["NORIA_NODE_NAME"] for service in NODES.values()] == list(NODES)
    assert list(NODES) == ["node-1", "node-2", "node-3"]
    ports = [port.split(":")[1] for service in NODES.values() for port in service["ports"]]
    assert ports == ["8080", "8081", "8082", "8083"]


def test_every_setting_exists_and_a_node_accepts_them_all() -> None:
    known = {setting.variable for setting in SETTINGS}
    assert set(re.findall(r"NORIA_\w+", TEXT + (ROOT / "Dockerfile").read_text())) <= known
    for name, service in NODES.items():
        settings = read(environment(service))
        assert settings.node_name == name
        assert settings.amqp_url
        assert settings.etcd_url
        assert settings.http_host == "0.0.0.0"  # noqa: S104 - within its container
        assert all((ROOT / handlers).exists() for handlers in settings.handlers)
        assert service["command"] == ["noria", "node", "--reload"]


def test_no_port_is_open_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_nodes_start_when_what_they_need_is_healthy() -> None:
    others = SERVICES.keys() - NODES.keys()
    assert others == {"postgres", "rabbitmq", "etcd"}
    for service in NODES.values():
        assert service["depends_on"] == {name: {"condition": "service_healthy"} for name in others}
    assert all(SERVICES[name]["healthcheck"]["test"] for name in others)
    assert instructions("HEALTHCHECK")  # of the nodes


def test_a_node_has_time_to_drain_and_stays_away_after_it() -> None:
    for service in NODES.values():
        grace_s = float(service["stop_grace_period"].removesuffix("s"))
        assert grace_s > read(environment(service)).drain_s + BEYOND_DRAIN_S
        assert service["restart"] == "on-failure"


def test_data_outlive_the_containers() -> None:
    for name in ("postgres", "rabbitmq", "etcd"):
        assert [volume.split(":")[0] for volume in SERVICES[name]["volumes"]] == [name]
        assert name in COMPOSE["volumes"]
    assert SERVICES["rabbitmq"]["hostname"]  # its data are kept under its host's name


def test_the_demo_says_what_it_lacks(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    demo = subprocess.run(
        [sys.executable, "-m", "examples.cluster.demo"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert demo.returncode == 2
    assert "needs Docker with Compose, but there is no `docker` here" in demo.stdout
    assert "make demo` needs no service" in demo.stdout.replace("\n", " ")
