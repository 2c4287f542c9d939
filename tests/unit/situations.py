"""All that a request can meet, by name, and what came of it, in words that a table can hold.

"it" is the session addressed. "old > X" is an older member of a line whose newest, "head", is X; "newest of completed"
is the newest of a line of which an older member, "done", was completed late. "+ active" and "+ overdue" are the user's
active row on another line, "other", which is possible only where the line itself has none.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID, uuid4

from uuid_utils.compat import uuid7

from db.decisions import Shopper, decide
from db.lifecycle import Outcome, Session, Status, Task, effective_status
from tests.factories import LIMITS, NOW, make_next, make_session, uuid7_of

OVER = timedelta(hours=25)
_WITH_ROW = ("active", "overdue", "old > active", "old > overdue")
_WITHOUT_ROW = (
    "expired",
    "invalidated",
    "completed",
    "old > expired",
    "old > invalidated",
    "old > completed",
    "completed > invalidated",
    "newest of completed",
    "unknown",
    "deleted",
    "another kind of id",
)
SITUATIONS = (*_WITH_ROW, *(base + other for base in _WITHOUT_ROW for other in ("", " + active", " + overdue")))
UNKNOWN = tuple(name for name in SITUATIONS if name.startswith(("unknown", "deleted", "another kind of id")))


@dataclass(frozen=True)
class Situation:
    """A user's sessions by name, and the id that the request addresses."""

    sessions: dict[str, Session]
    addressed: UUID

    @property
    def it(self) -> Session:
        """The session addressed."""
        return self.sessions["it"]


def situation(name: str) -> Situation:
    """The situation of that name."""
    base, _, other = name.partition(" + ")
    sessions = _line(base)
    if other:
        sessions["other"] = _row(other, package="bronze")
    if "it" in sessions:
        return Situation(sessions, sessions["it"].id)
    made = {"unknown": NOW - LIMITS.retention + timedelta(seconds=1), "deleted": NOW - LIMITS.retention}
    return Situation(sessions, uuid7_of(made[base]) if base in made else uuid4())


def _row(kind: str, **values: object) -> Session:
    match kind:
        case "active":
            return make_session(**values)
        case "overdue":
            return make_session(age=OVER, **values)
        case _:
            return make_session(status=Status(kind), age=OVER, **values)


def _line(base: str) -> dict[str, Session]:
    older, arrow, newer = base.partition(" > ")
    if arrow:
        it = _row("invalidated" if older == "old" else older)
        status, age = ("active", OVER) if newer == "overdue" else (newer, timedelta(hours=1))
        head = make_next(it, Status(status), now=NOW, age=age, package="gold", data={"seats": 3, "colour": "red"})
        return {"it": it, "head": head}
    if base == "newest of completed":
        done = _row("completed")
        return {"done": done, "it": make_next(done, Status.INVALIDATED, now=NOW, age=OVER)}
    return {} if base in UNKNOWN else {"it": _row(base)}


@dataclass(frozen=True)
class Decided:
    """A task that was decided in a situation."""

    met: Situation
    shopper: Shopper
    outcome: Outcome
    new_id: UUID

    @property
    def new(self) -> Session:
        """The one session that began."""
        (session,) = self.shopper.added()
        return session

    def told(self) -> str:
        """`what came of it; what began; which rows changed`; raises if a row changed in any other way."""
        names = {self.met.addressed: "it"} | {s.id: name for name, s in self.met.sessions.items()}
        names[self.new_id] = "new"
        words = [f"{self.outcome.refusal} {names[self.outcome.session_id]}" if self.outcome.refusal else ""]
        words[0] = words[0] or names[self.outcome.session_id]
        if self.outcome.reason:
            words[0] += f" ({self.outcome.reason})"
        for session in self.shopper.added():
            assert session.id == self.new_id
            after = session.previous_session_id
            words.append(f"{session.origin} after {names[after]}" if after else f"{session.origin}")
        changes = {names[change.session.id]: change for change in self.shopper.changed()}
        for name, change in sorted(changes.items()):
            before = self.met.sessions[name]
            assert change.was is before.status
            paid = change.session.completed_at, change.session.payment_reference
            assert change.session == replace(
                before, status=change.session.status, completed_at=paid[0], payment_reference=paid[1]
            )
            assert (change.session.status is Status.COMPLETED) == (paid == (NOW, "pay")) != (paid == (None, None))
            words.append(f"{name} {change.session.status}")
        return "; ".join(words)


def decided(met: Situation, task: Task, payments: dict[str, UUID] | None = None) -> Decided:
    """Decide a task there, and check what the outcome says of the session addressed."""
    shopper = Shopper("ann", NOW, LIMITS, met.sessions.values(), payments)
    new_id = uuid7()
    ids = iter([new_id])
    outcome = decide(shopper, task, lambda: next(ids))
    it = met.sessions.get("it") if task.session_id == met.addressed else None
    assert outcome.addressed_status == (effective_status(it.status, it.expires_at, NOW) if it else None)
    return Decided(met, shopper, outcome, task.session_id if task.kind == "create" else new_id)
