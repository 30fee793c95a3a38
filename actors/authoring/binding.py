"""Arguments of one handler: from JSON to Python values and back, and their JSON Schema.

Law: there is one way in. Accepting a task, binding it on a node and checking `task(fn, …)` at the call all
read the same JSON with the same validator, so what is accepted binds, and what `task` encodes decodes equal.
Defaults stay the function's own: arguments that are not given are not in the payload. Names that the function
does not have are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NotRequired

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict

from actors.authoring.exact import CONFIG, Converter, Inexact, contains, looks_inexact, looks_nul, model_of
from actors.authoring.limits import PAYLOAD_BYTES_MAX
from actors.authoring.markers import mark_of
from actors.authoring.results import ResultAdapter
from actors.authoring.signature import Argument, Signature, read_signature
from actors.authoring.source import refusal
from runtime.core.canonical import FAULTS_MAX, Fault, check_numbers, find_nul, pointer_to
from runtime.errors import InvalidInput

PAYLOAD: Final = "#/payload"


class Binding:
    """Raises RegistrationError where the signature is nothing that a payload can fill."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.signature: Signature = read_signature(fn)
        self.result: ResultAdapter[Any] = ResultAdapter(self.signature.returns, fn.__name__)
        self._arguments = {argument.name: argument for argument in self.signature.arguments}
        self._models = {a.name: model for a in self.signature.arguments if (model := model_of(a.annotation))}
        self._required = any(argument.required for argument in self.signature.arguments)
        self._name = fn.__name__
        try:
            adapter = TypeAdapter(_typed_dict(self.signature.arguments))
            self._convert = Converter.of(adapter)
            self.schema = _schema(adapter, self.signature.arguments)
            self.result.check()
        except Exception as error:  # pydantic raises several kinds, and annotations are the author's code
            raise refusal(fn, _unusable(error)) from error
        if why := _unfit(adapter.core_schema, self.schema):
            raise refusal(fn, why)

    # -- from JSON ----------------------------------------------------------------------------------

    def bind(self, payload: bytes) -> dict[str, Any]:
        """Python values for `fn(ctx, **values)`. Raises InvalidInput with pointers '#/payload/…'."""
        if payload == b"{}" and not self._required:
            return {}
        try:
            values: dict[str, Any] = self._convert.validator.validate_json(payload)
        except ValidationError as error:
            raise self._invalid(error, payload) from None
        return values

    def accept(self, payload: Mapping[str, Any], *, exact: bool = False) -> tuple[bytes, dict[str, Any]]:
        """A JSON object as the bytes to keep, and the values that `bind` would make of them. `exact`: it is what
        `runtime.core.canonical.read_json` has read, so nothing in it has to be looked for again.

        Raises InvalidInput with pointers '#/payload/…'.
        """
        if not self._required and payload == {}:
            return b"{}", {}
        raw = orjson.dumps(payload) if exact else write_plain(self._name, payload)
        return raw, self.bind(raw)

    # -- to JSON ------------------------------------------------------------------------------------

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a call `fn(ctx, *args, **kwargs)`. Raises InvalidInput naming each wrong
        argument.
        """
        values = self._named(args, kwargs)
        try:
            raw = self._convert.write(values)
        except Inexact as error:
            raise refused(self._name, self._place(values, error)) from error
        if looks_nul(raw) and (faults := find_nul(from_json(raw), PAYLOAD)):
            raise refused(self._name, faults)
        if len(raw) > PAYLOAD_BYTES_MAX:
            raise refused(
                self._name, [(PAYLOAD, f"{len(raw)} bytes as JSON; at most {PAYLOAD_BYTES_MAX} are allowed")]
            )
        self.bind(raw)
        payload: dict[str, Any] = orjson.loads(raw)
        return payload

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, as Python itself would assign them."""
        names = list(self._arguments)
        faults: list[Fault] = []
        if len(args) > len(names):
            faults.append((PAYLOAD, f"{len(args)} arguments by position; {self._name} takes {self._takes()}"))
        values = dict(zip(names, args, strict=False))
        faults += [(pointer_to(PAYLOAD, name), "is given twice") for name in kwargs if name in values]
        values.update(kwargs)
        for name in values:
            if name not in self._arguments:
                faults.append((pointer_to(PAYLOAD, name), self._unknown()))
        for name, argument in self._arguments.items():
            if argument.required and name not in values:
                faults.append((pointer_to(PAYLOAD, name), "is required"))
        for name, model in self._models.items():
            if not isinstance(values.get(name), BaseModel | dict | None):
                faults.append((pointer_to(PAYLOAD, name), f"should be a {model.__qualname__}"))
        if faults:
            raise refused(self._name, faults)
        return values

    def _place(self, values: dict[str, Any], error: Inexact) -> list[Fault]:
        """Faults with the argument's name, also where pydantic does not say which it was."""
        if all(pointer for pointer, _ in error.faults):
            return [(PAYLOAD + pointer, detail) for pointer, detail in error.faults]
        faults: list[Fault] = []
        for name, value in values.items():
            try:
                self._convert.write({name: value})
            except Inexact as alone:
                faults += [
                    (PAYLOAD + (pointer or pointer_to("", name)), detail) for pointer, detail in alone.faults
                ]
        return faults or [(PAYLOAD, detail) for _, detail in error.faults]

    # -- errors -------------------------------------------------------------------------------------

    def _invalid(self, error: ValidationError, payload: bytes) -> InvalidInput:
        count = error.error_count()
        if count > _FAULTS_LISTABLE:  # to list them would block the event loop
            return refused(self._name, [(PAYLOAD, f"{count} values are wrong; too many to list")])
        faults: list[Fault] = []
        details = error.errors(include_url=False, include_context=False)
        if details[0]["type"] == "json_invalid":
            return refused(self._name, [(PAYLOAD, details[0]["msg"])])
        document = from_json(payload)
        for each in details[:FAULTS_MAX]:
            pointer = _pointer(each["loc"], document, missing=each["type"] == "missing")
            faults.append((pointer, self._detail(each["type"], each["msg"], each["input"], len(each["loc"]))))
        return refused(self._name, list(dict.fromkeys(faults)))

    def _detail(self, kind: str, message: str, value: Any, depth: int) -> str:
        if kind == "missing":
            return "is required"
        if kind in _UNKNOWN_KINDS:
            return self._unknown() if depth == 1 else "is not a known field"
        text = message.removeprefix("Input ")
        return f"{text[:1].lower()}{text[1:]}; got {shown(value)}"

    def _unknown(self) -> str:
        return f"is not an argument of {self._name}, which takes {self._takes()}"

    def _takes(self) -> str:
        return ", ".join(self._arguments) or "none"


