"""Modules, files, folders and packages by name, as settings give them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import RegistrationError, Registry

HANDLER = """\
from __future__ import annotations
from actors import Context, handler

@handler
async def {name}(ctx: Context, x: int = 1) -> int:
    return x
"""
LIFESPAN = """\
from collections.abc import AsyncIterator
from actors import lifespan

@lifespan
async def {name}() -> AsyncIterator[int]:
    yield 1
"""
ACTOR = """\
from actors import Actor, Context, handler

class Account(Actor, name="account"):
    balance: int = 0

    @handler
    async def deposit(self, ctx: Context, amount: int) -> int:
        return amount
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder; what a test imports from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(*names: str) -> str:
    with pytest.raises(RegistrationError) as error:
        Registry.load(names)
    return str(error.value)


def test_a_module_of_the_current_folder(folder: Path) -> None:
    write(folder / "jobs_a.py", HANDLER.format(name="scrape"))
    registry = Registry.load(["jobs_a"])
    assert registry.names == ("scrape",)
    assert registry.loaded_from == ("jobs_a",)
    found = registry.get("scrape")
    assert found is not None
    assert (found.module, found.source) == ("jobs_a", f"{folder}/jobs_a.py:4")


def test_a_file_outside_of_every_package(folder: Path) -> None:
    """Its neighbours import it by its plain name, and it them: no class may exist twice."""
    write(folder / "elsewhere/shapes_b.py", "class Shape: ...\n")
    write(
        folder / "elsewhere/tasks_b.py",
        "from shapes_b import Shape\nimport tasks_b_more\n"
        + HANDLER.replace("from __future__ import annotations\n", "").format(name="one"),
    )
    write(
        folder / "elsewhere/tasks_b_more.py",
        "import tasks_b\n" + HANDLER.replace("from __future__ import annotations\n", "").format(name="two"),
    )
    path = str(folder / "elsewhere/tasks_b.py")
    registry = Registry.load([path, "elsewhere/tasks_b_more.py", path])
    assert registry.names == ("one", "two")
    one = registry.get("one")
    assert one is not None
    assert one.module == "tasks_b"
    assert one.fn is sys.modules["tasks_b"].one


