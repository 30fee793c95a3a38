from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from loadtests.journal import Entry, Journal, Reader

ACCEPTED = Entry(
    at_s=1.5, took_s=0.25, node=1, handler="h", keys=["k", "l"], status=202, ids=["x", "y"], new=[True, False]
)
UNANSWERED = Entry(at_s=2.0, took_s=1.0, node=0, handler="h", keys=["m"])


def test_what_is_noted_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Reader(path) as reader:
        assert reader.more() == []  # there is no file yet
        with Journal(path) as journal:
            journal.note(ACCEPTED)
            assert reader.more() == [ACCEPTED]
            journal.note(UNANSWERED)
            journal.note(ACCEPTED)
            assert reader.more() == [UNANSWERED, ACCEPTED]
            assert reader.more() == []


def test_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.note(UNANSWERED)
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    with Reader(path) as reader:
        assert reader.more() == []
        with path.open("ab") as file:
            file.write(whole[10:])
        assert reader.more() == [UNANSWERED]


def test_only_200_and_202_are_accepted() -> None:
    assert [
        status for status in (None, 200, 202, 404, 422, 429, 503) if replace(ACCEPTED, status=status).accepted
    ] == [200, 202]
