"""The OpenAPI 3.1 document, made of the route table and of the types that validate.

Nothing is written by hand here that a route or a type says already. Schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from node.http import schemas
from node.http.auth import Scope
from node.http.problems import CONTENT_TYPE, PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from node.http.route import Answer, Route

_REF: Final = "#/components/schemas/{model}"
_ALWAYS: Final = ("forbidden", "internal")
_FROM_THE_RECORD: Final = "unavailable"  # of every route that asks the record, so of all but public ones
_PARAMETER_SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "id": {"type": "string", "description": "A UUID; anything else is not found."},
    "name": {"type": "string", "description": "Name of a handler."},
    "node": {"type": "string", "description": "Name of a node."},
    "schedule": {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "description": "Letters, digits and . _ - (a letter or digit first).",
    },
    "tenant": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Name of a tenant."},
    "file": {"type": "string", "description": "Name of a file."},
}


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    types = _types(routes)
    refs, definitions = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(model)) for name, model in types.items()], ref_template=_REF
    )
    named = {name: refs[name, "validation"] for name in types}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, named)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Noria",
            "version": version,
            "summary": "A durable, distributed task runtime.",
            "description": "A task answered with 2xx will be done, and has one outcome, whatever dies.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": definitions["$defs"]},
    }


def _types(routes: Iterable[Route]) -> dict[str, Any]:
    found: dict[str, Any] = {_name(schemas.Problem): schemas.Problem}
    for route in routes:
        models = [route.body, *(answer.model for answer in route.answers.values())]
        found |= {_name(model): model for model in models if model is not None}
    return found


def _name(model: Any) -> str:
    return str(getattr(model, "__name__", model))


def _operation(route: Route, named: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "x-scope": route.scope.value,
        "responses": {
            **{str(status): _answer(answer, named) for status, answer in route.answers.items()},
            **_problems(route, named),
        },
    }
    parameters = [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"application/json": {"schema": named[_name(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(route: Route) -> str:
    return route.handle.__name__.strip("_")


def _answer(answer: Answer, named: Mapping[str, Any]) -> dict[str, Any]:
    schema = {} if answer.model is None else named[_name(answer.model)]
    described: dict[str, Any] = {
        "description": answer.what,
        "content": {answer.content_type: {"schema": schema} if schema else {}},
    }
    if answer.headers:
        described["headers"] = {
            name: {"description": what, "schema": {"type": "string"}} for name, what in answer.headers.items()
        }
    return described


def _problems(route: Route, named: Mapping[str, Any]) -> dict[str, Any]:
    slugs = [*route.problems, *_ALWAYS]
    if route.scope is not Scope.PUBLIC:
        slugs += [_FROM_THE_RECORD]
    by_status: dict[int, list[str]] = {}
    for slug in dict.fromkeys(slugs):
        by_status.setdefault(PROBLEMS[slug].status, []).append(slug)
    return {
        str(status): {
            "description": "; ".join(f"{slug}: {PROBLEMS[slug].title}" for slug in grouped),
            "content": {CONTENT_TYPE: {"schema": named[_name(schemas.Problem)]}},
        }
        for status, grouped in sorted(by_status.items())
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETER_SCHEMAS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    parameters = []
    required = route.parameters.schema.get("required", ())
    for name, schema in route.parameters.schema.get("properties", {}).items():
        parameter: dict[str, Any] = {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": schema,
        }
        if name in route.parameters.lists:
            parameter |= {"style": "form", "explode": False}  # a,b; repeating it is understood too
        parameters.append(parameter)
    return parameters


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": what, "schema": {"type": "string"}}
        for name, what in route.headers.items()
    ]
