"""Results: from what a handler returned to stored bytes, and back to its type for whoever waits.

Law: bytes stay bytes (octet-stream); all else is JSON by the handler's return annotation. What JSON cannot
say exactly is an error that the author can read, never a silently different value.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final, Generic, Never, NoReturn, TypeVar, cast

from pydantic import BaseModel, ValidationError

from actors.authoring.exact import ANYTHING, Converter, Inexact, model_of
from actors.authoring.exceptions import ResultNotSerializable
from runtime.core.task import Codec
from runtime.errors import InvalidInput

_BYTES: Final = (bytes, bytearray, memoryview)

R_co = TypeVar("R_co", covariant=True)


class ResultAdapter(Generic[R_co]):
    """Of one return annotation; the work to understand it is done on first use."""

    def __init__(self, annotation: Any, handler: str = "") -> None:
        self._annotation = Any if annotation in (Never, NoReturn) else annotation
        self._handler = handler
        self._model = model_of(annotation)

    def encode(self, value: Any) -> tuple[bytes, Codec]:
        """Raises ResultNotSerializable."""
        if value is None:
            return b"null", Codec.JSON
        if isinstance(value, _BYTES):
            return bytes(value), Codec.BYTES
        try:
            stranger = self._model is not None and not isinstance(value, BaseModel)
            return (ANYTHING if stranger else self._converter).write([value])[1:-1], Codec.JSON
        except Inexact as error:
            faults = "; ".join(f"{pointer[2:] or 'it'}: {detail}" for pointer, detail in error.faults[:3])
            kind = type(value).__qualname__
            raise ResultNotSerializable(f"the result ({kind}) cannot be kept as JSON: {faults}") from error

    def decode(self, body: bytes, codec: Codec = Codec.JSON) -> R_co:
        """Raises InvalidInput where the stored result is not of the annotated type."""
        read = self._converter.validator
        try:
            results = (
                read.validate_json(b"[%b]" % body) if codec is Codec.JSON else read.validate_python([body])
            )
        except ValidationError as error:
            raise InvalidInput(f"{self._named()} is not a {self.type_name}: {_brief(error)}") from error
        return cast("R_co", results[0])

    @property
    def type_name(self) -> str:
        kind = self._annotation
        return kind.__qualname__ if isinstance(kind, type) else str(kind).replace("typing.", "")

    def check(self) -> None:
        """Raises pydantic's errors where the annotation is nothing that JSON can carry."""
        _ = self._converter

    @cached_property
    def _converter(self) -> Converter:
        return Converter.of_list(self._annotation)

    def _named(self) -> str:
        return f"the result of {self._handler}" if self._handler else "the result"

    def __repr__(self) -> str:
        return f"ResultAdapter({self.type_name})"


def _brief(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:3]
    return "; ".join(
        f"{'/'.join(str(part) for part in fault['loc'][1:]) or 'it'}: {fault['msg']}" for fault in faults
    )


ANY_RESULT: Final[ResultAdapter[Any]] = ResultAdapter(Any)
