"""Payloads of handlers that only other nodes have loaded: checked against the JSON Schema that those published.

Law: as strict as `Binding` where a schema can say it, in the same words. What only the author's code can tell (own
validators, the digits of a Decimal) passes here and is found by the node that runs the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.validators import extend
from pydantic import TypeAdapter, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from actors.authoring.binding import PAYLOAD, refused, shown, write_plain
from actors.authoring.exact import CONFIG
from runtime.core.canonical import FAULTS_MAX, Fault, pointer_to

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError as SchemaFault


class PublishedSchema:
    """The arguments of one handler, by the schema that a node published.

    Raises jsonschema.SchemaError where that is no JSON Schema 2020-12. Making one takes some 15 ms.
    """

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        Draft202012Validator.check_schema(schema)
        self._name = name
        self._arguments = tuple(schema.get("properties", {}))
        # The registry is empty, so that a reference to elsewhere is an error and nothing is fetched.
        self._validator = _Strict(schema, registry=Registry(), format_checker=_FORMATS)

    def accept(self, payload: Mapping[str, Any]) -> bytes:
        """A JSON object as the bytes to keep. Raises InvalidInput with pointers '#/payload/…'.

        Takes some 40 us for two arguments, and seconds for a payload as large as is allowed.
        """
        raw = write_plain(self._name, payload)
        try:
            faults = list(dict.fromkeys(islice(self._faults(orjson.loads(raw)), FAULTS_MAX)))
        except RecursionError:
            faults = [(PAYLOAD, f"is nested too deeply to be checked by a node without {self._name}")]
        except Unresolvable as elsewhere:
            faults = [
                (PAYLOAD, f"cannot be checked by a node without {self._name}: {elsewhere} in its schema")
            ]
        if faults:
            raise refused(self._name, faults)
        return raw

    def _faults(self, document: Any) -> Iterator[Fault]:
        for error in self._validator.iter_errors(document):
            for leaf in _leaves(error):
                yield from self._told(leaf)

    def _told(self, error: SchemaFault) -> Iterator[Fault]:
        """One error as places and words."""
        place = PAYLOAD
        for part in error.absolute_path:
            place = pointer_to(place, part)
        instance: Any = error.instance
        match error.validator:
            case "required":
                names: Any = error.validator_value
                yield from (
                    (pointer_to(place, name), "is required") for name in names if name not in instance
                )
            case "additionalProperties" if error.validator_value is False:
                detail = "is not a known field" if error.absolute_path else self._unknown()
                schema: Any = error.schema
                known = schema.get("properties", {})
                yield from ((pointer_to(place, name), detail) for name in instance if name not in known)
            case _:
                yield place, f"{_words(error)}; got {shown(instance)}"

    def _unknown(self) -> str:
        return f"is not an argument of {self._name}, which takes {', '.join(self._arguments) or 'none'}"


# -- as strict as pydantic is where payloads bind ---------------------------------------------------

_Strict: Final = extend(  # type: ignore[no-untyped-call]  # jsonschema does not annotate it
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(  # 1.0 is an integer to the standard
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
_FORMATS: Final = FormatChecker(formats=())
_FORMAT_TYPES: Final[Mapping[str, type]] = {
    "date-time": datetime,
    "date": date,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "base64url": bytes,
}


def _add_format(name: str, kind: type) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind, config=CONFIG)

    @_FORMATS.checks(name, raises=ValidationError)
    def reads(value: object) -> bool:
        if isinstance(value, str):
            adapter.validate_json(orjson.dumps(value))
        return True


for _name, _kind in _FORMAT_TYPES.items():
    _add_format(_name, _kind)


# -- words ------------------------------------------------------------------------------------------


def _leaves(error: SchemaFault) -> Iterator[SchemaFault]:
    """What is wrong in each branch of a choice; that it is not null says nothing where something else may stand."""
    branches = [each for each in error.context or () if each.validator_value != "null"]
    if not branches:
        yield error
    for branch in branches:
        yield from _leaves(branch)


def _words(error: SchemaFault) -> str:
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            return f"should be {' or '.join(_KINDS.get(kind, kind) for kind in kinds)}"
        case "enum":
            return f"should be one of {', '.join(map(shown, limit))}"
        case "const":
            return f"should be {shown(limit)}"
        case "format":
            return f"should be a valid {limit}"
        case str(keyword) if keyword in _LIMITS:
            return f"should {_LIMITS[keyword]} {limit}"
        case "oneOf":
            return "should fit exactly one of several forms"
        case _:
            return f"does not fit the schema ({error.validator}: {shown(limit)})"


_KINDS: Final = {
    "integer": "a valid integer",
    "number": "a valid number",
    "string": "a valid string",
    "boolean": "a valid boolean",
    "array": "a valid array",
    "object": "an object",
}
_LIMITS: Final = {
    "minimum": "be greater than or equal to",
    "maximum": "be less than or equal to",
    "exclusiveMinimum": "be greater than",
    "exclusiveMaximum": "be less than",
    "multipleOf": "be a multiple of",
    "minLength": "have a length of at least",
    "maxLength": "have a length of at most",
    "minItems": "have a length of at least",
    "maxItems": "have a length of at most",
    "minProperties": "have a length of at least",
    "maxProperties": "have a length of at most",
    "pattern": "match the pattern",
}
