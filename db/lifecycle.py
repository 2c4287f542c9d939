"""The life of a checkout session: pure rules, no I/O.

                 renew, recover, create
        (start) ------------------------> ACTIVE
                                          |  |  |
                complete (in time)        |  |  |  invalidate: a newer session took its place
              +---------------------------+  |  +-----------------------+
              v                              | expire: expires_at passed |
          COMPLETED <--- complete -------- EXPIRED                       |
           (final)  <--- complete ------------------------------- INVALIDATED <--+

The two lower edges into COMPLETED are for completions that were *accepted* before `expires_at` and executed later:
money was taken, so the worker's delay must not cost the shopper the order.

A **line** is what grows from one create by renewing and recovering. It has no forks, so `line_position` counts its
members; at most one of them is completed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID


class Status(StrEnum):
    """What a session's row says. See `effective_status` for what counts."""

    ACTIVE = "active"
    COMPLETED = "completed"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"


class Event(StrEnum):
    """What can happen to a session."""

    COMPLETE = "complete"
    EXPIRE = "expire"
    INVALIDATE = "invalidate"


TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = {
    (Status.ACTIVE, Event.COMPLETE): Status.COMPLETED,
    (Status.ACTIVE, Event.EXPIRE): Status.EXPIRED,
    (Status.ACTIVE, Event.INVALIDATE): Status.INVALIDATED,
    (Status.EXPIRED, Event.COMPLETE): Status.COMPLETED,
    (Status.INVALIDATED, Event.COMPLETE): Status.COMPLETED,
}


class Origin(StrEnum):
    """How a session came to be."""

    CREATED = "created"
    RENEWED = "renewed"
    RECOVERED = "recovered"


class Kind(StrEnum):
    """What a shopper can ask for."""

    CREATE = "create"
    RENEW = "renew"
    RECOVER = "recover"
    COMPLETE = "complete"


class TaskState(StrEnum):
    """Celery's words for what became of a request."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


class Refusal(StrEnum):
    """Why an accepted request was refused. The API turns each into a problem with a status and sentences."""

    ALREADY_COMPLETED = "already_completed"
    PAYMENT_REFERENCE_USED = "payment_reference_used"
    SESSION_EXPIRED = "session_expired"
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_UNRECOVERABLE = "session_unrecoverable"
    DATA_TOO_LARGE = "data_too_large"
    GAVE_UP = "gave_up"


class Next(StrEnum):
    """What the frontend does next."""

    CONTINUE = "continue"
    RECOVER = "recover"
    RESTART = "restart"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Limits:
    """The two lengths of a session's life, counted from its creation."""

    ttl: timedelta
    retention: timedelta


@dataclass(frozen=True, slots=True)
class Session:
    """One member of a line, as its row says."""

    id: UUID
    user_id: str
    status: Status
    package: str
    step: str | None
    data: Mapping[str, Any]
    origin: Origin
    line_id: UUID
    line_position: int
    line_began_at: datetime
    previous_session_id: UUID | None
    created_at: datetime
    expires_at: datetime
    completed_at: datetime | None = None
    payment_reference: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One accepted request. `session_id` is the session to be (create) or the one addressed (the others)."""

    id: UUID
    seq: int
    kind: Kind
    user_id: str
    session_id: UUID
    accepted_at: datetime
    package: str | None = None
    step: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    payment_reference: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: told once, never changed.

    `session_id` is the session that came of it, or that a refusal speaks of. `addressed_status` is the effective status
    of the session addressed when the task was decided; None if there was none.
    """

    session_id: UUID
    refusal: Refusal | None = None
    reason: str | None = None
    addressed_status: Status | None = None

    @property
    def state(self) -> TaskState:
        """SUCCESS, or FAILURE where it was refused."""
        return TaskState.FAILURE if self.refusal else TaskState.SUCCESS


class ImpossibleTransitionError(Exception):
    """A session was told to do what its status does not allow: a fault in the rules, never a shopper's."""


def is_expired(expires_at: datetime, at: datetime) -> bool:
    """The one comparison for "expired": a session lives up to, not including, `expires_at`."""
    return expires_at <= at


def effective_status(status: Status, expires_at: datetime, now: datetime) -> Status:
    """What counts everywhere: an `active` row past `expires_at` is expired, marked or not."""
    return Status.EXPIRED if status is Status.ACTIVE and is_expired(expires_at, now) else status


def next_step(status: Status) -> Next:
    """What a frontend that holds a session of this effective status does next."""
    match status:
        case Status.ACTIVE:
            return Next.CONTINUE
        case Status.COMPLETED:
            return Next.DONE
        case Status.EXPIRED | Status.INVALIDATED:
            return Next.RECOVER


def transition(status: Status, event: Event) -> Status:
    """The status after `event`.

    Raises:
        ImpossibleTransitionError: the table has no such edge.
    """
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise ImpossibleTransitionError(f"{status} cannot {event}") from None


def made_at(session_id: UUID) -> datetime | None:
    """When a UUIDv7 was made (RFC 9562, 5.7: milliseconds in the first 48 bits); None for an id of another kind."""
    if session_id.version != 7:
        return None
    try:
        return datetime.fromtimestamp((session_id.int >> 80) / 1000, UTC)
    except (OverflowError, ValueError):  # a made-up id may point beyond the year 9999
        return None


DATA_LIMIT: Final = 65_536  # bytes of a session's data, as compact JSON in UTF-8


def fits(data: Mapping[str, Any]) -> bool:
    """Whether a session may hold so much: what grows with each change and renewal must end somewhere."""
    return len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()) <= DATA_LIMIT


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the top-level keys of `new` over it; null removes a key (RFC 7396, top level only)."""
    return {key: value for key, value in {**old, **new}.items() if value is not None}
