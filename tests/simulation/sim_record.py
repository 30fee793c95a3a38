"""The one record of a world, as a service, and what must hold after each of its commits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runtime.adapters.memory import MemoryStore
from runtime.core.task import Finish, Settlement, Status, Verdict
from tests.simulation.sim_history import History

if TYPE_CHECKING:
    from runtime.adapters.memory.rows import LeaseRow
    from runtime.adapters.memory.tables import Tables
    from tests.simulation.sim_lines import Chaos

_START: Final = datetime(2030, 1, 1, tzinfo=UTC)
_CHANGES: Final = frozenset(
    {
        "accept",
        "claim",
        "pull",
        "pull_limited",
        "settle",
        "expire",
        "cancel",
        "set_state",
        "bury",
        "join",
        "renew",
        "request_drain",
        "pass_on",
        "tidy_dependences",
    }
)
_QUIET: Final = frozenset({"renew", "expire", "pass_on"})  # these are no news


class Record:
    """Implements Service over a MemoryStore. Nothing in it waits, so every call is one commit."""

    changes = _CHANGES

    def __init__(self, history: History, chaos: Chaos) -> None:
        self.store = MemoryStore(self.now)
        self.chaos = chaos
        self.history = history
        self.promises = Promises(self)

    def now(self) -> datetime:
        return _START + timedelta(seconds=self.history.now_s())

    @property
    def tables(self) -> Tables:
        return self.store._tables

    @property
    def leases(self) -> dict[int, LeaseRow]:
        return self.store._leases._rows

    def serve(self, caller: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method not in _CHANGES:
            return done_at_once(getattr(self.store, method)(*args, **kwargs))
        before = self.promises.before(method, args)
        result = done_at_once(getattr(self.store, method)(*args, **kwargs))
        news = list(result.claims) if method == "pull_limited" else result
        if news and method not in _QUIET:
            self.history.note(f"{method} {_brief(news)}", method)
        self.promises.after(caller, method, args, before, result)
        return result


class Promises:
    """Keeps its own account of leases and attempts, and compares. Breaches go to the history."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._fail = record.history.fail
        self.accepted: set[UUID] = set()  # whose caller was told so
        self.granted: dict[int, datetime] = {}  # until when each incarnation may count on its lease
        self.joined: dict[str, int] = {}  # incarnation by process; one whose answer was lost is nobody's
        self.owner: dict[tuple[UUID, int], int] = {}  # who ran which attempt
        self.is_healthy: Callable[[int, float], bool]  # had no fault of its own since then; set by the world
        self.on_claims: Callable[[str, int, Any], None] = lambda via, by, claims: None
        self._attempts: dict[UUID, int] = {}
        self._ended: dict[UUID, tuple[int, Status, bytes | None]] = {}
        self._known = 0
        self._limited_s = float("-inf")  # when the newest limited one began

    # -- commits ------------------------------------------------------------------------------------

    def before(self, method: str, args: tuple[Any, ...]) -> Any:
        if method != "settle":
            return None
        return [self._holder(settlement.id) for settlement in args[0]]

    def after(self, caller: str, method: str, args: tuple[Any, ...], before: Any, result: Any) -> None:
        match method:
            case "join":
                self.joined[caller] = result
                self._renewed(result, args[1])
            case "renew":
                self._renewed(args[0], args[1])
                return
            case "bury":
                self._check_deaths(result)
            case "claim":
                self._check_claims("offer", args[1], result, frozenset(args[0]))
            case "pull":
                self._check_claims("pull", args[1], result, None)
            case "pull_limited":
                self._check_claims("limit", args[2], result.claims, None)
            case "settle":
                self._check_settled(caller, args[0], before, result)
        self._check_touched(method, args, result)

    def _renewed(self, incarnation: int, lease_s: float) -> None:
        self.granted[incarnation] = self._record.now() + timedelta(seconds=lease_s)

    def _check_deaths(self, dead: list[int]) -> None:
        now = self._record.now()
        for incarnation in dead:
            self._record.history.counts["deaths"] += 1
            until, lease = self.granted[incarnation], self._record.leases[incarnation]
            if until > now:
                self._fail(f"incarnation {incarnation} was declared dead, its lease goes on until {until}")
            since_s = self._record.history.now_s() - (now - until).total_seconds() - lease.lease_s
            if self.is_healthy(incarnation, since_s):
                self._fail(f"incarnation {incarnation} was declared dead for a fault that was not its own")

    def _check_claims(
        self, via: str, by: int, claims: list[Any], asked: frozenset[tuple[UUID, int]] | None
    ) -> None:
        lease = self._record.leases[by]
        if claims and (lease.ended or self.granted[by] <= self._record.now()):
            self._fail(f"incarnation {by} is {lease.state} or has no lease, and claims")
        for claim in claims:
            if asked is not None and (claim.id, claim.attempt) not in asked:
                self._fail(f"attempt {claim.attempt} of {claim.id} was claimed without an offer")
            if (claim.id, claim.attempt) in self.owner:
                self._fail(f"attempt {claim.attempt} of {claim.id} was claimed twice")
        self.on_claims(via, by, claims)

    def _check_settled(self, caller: str, settlements: Any, before: Any, verdicts: list[Verdict]) -> None:
        mine = self.joined.get(caller)
        for one, held, verdict in zip(settlements, before, verdicts, strict=True):
            self._record.history.counts[f"settled {verdict.name.lower()}"] += 1
            if not verdict.committed:
                continue
            if held == (one.attempt, one.incarnation):
                if one.incarnation != mine and not self._record.leases[one.incarnation].ended:
                    self._fail(f"incarnation {mine} settles for {one.incarnation}, which is alive")
            elif not self._was_settled(one) or self._holder(one.id) != held:
                self._fail(f"{one} was committed, while {held} ran (attempt, incarnation)")

    def _was_settled(self, one: Settlement) -> bool:
        """A repeat, whose first answer was lost."""
        tables = self._record.tables
        if isinstance(one.move, Finish):
            row: Any = tables.outcomes.get(one.id)
        else:
            row = tables.attempts.get(one.id, {}).get(one.attempt)
        return row is not None and (row.attempt, row.incarnation) == (one.attempt, one.incarnation)

    def _holder(self, task_id: UUID) -> tuple[int, int] | None:
        row = self._record.tables.running.get(task_id)
        return None if row is None else (row.attempt, row.incarnation)

    # -- rows ---------------------------------------------------------------------------------------

    def _check_touched(self, method: str, args: tuple[Any, ...], result: Any) -> None:
        tables = self._record.tables
        count = len(tables.tasks)
        if sum(map(len, (tables.waiting, tables.running, tables.outcomes))) != count or count < self._known:
            self.check_all()
        fresh = list(tables.tasks)[self._known :] if count > self._known else []
        self._known = count
        touched: list[UUID] = [*fresh]
        if method in {"settle", "accept"}:
            each = args[0] if method == "settle" else [task for group in args[0] for task in group]
            touched += [one.id for one in each if one.id in tables.tasks]
        elif method in {"claim", "pull", "pull_limited"}:
            claims = result.claims if method == "pull_limited" else result
            touched += [claim.id for claim in claims]
        elif method in {"expire", "cancel"}:
            touched += result if method == "expire" else [args[0]]
        for task_id in touched:
            self._check_one(task_id)
        if method == "accept":
            self._check_unique()

    def _check_unique(self) -> None:
        """One at a time, where that is the rule."""
        tables = self._record.tables
        open_ids = [row.new.unique.id for row in tables.tasks.values()
                    if row.new.unique is not None and row.new.unique.rule.mode == "existing"
                    and row.new.id not in tables.outcomes]  # fmt: skip
        if len(open_ids) > len(set(open_ids)):
            self._fail(f"{len(open_ids)} tasks that should be one: {open_ids}")

    def check_all(self) -> None:
        """Every task is in one place, and as far as it ever was."""
        tables = self._record.tables
        for task_id in tables.tasks:
            places = [task_id in place for place in (tables.waiting, tables.running, tables.outcomes)]
            if sum(places) != 1:
                self._fail(f"{task_id} is in {sum(places)} places: waiting, running, ended = {places}")
                return
            self._check_one(task_id)
        if lost := sorted(self.accepted - tables.tasks.keys()):
            self._fail(f"accepted and lost: {lost}")

    def _check_one(self, task_id: UUID) -> None:
        tables = self._record.tables
        outcome, running = tables.outcomes.get(task_id), tables.running.get(task_id)
        row: Any = outcome or running or tables.waiting[task_id]
        newest = self._attempts.get(task_id, 0)
        attempt = row.attempt - (task_id in tables.waiting)  # begun so far
        if attempt < newest:
            self._fail(f"attempt of {task_id} went from {newest} to {attempt}")
        self._attempts[task_id] = attempt
        if row.failures > tables.tasks[task_id].new.max_attempts:
            self._fail(f"{task_id} has failed {row.failures} times")
        if running is not None:
            if (task_id, attempt) not in self.owner:
                self._began(running.band)
            owner = self.owner.setdefault((task_id, attempt), running.incarnation)
            if owner != running.incarnation:
                self._fail(f"attempt {attempt} of {task_id} went from incarnation {owner} to {running}")
        ended = self._ended.get(task_id)
        if ended is not None and (
            outcome is None or ended != (outcome.attempt, outcome.status, outcome.result)
        ):
            self._fail(f"{task_id} had ended as {ended}, and is now {row}")
        if outcome is not None:
            self._check_author(task_id, outcome)
            self._ended[task_id] = (outcome.attempt, outcome.status, outcome.result)

    def _began(self, band: int) -> None:
        """However it began: what is limited is never beside another, and not too soon after it."""
        names = self._record.store._names
        if names.band(band).handler != "limited":
            return
        now_s, tables = self._record.history.now_s(), self._record.tables
        at_once = sum(names.band(row.band).handler == "limited" for row in tables.running.values())
        if at_once > 1:
            self._fail(f"{at_once} run at once, of which one may")
        if now_s - self._limited_s < 0.5 - 1e-5:
            self._fail(f"one began {now_s - self._limited_s:g} s after the one before; 2 may in a second")
        self._limited_s = now_s

    def _check_author(self, task_id: UUID, outcome: Any) -> None:
        owner = self.owner.get((task_id, outcome.attempt))
        if outcome.incarnation is not None and outcome.incarnation != owner:
            self._fail(
                f"{task_id} ended in the name of {outcome.incarnation}; attempt {outcome.attempt} was {owner}'s"
            )


def done_at_once(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def _brief(result: Any) -> str:
    return " ".join(_one(each) for each in result) if isinstance(result, list) else _one(result)


def _one(item: Any) -> str:
    match item:
        case list():
            return f"[{_brief(item)}]"
        case UUID():
            return str(item)[-6:]
        case int():
            return getattr(item, "name", str(item))
    task_id, attempt = getattr(item, "id", None), getattr(item, "attempt", None)
    where = "" if task_id is None else f" {str(task_id)[-6:]}"
    which = "" if attempt is None else f"#{attempt}"
    return f"{getattr(item, 'name', type(item).__name__)}{where}{which}"
