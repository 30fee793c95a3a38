"""What `noria dev` shows: a curl line that the handler would accept, whatever its arguments are."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from click import unstyle
from pydantic import BaseModel, TypeAdapter

from node.dev.importing import Found
from node.dev.screen import curl, ended, example, opening


class Colour(Enum):
    RED = "red"


@dataclass
class Box:
    width: int
    label: str = "none"


class Tree(BaseModel):
    name: str
    left: Tree | None = None
    boxes: list[Box]


@pytest.mark.parametrize(
    "kind",
    [
        str,
        int,
        float,
        bool,
        list[int],
        dict[str, int],
        Box,
        Tree,
        Colour,
        datetime,
        date,
        UUID,
        Literal["a", "b"],
    ],
    ids=str,
)
def test_an_example_is_accepted_by_what_the_schema_was_made_of(kind: Any) -> None:
    adapter = TypeAdapter(kind)
    adapter.validate_python(example(adapter.json_schema()), strict=False)


def test_optional_arguments_are_left_out_and_unions_take_their_first() -> None:
    schema = {
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "string"},
            "c": {"anyOf": [{"type": "boolean"}, {}]},
        },
        "required": ["a", "c"],
    }
    assert example(schema) == {"a": 1, "c": True}


def test_a_schema_that_contains_itself_ends() -> None:
    schema = {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}},
    }
    assert "a" in example(schema)


def test_the_curl_line_survives_a_shell() -> None:
    found = Found(
        "say", "a.py:1", {"properties": {"it's": {"const": 'a "quoted" $HOME'}}, "required": ["it's"]}
    )
    words = shlex.split(curl("http://127.0.0.1:8080", found))
    assert words[2] == "http://127.0.0.1:8080/v1/tasks?wait=30"
    assert json.loads(words[-1]) == {"handler": "say", "payload": {"it's": 'a "quoted" $HOME'}}


def test_many_handlers_do_not_scroll_the_url_away() -> None:
    page = opening(
        {"here": "http://h:1"}, [Found(f"h{n}", f"a.py:{n}", {}) for n in range(50)], watching=True
    )
    assert "50 handlers" in page
    assert "and 30 more" in page
    assert len(page.splitlines()) < 40
    assert "noria dev FILE.py" in opening({"here": "http://h:1"}, [], watching=True)


def test_ends_are_told_in_words() -> None:
    assert ended(7) == "exited with code 7"
    assert ended(-9) == "was ended by SIGKILL"
    assert ended(-200) == "was ended by signal 200"


def test_names_stand_beside_the_urls_of_several_nodes_only() -> None:
    assert "here" not in opening({"here": "http://h:1"}, [], watching=True)
    page = unstyle(opening({"a-1": "http://h:1", "a-2": "http://h:2"}, [], watching=True)).splitlines()
    assert page[1:3] == ["  http://h:1  a-1", "  http://h:2  a-2"]