def test_a_file_whose_name_means_something_else(folder: Path) -> None:
    """Its own name then, the same in every process, and the other module is left alone."""
    import json as standard

    path = write(folder / "json.py", HANDLER.format(name="scrape"))
    first = Registry.load([str(path)]).get("scrape")
    second = Registry.load(["json.py"]).get("scrape")
    assert first is not None
    assert second is not None
    assert first.fn is second.fn
    assert first.module.startswith("json_")
    assert sys.modules["json"] is standard

    script = (
        "import sys; from actors import Registry; print(Registry.load([sys.argv[1]]).get('scrape').module)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == first.module


def test_two_files_of_the_same_name(folder: Path) -> None:
    write(folder / "a/jobs_c.py", HANDLER.format(name="one"))
    write(folder / "b/jobs_c.py", HANDLER.format(name="two"))
    assert Registry.load(["a/jobs_c.py", "b/jobs_c.py"]).names == ("one", "two")


def test_a_package_is_walked(folder: Path) -> None:
    write(folder / "pack_d/__init__.py", LIFESPAN.format(name="pool"))
    write(folder / "pack_d/mail.py", HANDLER.format(name="mail"))
    write(folder / "pack_d/deep/__init__.py", "")
    write(folder / "pack_d/deep/web.py", "from ..mail import mail\n" + HANDLER.format(name="web")[34:])
    write(folder / "pack_d/__main__.py", "raise SystemExit('must not run')\n")
    for name in ("pack_d", "./pack_d", str(folder / "pack_d")):
        registry = Registry.load([name])
        assert registry.names == ("mail", "web")
        assert [each.name for each in registry.lifespans] == ["pool"]
    assert Registry.load(["pack_d.deep"]).names == ("web",)
    assert Registry.load(["pack_d/deep/web.py"]).names == ("web",)
    assert Registry.load(["pack_d.mail", "pack_d.deep", "pack_d"]).names == ("mail", "web")


def test_a_folder_that_is_no_package(folder: Path) -> None:
    write(folder / "jobs-e/e_one.py", HANDLER.format(name="one"))
    write(folder / "jobs-e/e_two.py", HANDLER.format(name="two"))
    write(folder / "jobs-e/notes.txt", "")
    assert Registry.load(["jobs-e"]).names == ("one", "two")


def test_what_a_module_only_imports_is_not_its_own(folder: Path) -> None:
    write(folder / "own_f.py", HANDLER.format(name="scrape"))
    write(folder / "user_f.py", "from own_f import scrape\n" + HANDLER.format(name="more")[34:])
    write(folder / "only_f.py", "from own_f import scrape\n")
    assert Registry.load(["user_f"]).names == ("more",)
    assert refused("only_f") == (
        "only_f: defines no handler, actor or lifespan; it imports scrape of own_f: name that module, too"
    )


def test_the_same_name_in_two_modules(folder: Path) -> None:
    write(folder / "g_one.py", HANDLER.format(name="scrape"))
    write(folder / "g_two.py", HANDLER.format(name="scrape"))
    text = refused("g_one", "g_two")
    assert text == f"{folder}/g_two.py:4: handler 'scrape' is already defined at {folder}/g_one.py:4"


def test_modules_that_cannot_be_imported_name_the_line(folder: Path) -> None:
    write(folder / "h_syntax.py", "x = 1\ndef f(:\n")
    write(folder / "h_raises.py", "import json\n\njson.loads('{')\n")
    write(folder / "h_exits.py", "import sys\nsys.exit(3)\n")
    write(folder / "h_lacks.py", "x = 1\nimport not_installed_h\n")
    write(folder / "h_marked.py", HANDLER.format(name="f").replace("@handler", "@handler(timeout_s=-1)"))
    lines = refused(
        "h_syntax", "h_raises.py", "h_exits", "h_lacks", "h_marked", "h_nowhere", "h/nowhere.py", "h/x"
    ).splitlines()
    assert lines[0].startswith(f"{folder}/h_syntax.py:2: cannot import h_syntax: SyntaxError")
    assert lines[1].startswith(f"{folder}/h_raises.py:3: cannot import h_raises.py: JSONDecodeError")
    assert lines[2].startswith(f"{folder}/h_exits.py:2: cannot import h_exits: SystemExit: 3")
    assert lines[3].startswith(f"{folder}/h_lacks.py:2: cannot import h_lacks: ModuleNotFoundError")
    assert lines[4].startswith(f"{folder}/h_marked.py:4: handler f: timeout_s: -1")
    assert lines[5] == f"h_nowhere: no module named 'h_nowhere' (looked in {folder} and what is installed)"
    assert lines[6].startswith("h/nowhere.py: no such file")
    assert lines[7].startswith("h/x: no such file or folder")
    assert len(lines) == 8


def test_a_module_that_failed_is_tried_anew(folder: Path) -> None:
    path = write(folder / "retry_i.py", "raise OSError('not yet')\n")
    assert "OSError: not yet" in refused("retry_i.py")
    write(path, HANDLER.format(name="scrape") + "# longer than before\n")
    assert Registry.load(["retry_i.py"]).names == ("scrape",)


def test_hints(folder: Path) -> None:
    write(folder / "empty_j/__init__.py", "")
    write(folder / "bare_j.py", "x = 1\n")
    (folder / "hollow_j").mkdir()
    assert refused("empty_j") == "empty_j: defines no handler, actor or lifespan"
    assert "no Python file in this folder" in refused("hollow_j")
    assert "defines no handler" in refused("bare_j")


def test_a_package_that_is_hidden_by_another(folder: Path) -> None:
    write(folder / "sub/email/__init__.py", HANDLER.format(name="mail"))
    assert "another module is called 'email'" in refused("sub/email")


def test_a_module_with_actors(folder: Path) -> None:
    path = write(folder / "actors_k.py", ACTOR)
    [found] = Registry.load(["actors_k"])
    assert (found.name, found.actor_type, found.source) == ("account.deposit", "account", f"{path}:6")
    assert sys.modules["actors_k"].Account(balance=3).balance == 3


def test_importing_the_face_imports_no_driver() -> None:
    """A producer pays for nothing but names and types."""
    script = "import json, sys, actors, actors.authoring.registry; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    drivers = {
        "asyncpg",
        "aiohttp",
        "aio_pika",
        "aiormq",
        "prometheus_client",
        "opentelemetry",
        "aiobotocore",
    }
    assert loaded & (drivers | {"uvloop", "click", "rich", "node"}) == set()
    assert "pydantic" in loaded
    adapters = [name for name in json.loads(done.stdout) if name.startswith("runtime.adapters")]
    assert adapters == []