_FAULTS_LISTABLE: Final = 2_000
_UNKNOWN_KINDS: Final = ("extra_forbidden", "unexpected_keyword_argument")


def binding_of(fn: Callable[..., Any]) -> Binding:
    """The binding of a marked function, made once. Raises RegistrationError."""
    mark = mark_of(fn)
    if mark is None:
        raise refusal(fn, "is not marked with @handler", "function")
    if mark.binding is None:
        mark.binding = Binding(fn)
    return mark.binding


# -- building -------------------------------------------------------------------------------------------


def _typed_dict(arguments: tuple[Argument, ...]) -> Any:
    fields = {a.name: a.annotation if a.required else NotRequired[a.annotation] for a in arguments}
    kind = TypedDict("Arguments", fields)  # type: ignore[misc]  # made from a signature at run time
    kind.__pydantic_config__ = ConfigDict(**CONFIG, extra="forbid")  # type: ignore[attr-defined]  # pydantic reads it
    return kind


def _schema(adapter: TypeAdapter[Any], arguments: tuple[Argument, ...]) -> dict[str, Any]:
    """JSON Schema 2020-12 of the payload; defaults are shown where they have a JSON form."""
    schema = adapter.json_schema()
    schema.pop("title", None)
    for argument in arguments:
        if not argument.required:
            try:
                raw = Converter.of_list(argument.annotation).write([argument.default])
            except Exception:  # noqa: BLE001, S112 - a default that JSON cannot say is only not shown
                continue
            schema["properties"][argument.name]["default"] = orjson.loads(raw)[0]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _unfit(core_schema: Any, schema: Any) -> str | None:
    """Types that pydantic takes but that do not come back as they went."""
    if contains(core_schema, "type", "generator"):
        return (
            "an Iterable or Iterator argument is read only once and checked late; take a list or a Sequence"
        )
    if contains(schema, "writeOnly", True):
        return "a SecretStr or SecretBytes argument is written as asterisks; take str or bytes"
    return None


def _unusable(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    if "typing_extensions.TypedDict" in text:
        return "before Python 3.12, import TypedDict from typing_extensions, not from typing"
    text = text.partition(". Set `arbitrary_types_allowed")[0]  # it would not make it JSON
    return f"its arguments or its result cannot be carried as JSON: {text}"


# -- faults ---------------------------------------------------------------------------------------------


def refused(name: str, faults: list[Fault]) -> InvalidInput:
    """The error of a payload, with pointers '#/payload/…'."""
    listed = tuple(faults[:FAULTS_MAX])
    brief = "; ".join(
        f"{pointer.removeprefix(PAYLOAD).lstrip('/') or 'payload'} {detail}" for pointer, detail in listed[:3]
    )
    return InvalidInput(f"{name}: {brief}", listed)


def write_plain(name: str, payload: Any) -> bytes:
    """A JSON object as the bytes to keep. Raises InvalidInput for what JSON would silently change."""
    if type(payload) is not dict and not isinstance(payload, Mapping):  # the first costs nothing
        raise refused(name, [(PAYLOAD, f"must be an object; got {shown(payload)}")])
    try:
        raw = to_json(payload, inf_nan_mode="constants")
        faults = check_numbers(from_json(raw), PAYLOAD) if looks_inexact(raw) else []
        faults += find_nul(from_json(raw), PAYLOAD) if looks_nul(raw) else []
    except Exception as error:  # noqa: BLE001 - whatever is wrong, it is the payload
        faults = find_nul(dict(payload), PAYLOAD) or [(PAYLOAD, f"has no JSON form: {error}")]
        raw = b""
    if faults:
        raise refused(name, faults)
    return raw


def _pointer(loc: tuple[int | str, ...], document: Any, *, missing: bool) -> str:
    """pydantic's place in the payload; its own words in it (branches of unions, validators) are left out."""
    pointer = PAYLOAD
    for index, part in enumerate(loc):
        if _has(document, part):
            document = document[part]
        elif not (missing and index == len(loc) - 1):
            continue
        pointer = pointer_to(pointer, part)
    return pointer


def _has(document: Any, part: int | str) -> bool:
    if isinstance(document, dict):
        return part in document
    return isinstance(document, list) and isinstance(part, int) and part < len(document)


def shown(value: object) -> str:
    """As JSON would show it, short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return json.dumps(value[:60], ensure_ascii=False) + ("…" if len(value) > 60 else "")
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return repr(value)[:60]
