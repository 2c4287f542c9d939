"""What becomes of an accepted request: `decide(shopper, task)`, pure, in order of acceptance."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from db.lifecycle import (
    Event,
    Kind,
    Limits,
    Origin,
    Outcome,
    Refusal,
    Session,
    Status,
    Task,
    effective_status,
    fits,
    is_expired,
    made_at,
    merged,
    transition,
)


@dataclass(frozen=True, slots=True)
class Change:
    """An existing row's new status, guarded by the one that it was loaded with."""

    session: Session
    was: Status


class Shopper:
    """One user's sessions in memory, as far as their tasks touch them.

    Args:
        sessions: each session addressed, the newest and the completed member of its line, and the user's active one.
        payments: the payment references asked for that are taken: reference -> id of the session (of any user) that
            holds it. All shoppers of a batch share it, so that one reference cannot complete two sessions of a batch.
    """

    def __init__(
        self,
        user_id: str,
        now: datetime,
        limits: Limits,
        sessions: Iterable[Session] = (),
        payments: dict[str, UUID] | None = None,
    ) -> None:
        self.user_id = user_id
        self.now = now
        self.limits = limits
        self.sessions = {session.id: session for session in sessions}
        self.payments = {} if payments is None else payments
        self._loaded = dict(self.sessions)

    def effective(self, session: Session) -> Status:
        """The session's effective status now."""
        return effective_status(session.status, session.expires_at, self.now)

    def active(self) -> Session | None:
        """The user's one effectively active session."""
        return next((s for s in self.sessions.values() if self.effective(s) is Status.ACTIVE), None)

    def newest(self, line_id: UUID) -> Session:
        """The last member of a line."""
        return max((s for s in self.sessions.values() if s.line_id == line_id), key=lambda s: s.line_position)

    def completion(self, line_id: UUID) -> Session | None:
        """The completed member of a line."""
        line = (s for s in self.sessions.values() if s.line_id == line_id)
        return next((s for s in line if s.status is Status.COMPLETED), None)

    def apply(self, session: Session, event: Event, **values: Any) -> Session:
        """Move a session along an edge of the transition table."""
        moved = replace(session, status=transition(session.status, event), **values)
        self.sessions[moved.id] = moved
        return moved

    def retire(self, session: Session) -> None:
        """End an `active` row: `expired` if its time is over, never `invalidated` then."""
        expired = is_expired(session.expires_at, self.now)
        self.apply(session, Event.EXPIRE if expired else Event.INVALIDATE)

    def touch(self, session: Session) -> None:
        """Mark a session whose time is over."""
        if session.status is Status.ACTIVE and is_expired(session.expires_at, self.now):
            self.apply(session, Event.EXPIRE)

    def begin(self, session: Session) -> Session:
        """Add a new active session; whichever was active before retires."""
        for older in [s for s in self.sessions.values() if s.status is Status.ACTIVE]:
            self.retire(older)
        self.sessions[session.id] = session
        return session

    def changed(self) -> list[Change]:
        """The loaded sessions whose row is to be written."""
        return [Change(self.sessions[s.id], s.status) for s in self._loaded.values() if self.sessions[s.id] is not s]

    def added(self) -> list[Session]:
        """The new sessions, in the order in which they began."""
        return [session for session in self.sessions.values() if session.id not in self._loaded]


def decide(shopper: Shopper, task: Task, new_id: Callable[[], UUID]) -> Outcome:
    """Decide one task on its user's sessions, and change these accordingly.

    Args:
        shopper: the user and their sessions; tasks accepted earlier have been decided on them already.
        task: the accepted request.
        new_id: makes the id of a session that grows out of another.

    Returns:
        The task's one outcome. A refusal is an outcome, not an error.
    """
    addressed = shopper.sessions.get(task.session_id) if task.kind is not Kind.CREATE else None
    status = shopper.effective(addressed) if addressed else None
    match task.kind:
        case Kind.CREATE:
            outcome = Outcome(_first(shopper, task, task.session_id).id)
        case Kind.RENEW:
            outcome = _renew(shopper, task, addressed, new_id)
        case Kind.RECOVER:
            outcome = _recover(shopper, task, addressed, new_id)
        case Kind.COMPLETE:
            outcome = _complete(shopper, task, addressed)
    return replace(outcome, addressed_status=status) if status else outcome


