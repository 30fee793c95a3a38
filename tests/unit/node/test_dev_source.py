"""Two looks at the files decide whether something has changed; what is written during a check has."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from node.dev.importing import named_files
from node.dev.source import as_of, contents, look, look_around, own_files
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_look_sees_content_and_absence_and_only_a_look_around_sees_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("1")
    files = [str(file), str(tmp_path / "gone.py")]
    first, around = look(files), look_around(files)
    assert list(first) == [str(file)]
    (tmp_path / "b.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert look(files) == first
    assert set(look_around(files)) - set(around) == {str(tmp_path / "b.py")}
    file.write_text("22")
    assert look(files) != first


def test_contents_differ_by_what_is_written_not_by_when(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("1")
    files = [str(file), str(tmp_path / "gone.py")]
    before = contents(files)
    file.write_text("1")
    assert contents(files) == before
    file.write_text("2")
    assert contents(files) != before


def test_what_was_written_since_differs_and_what_comes_from_the_future_does_not(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    for name, at_ns in (
        ("old.py", now_ns - 10**10),
        ("new.py", now_ns - 10**8),
        ("future.py", now_ns + 10**12),
    ):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, ns=(at_ns, at_ns))
    found = look_around([str(tmp_path / "old.py")])
    kept = as_of(found, now_ns - 10**9)
    assert {file.rpartition("/")[2] for file in kept} == {"old.py", "future.py"}


def test_names_of_handlers_lead_to_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "pkg/__init__.py", "pkg/sub/deep.py", "flat/x.py", "flat/below/y.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert list(named_files(["a.py"])) == ["a.py"]
    assert list(named_files(["a"])) == ["a.py"]
    assert set(named_files(["pkg"])) == {"pkg/__init__.py", "pkg/sub/deep.py"}
    assert set(named_files(["pkg.sub.deep"])) == {"pkg/sub/deep.py"}
    assert set(named_files(["flat"])) == {"flat/x.py"}
    assert list(named_files(["missing.py", "missing"])) == []


def test_our_own_files_are_those_of_a_source_tree_and_none_that_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = own_files()
    assert {file.removeprefix(f"{ROOT}/").split("/")[0] for file in files} == {"actors", "node", "runtime"}
    assert f"{ROOT}/node/dev/source.py" in files
    assert any(file.endswith(".sql") for file in files)
    assert not any("__pycache__" in file for file in files)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(ROOT))
    assert own_files() == ()
