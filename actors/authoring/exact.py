"""JSON that says exactly what the Python value says, or an error that says where it would not.

Law: what JSON would silently change is refused: NaN and infinities (pydantic and orjson write null), integers
outside int64 (readers turn them into floats), NUL and lone surrogates in text. The looks at the bytes are
cheap and may be wrong in one direction only; a hit is looked at exactly.
"""

from __future__ import annotations

import contextlib
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import GenericAlias, UnionType
from typing import Annotated, Any, Final, Union

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import (
    CoreConfig,
    PydanticSerializationError,
    SchemaSerializer,
    SchemaValidator,
    core_schema,
    from_json,
)

from runtime.core.canonical import FAULTS_MAX, Fault, check_numbers, find_nul, pointer_to

# Strict: JSON already tells "2" from 2, so nothing is guessed. Text becomes datetime, UUID, Decimal …
CONFIG: Final = ConfigDict(
    strict=True,
    allow_inf_nan=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",
)
_CORE_CONFIG: Final = CoreConfig(
    strict=True,
    allow_inf_nan=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",
)
_ZEROS: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19  # int64 has 19 digits
_N, _I, _BACKSLASH = b"NI\\"
_REPLACED: Final = "\ufffd".encode()


@dataclass(frozen=True, slots=True)
class Converter:
    """Of one type: `validator` reads JSON, `serializer` writes it."""

    validator: SchemaValidator
    serializer: SchemaSerializer

    @classmethod
    def of(cls, adapter: TypeAdapter[Any]) -> Converter:
        """Built from the adapter's schema with the config on top: below a TypedDict, pydantic's own
        serializer forgets it (bytes | None would be written as UTF-8, Any with NaN as null).
        """
        schema = adapter.core_schema
        return cls(SchemaValidator(schema, _CORE_CONFIG), SchemaSerializer(schema, _CORE_CONFIG))

    @classmethod
    def of_list(cls, annotation: Any) -> Converter:
        """Of `list[annotation]`; single values are read and written as a list of one.

        pydantic takes no config beside a bare dataclass or TypedDict, and bytes in them need it.
        """
        kind: Any = GenericAlias(list, (annotation,))
        return cls.of(TypeAdapter(kind, config=CONFIG))

    def write(self, value: Any) -> bytes:
        """Compact JSON; what is not as annotated is written by what it is. Raises Inexact."""
        try:
            raw = self.serializer.to_json(value, by_alias=True, warnings=False)
        except Exception as error:
            raise Inexact(tuple(self._unwritable(value, error))) from error
        if looks_inexact(raw) and (faults := check_numbers(from_json(raw), "")):
            raise Inexact(tuple(faults))
        if b"null" in raw and (faults := self._hidden(value)):
            raise Inexact(tuple(faults))
        if _REPLACED[0] in raw and _REPLACED in raw and (faults := self._surrogates(value)):
            raise Inexact(tuple(faults))
        return raw

    def _unwritable(self, value: Any, error: Exception) -> Iterable[Fault]:
        if isinstance(error, PydanticSerializationError) and "UnicodeEncodeError" in str(error):
            with contextlib.suppress(Exception):  # two faults at once: the first is enough
                if faults := self._surrogates(value):
                    return faults
        return [("", readable(error))]

    def _hidden(self, value: Any) -> list[Fault]:
        """Floats that were written as null, by a model whose own config says so."""
        return list(islice(_not_finite(self._plain(value), ""), FAULTS_MAX))

    def _surrogates(self, value: Any) -> list[Fault]:
        """In keys, pydantic writes U+FFFD for them."""
        return [fault for fault in find_nul(self._plain(value), "") if "surrogate" in fault[1]]

    def _plain(self, value: Any) -> Any:
        """Python containers and scalars as pydantic would write them, floats and text untouched."""
        return self.serializer.to_python(value, mode="python", by_alias=True, warnings=False)


ANYTHING: Final = Converter(
    SchemaValidator(core_schema.any_schema(), _CORE_CONFIG),
    SchemaSerializer(core_schema.any_schema(), _CORE_CONFIG),
)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model where exactly one is meant, or one or None.

    There pydantic writes any object that has a `__dict__`, without saying so, as those fields that the model has;
    so the caller must look at the value's type.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return model_of(args[0])
    if origin in (Union, UnionType):
        kinds = [kind for kind in args if kind is not type(None)]
        return model_of(kinds[0]) if len(kinds) == 1 else None
    is_model = isinstance(annotation, type) and origin is None and issubclass(annotation, BaseModel)
    return annotation if is_model else None


class Inexact(Exception):
    """`faults` are (pointer below the value, detail)."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(f"{pointer or 'it'}: {detail}" for pointer, detail in faults[:3]))
        self.faults = faults


def looks_inexact(raw: bytes) -> bool:
    """Whether JSON may hold NaN, an infinity, or an integer outside int64. 0.1 to 1 us; 1.5 ms per MiB.

    Single bytes are looked for first, because that is ten times as fast and settles most cases.
    """
    return (
        (_N in raw and b"NaN" in raw)
        or (_I in raw and b"Infinity" in raw)
        or (len(raw) >= len(_LONG_NUMBER) and _LONG_NUMBER in raw.translate(_ZEROS))
    )


def contains(tree: Any, key: str, value: object) -> bool:
    """Whether a mapping anywhere in nested mappings and sequences has this key with this value."""
    if isinstance(tree, dict):
        return tree.get(key) == value or any(contains(item, key, value) for item in tree.values())
    return isinstance(tree, list | tuple) and any(contains(item, key, value) for item in tree)


def looks_nul(raw: bytes) -> bool:
    """Whether JSON may hold a NUL character."""
    return _BACKSLASH in raw and b"\\u0000" in raw


def readable(error: Exception) -> str:
    """One line about why a value cannot be written."""
    text = str(error).removeprefix("Error serializing to JSON: ").strip()
    if "Unable to serialize unknown type" in text:
        return f"a value of type {text.rpartition('<class ')[2].strip(chr(39) + '>')} has no JSON form"
    if "invalid utf-8 sequence" in text:
        return "bytes that are not UTF-8 in a model; set ser_json_bytes and val_json_bytes='base64' in its config"
    if isinstance(error, PydanticSerializationError | ValueError) and "ircular reference" in text:
        return "it contains itself"
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def _not_finite(value: Any, pointer: str) -> Iterator[Fault]:
    for at, item in _members(value, pointer):
        if isinstance(item, float):
            if not math.isfinite(item):
                yield at, "not a finite number (NaN, or beyond ±1.8e308)"
        elif not isinstance(item, str | bytes | int):
            yield from _not_finite(item, at)


def _members(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, float):
        yield pointer, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield pointer_to(pointer, str(key)), item
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield pointer_to(pointer, index), item
