"""What a handler sees of the tasks that its own waited for.

Law: results come with the task as long as all of them together have at most 1 MiB; what is more, or lies apart from the
record, is read when it is asked for. A result is never None for want of one: without a result, asking raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, overload
from uuid import UUID

from actors.authoring.results import ANY_RESULT, ResultAdapter
from runtime.core.task import ErrorInfo, State
from runtime.core.workflow import ParentView
from runtime.errors import WrongState

T = TypeVar("T")
Reader = Callable[[ParentView], AbstractAsyncContextManager[AsyncIterator[bytes]]]


class Parent:
    """One of them. `name` is that in its workflow, or empty; `state` None means that it is not kept any more."""

    __slots__ = ("_reader", "_view")

    def __init__(self, view: ParentView, reader: Reader | None = None) -> None:
        self._view = view
        self._reader = reader

    @property
    def view(self) -> ParentView:
        return self._view

    @property
    def id(self) -> UUID:
        return self._view.id

    @property
    def name(self) -> str:
        return self._view.name

    @property
    def handler(self) -> str:
        return self._view.handler

    @property
    def state(self) -> State | None:
        return self._view.state

    @property
    def error(self) -> ErrorInfo | None:
        return self._view.error

    @property
    def comes_along(self) -> bool:
        """Whether `result` may be asked; else `load` and `stream` read it."""
        return self._view.result is not None and not self._view.codec.is_apart

    @overload
    def result(self) -> Any: ...
    @overload
    def result(self, kind: type[T]) -> T: ...

    def result(self, kind: Any = Any) -> Any:
        """What it returned, as `kind`. Raises WrongState without a result that came along, InvalidInput where it is no
        `kind`."""
        body = self._view.result
        self._check()
        if body is None or self._view.codec.is_apart:
            raise WrongState(
                f"the result of {self} did not come with the task: all together are more than 1 MiB, or it lies apart; "
                "read it with `await parent.load()` or `parent.stream()` in an async handler",
                str(self.state),
            )
        return _adapter(kind).decode(body, self._view.codec)

    @overload
    async def load(self) -> Any: ...
    @overload
    async def load(self, kind: type[T]) -> T: ...

    async def load(self, kind: Any = Any) -> Any:
        """As `result`, wherever it lies."""
        if self.comes_along:
            return self.result(kind)
        async with self.stream() as pieces:
            body = b"".join([piece async for piece in pieces])
        return _adapter(kind).decode(body, self._view.codec.inner)

    def stream(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """`async with parent.stream() as pieces`: its bytes as they were stored (JSON, or as returned), piece by piece.

        Entering raises Unavailable, and ObjectNotFound where they are gone.
        """
        self._check()
        if self._reader is None:
            raise WrongState(f"the result of {self} can only be read in an async handler", str(self.state))
        return self._reader(self._view)

    def _check(self) -> None:
        if self.state is not State.SUCCEEDED:
            why = f": {self.error.type}: {self.error.message}" if self.error else ""
            state = "not kept any more" if self.state is None else str(self.state)
            raise WrongState(f"{self} has no result, it is {state}{why}", state)

    def __str__(self) -> str:
        return f"parent {self.name} ({self.id})" if self.name else f"parent {self.id}"

    def __repr__(self) -> str:
        return f"<{self} {self.state}>"


class Parents(Sequence[Parent]):
    """In the order of `depends_on`; by place, or by name in the workflow."""

    __slots__ = ("_all", "_by_name")

    def __init__(self, parents: Sequence[Parent] = ()) -> None:
        self._all = tuple(parents)
        self._by_name = {parent.name: parent for parent in self._all if parent.name}

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Parents:
        """For tests: parents of these names that have returned these values."""
        return cls(
            [Parent(_succeeded(nth, name, value)) for nth, (name, value) in enumerate(results.items())]
        )

    @overload
    def results(self) -> list[Any]: ...
    @overload
    def results(self, kind: type[T]) -> list[T]: ...

    def results(self, kind: Any = Any) -> list[Any]:
        """Of all, in order. Raises WrongState for the first that has none that came along, InvalidInput."""
        return [parent.result(kind) for parent in self._all]

    @overload
    def __getitem__(self, which: int | str) -> Parent: ...
    @overload
    def __getitem__(self, which: slice) -> tuple[Parent, ...]: ...

    def __getitem__(self, which: int | str | slice) -> Parent | tuple[Parent, ...]:
        if isinstance(which, str):
            if which not in self._by_name:
                known = ", ".join(self._by_name) or "none has a name"
                raise KeyError(f"no parent is named {which!r}; there are: {known}")
            return self._by_name[which]
        return self._all[which]

    def __iter__(self) -> Iterator[Parent]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


NO_PARENTS = Parents()


def _adapter(kind: Any) -> ResultAdapter[Any]:
    return ANY_RESULT if kind is Any else ResultAdapter(kind)


def _succeeded(nth: int, name: str, value: Any) -> ParentView:
    body, codec = ANY_RESULT.encode(value)
    return ParentView(UUID(int=nth), name, "test", State.SUCCEEDED, body, len(body), codec)
