"""How much this node may start now.

Taken = reserved for a task that is being accepted, or claimed and not ended. Each kind of body has its own limit
and a small buffer of claimed work beside it, worth `_BUFFER_S` at the present rate: quick tasks keep their workers
busy while the next claim is under way, and long ones are never held back from other nodes. A call of a batch handler
takes one place however many tasks it has; while they gather, each takes its share (`share`, of PLACE).

A band has a backlog while rows of it may wait that are due: then nothing of it is born running, or it would
overtake them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from actors.authoring.registry import PLACE, HandlerDef, Kind
from actors.executor.door import Door
from runtime.core.limits import Limit
from runtime.core.task import NOT_PAUSED

_BUFFER_S: Final = 0.05
_BUFFER_MAX: Final = 500
_BIRTHS: Final = 4  # buffers that may be born: what is being committed is reserved too
_RATE_KEPT: Final = 0.9  # per measurement: a commit that takes long is no sign of long bodies


class Capacity:
    def __init__(self, limits: Mapping[Kind, int]) -> None:
        self._limits = dict(limits)
        self._taken = dict.fromkeys(limits, 0)  # parts of places
        self._tasks = 0
        self.gathering = 0  # of those tasks, how many wait for others of their batch
        self._buffer = dict.fromkeys(limits, 0)
        self._per_s = dict.fromkeys(limits, 0.0)  # places that were freed while there was work
        self._ended = dict.fromkeys(limits, 0)  # parts of places
        self._measured_at_s = 0.0
        self._backlog: dict[int, int] = {}  # band -> how often rows were put there
        self._backlog_kinds: dict[int, Kind] = {}  # of those bands
        self._behind_since_s: dict[Kind, float] = {}  # kinds with a backlog
        self._closed: set[str] = set()
        self.paused = NOT_PAUSED  # replaced, never changed
        self.weights: Mapping[
            str, int
        ] = {}  # of tenants that have another than the usual; replaced, never changed
        self.limits: Mapping[str, Limit] = {}  # of handlers that have any; replaced, never changed
        self.limited_at_s: float | None = None  # when time lets something limited begin, as far as is known
        self._births_held: set[Kind] = set()  # until something limited had its turn
        self.door = Door(self)

    def reset(self) -> None:
        """Nothing is taken (a new executor has nothing in hand, and isolates nobody)."""
        self._taken = dict.fromkeys(self._limits, 0)
        self._tasks = self.gathering = 0
        self.open("isolation")

    # -- room ---------------------------------------------------------------------------------------

    @property
    def taken(self) -> int:
        """How many tasks."""
        return self._tasks

    def taken_of(self, kind: Kind) -> int:
        """How many places. One that is only begun counts as free, or the last would never be filled."""
        return self._taken[kind] // PLACE

    def room(self, kind: Kind) -> int:
        """How many more bodies of this kind may be claimed now."""
        if self._closed:
            return 0
        return max(0, self._limits[kind] + self._buffer[kind] - self.taken_of(kind))

    def room_for_births(self, kind: Kind) -> int:
        """How many more may be reserved; more than may be claimed, unless something waits to be claimed."""
        return 0 if self._closed else max(0, self._size_for_births(kind) - self.taken_of(kind))

    def _size_for_births(self, kind: Kind) -> int:
        buffers = 1 if kind in self._behind_since_s else _BIRTHS
        return self._limits[kind] + self._buffer[kind] * buffers

    def room_for_limited(self, kind: Kind) -> int:
        """Half of it: other work asks at the same time. Where there is none, the next that comes is kept free."""
        room = self.room(kind)
        if room:
            self._births_held.discard(kind)
        else:
            self._births_held.add(kind)
        return (room + 1) // 2

    def worth_pulling(self, kind: Kind) -> bool:
        """Whether a claim would bring enough: half a buffer, which is one row where bodies are long.

        Without it the first quick body that ends sends a claim for one row, and the others wait for its answer.
        """
        if self._closed:
            return False
        buffer = self._buffer[kind]  # this runs once per task: no calls
        return self._limits[kind] + buffer - self._taken[kind] // PLACE >= (buffer // 2 or 1)

    def fits(self, kind: Kind, count: int, beside: int) -> bool:
        """Whether so many can be born running now, beside others; of more than there is ever room for, a good part."""
        if kind in self._behind_since_s or kind in self._births_held:
            return False
        if self._closed:
            return False
        size = self._size_for_births(kind)
        return size - self._taken[kind] // PLACE - beside >= (count if count <= size else (size + 1) // 2)

    def room_within(self, kind: Kind, count: int, within_s: float) -> bool:
        """Whether there will be room for so many soon, by the rate of late and the age of the backlog."""
        behind_s = self._measured_at_s - self._behind_since_s.get(kind, self._measured_at_s)
        if self._closed or behind_s > within_s:
            return False
        return count - self.room_for_births(kind) <= self._per_s[kind] * within_s

    def take(self, kind: Kind, count: int = 1, share: int = PLACE) -> None:
        self._taken[kind] += count * share
        self._tasks += count

    def give_back(self, kind: Kind, count: int = 1, share: int = PLACE) -> None:
        """For work that was taken and not run."""
        self._taken[kind] = max(0, self._taken[kind] - count * share)
        self._tasks = max(0, self._tasks - count)
        self.door.let_in(kind)

    def end(self, kind: Kind, share: int = PLACE) -> None:
        """A body ended."""
        self._taken[kind] = max(0, self._taken[kind] - share)  # a reset may lie between
        self._tasks = max(0, self._tasks - 1)
        self._ended[kind] += share
        self.door.let_in(kind)

    def fill(self, kind: Kind, parts: int) -> None:
        """What a call takes of its place beside the shares of its tasks; less than none when it ends."""
        self._taken[kind] = max(0, self._taken[kind] + parts)
        if parts < 0:
            self._ended[kind] -= parts
            self.door.let_in(kind)

    def measure(self, now_s: float) -> None:
        """Set the buffers from what ended since the last call (a few times a second)."""
        elapsed_s = now_s - self._measured_at_s
        if elapsed_s <= 0:
            return
        for kind, ended in self._ended.items():
            per_s = ended / PLACE / elapsed_s
            self._buffer[kind] = min(_BUFFER_MAX, max(int(per_s * _BUFFER_S), self._buffer[kind] // 2))
            if self._taken[kind]:
                self._per_s[kind] = max(per_s, self._per_s[kind] * _RATE_KEPT)
            self._ended[kind] = 0
        self._measured_at_s = now_s

    # -- open and closed ----------------------------------------------------------------------------

    def close(self, why: str) -> None:
        """Nothing more is claimed or born ('drain', 'isolation') until the same reason opens again."""
        self._closed.add(why)

    @property
    def closed(self) -> bool:
        return bool(self._closed)

    def open(self, why: str) -> None:
        self._closed.discard(why)

    # -- backlog and births -------------------------------------------------------------------------

    @property
    def backlog(self) -> Iterable[int]:
        return self._backlog.keys()

    def put_in_backlog(self, band: int, kind: Kind) -> None:
        self._backlog[band] = self._backlog.get(band, 0) + 1
        self._backlog_kinds[band] = kind
        self._behind_since_s.setdefault(kind, self._measured_at_s)

    def backlog_mark(self, band: int) -> int:
        return self._backlog.get(band, 0)

    def clear_backlog(self, band: int, mark: int) -> None:
        """A pull of the band came back short; `mark` is what `backlog_mark` was when it was sent."""
        if self._backlog.get(band) == mark:
            del self._backlog[band]
            kind = self._backlog_kinds.pop(band)
            if kind not in self._backlog_kinds.values():
                del self._behind_since_s[kind]
                self.door.let_in(kind)

    # -- credit -------------------------------------------------------------------------------------

    def credits(self, members: int) -> tuple[int, ...]:
        """How many offers each of so many other members may send from now on, by kind of body.

        None where there is a backlog: offers never overtake what waits already. A window for all is shared out, but
        everybody may send one: at worst a few wait here for a moment.
        """
        if not members or self._closed:
            return ()
        behind = self._behind_since_s
        return tuple(0 if kind in behind else -(-self.room(kind) // members) for kind in self._limits)

    def reserve(self, band: int, handler: HandlerDef) -> bool:
        """Room for one task that starts the moment it is accepted; give it back if it is not.

        Whether its tenant is paused, whoever asks has seen to it.
        """
        if band in self._backlog or handler.name in self.paused.handlers or handler.name in self.limits:
            return False
        kind = handler.kind
        if self._closed or kind in self._births_held:
            return False
        taken = self._taken[kind]
        if taken // PLACE >= self._size_for_births(kind):
            return False
        self._taken[kind] = taken + handler.share
        self._tasks += 1
        return True