def _first(shopper: Shopper, task: Task, session_id: UUID) -> Session:
    """The first session of a new line."""
    return shopper.begin(
        Session(
            id=session_id,
            user_id=shopper.user_id,
            status=Status.ACTIVE,
            package=task.package or "",
            step=task.step,
            data=merged({}, task.data),
            origin=Origin.CREATED,
            line_id=session_id,
            line_position=0,
            line_began_at=shopper.now,
            previous_session_id=None,
            created_at=shopper.now,
            expires_at=shopper.now + shopper.limits.ttl,
        )
    )


def _grow(shopper: Shopper, newest: Session, task: Task, origin: Origin, session_id: UUID) -> Session:
    """The next session of a line: what the newest held, changed by what the task brings."""
    return shopper.begin(
        replace(
            newest,
            id=session_id,
            status=Status.ACTIVE,
            package=task.package or newest.package,
            data=merged(newest.data, task.data),
            origin=origin,
            line_position=newest.line_position + 1,
            previous_session_id=newest.id,
            created_at=shopper.now,
            expires_at=shopper.now + shopper.limits.ttl,
        )
    )


def _renew(shopper: Shopper, task: Task, addressed: Session | None, new_id: Callable[[], UUID]) -> Outcome:
    if addressed is None:
        return Outcome(_first(shopper, task, new_id()).id)
    if done := shopper.completion(addressed.line_id):
        return Outcome(done.id, Refusal.ALREADY_COMPLETED)
    newest = shopper.newest(addressed.line_id)
    if task.data and not fits(merged(newest.data, task.data)):
        return Outcome(newest.id, Refusal.DATA_TOO_LARGE)
    origin = Origin.RENEWED if shopper.effective(newest) is Status.ACTIVE else Origin.RECOVERED
    return Outcome(_grow(shopper, newest, task, origin, new_id()).id)


def _recover(shopper: Shopper, task: Task, addressed: Session | None, new_id: Callable[[], UUID]) -> Outcome:
    done = shopper.completion(addressed.line_id) if addressed else None
    if done:
        return Outcome(done.id, Refusal.ALREADY_COMPLETED, "the order is complete")
    if addressed:
        shopper.touch(addressed)
    if active := shopper.active():
        return Outcome(active.id, reason="the active session serves")
    if addressed is None:
        made = made_at(task.session_id)
        deleted = made is not None and made <= shopper.now - shopper.limits.retention
        return Outcome(task.session_id, Refusal.SESSION_UNRECOVERABLE, "deleted" if deleted else "unknown")
    newest = shopper.newest(addressed.line_id)
    reason = f"the newest session of its line was {shopper.effective(newest)}"
    return Outcome(_grow(shopper, newest, task, Origin.RECOVERED, new_id()).id, reason=reason)


def _complete(shopper: Shopper, task: Task, addressed: Session | None) -> Outcome:
    if addressed is None:
        return Outcome(task.session_id, Refusal.SESSION_NOT_FOUND)
    reference = task.payment_reference or ""
    if done := shopper.completion(addressed.line_id):
        same = done.payment_reference == reference
        return Outcome(done.id, None if same else Refusal.ALREADY_COMPLETED)
    if reference in shopper.payments:
        return Outcome(addressed.id, Refusal.PAYMENT_REFERENCE_USED)
    if is_expired(addressed.expires_at, task.accepted_at):
        shopper.touch(addressed)
        return Outcome(addressed.id, Refusal.SESSION_EXPIRED)
    shopper.apply(addressed, Event.COMPLETE, completed_at=shopper.now, payment_reference=reference)
    shopper.payments[reference] = addressed.id
    live = shopper.active()
    if live and live.line_id == addressed.line_id:
        shopper.retire(live)
    return Outcome(addressed.id)
