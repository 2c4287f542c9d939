"""What the API reads, by intent: statements made once, each on an index, with the database's clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Interval,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import InstrumentedAttribute, aliased

from db.access import USER_SETTING
from db.lifecycle import Kind, Refusal, Status, TaskState, effective_status, next_step
from db.models import CheckoutSession, MaintenanceRun, SessionTask

Rows = Select[*tuple[Any, ...]]

_LIVE = aliased(CheckoutSession)

# Spelt out: a plan for any parameter cannot use the partial indexes.
_ACTIVE: ColumnElement[str] = literal_column(f"'{Status.ACTIVE}'")
_PENDING: ColumnElement[str] = literal_column(f"'{TaskState.PENDING}'")


def as_reader(statement: "Rows") -> "Rows":
    """The statement for a role that reaches one user's rows: `reader` is that user, until the transaction's end.

    A condition on no table is decided once, before the first row of any is looked at: the plan has it on top as
    `One-Time Filter`. In autocommit the transaction is this one statement.
    """
    said = select(func.set_config(USER_SETTING, bindparam("reader"), true()))
    return statement.where(said.scalar_subquery().is_not(None))


def _is_live(session: type[CheckoutSession]) -> ColumnElement[bool]:
    return and_(session.status == _ACTIVE, session.expires_at > func.now())


def _one_of(column: InstrumentedAttribute[UUID], name: str) -> ColumnElement[bool]:
    """Membership in an array, which one plan serves however long it is."""
    return column == func.any(bindparam(name, type_=ARRAY(PG_UUID(as_uuid=True))))


def _successor() -> ScalarSelect[UUID]:
    """The user's live session: of a line's members only the newest can live, so it is that line's live one, if any."""
    live = select(_LIVE.id).where(_LIVE.user_id == CheckoutSession.user_id, _is_live(_LIVE))
    return live.correlate(CheckoutSession).scalar_subquery()


_VIEW = (
    CheckoutSession.id,
    CheckoutSession.user_id,
    CheckoutSession.status,
    CheckoutSession.package,
    CheckoutSession.step,
    CheckoutSession.data,
    CheckoutSession.origin,
    CheckoutSession.previous_session_id,
    CheckoutSession.payment_reference,
    CheckoutSession.created_at,
    CheckoutSession.updated_at,
    CheckoutSession.expires_at,
    CheckoutSession.completed_at,
    case((_is_live(CheckoutSession), None), else_=_successor()).label("successor_id"),
    func.now().label("now"),
)


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as the API shows it: the row, read with the database's clock."""

    id: UUID
    user_id: str
    status: Status
    package: str
    step: str | None
    data: dict[str, Any]
    origin: str
    previous_session_id: UUID | None
    payment_reference: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    completed_at: datetime | None
    successor_id: UUID | None
    now: datetime

    @property
    def valid(self) -> bool:
        """Whether the shopper can go on with it."""
        return self.status is Status.ACTIVE

    @property
    def seconds_left(self) -> int:
        """Until it expires, rounded up; 0 if it is not active."""
        return -int(-(self.expires_at - self.now).total_seconds() // 1) if self.valid else 0

    def as_json(self) -> dict[str, Any]:
        """The session of the HTTP contract."""
        return {
            "id": self.id,
            "user_id": self.user_id,
            "status": self.status,
            "valid": self.valid,
            "next": next_step(self.status),
            "package": self.package,
            "step": self.step,
            "data": self.data,
            "origin": self.origin,
            "previous_session_id": self.previous_session_id,
            "successor_id": self.successor_id,
            "payment_reference": self.payment_reference,
            "seconds_left": self.seconds_left,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "expires_at": self.expires_at,
            "completed_at": self.completed_at,
        }


def session_view(row: Sequence[Any]) -> SessionView:
    """One row of the statements below, with the effective status in place of the stored one."""
    session_id, user_id, status, *rest = row
    view = SessionView(session_id, user_id, Status(status), *rest)
    effective = effective_status(view.status, view.expires_at, view.now)
    return view if effective is view.status else SessionView(session_id, user_id, effective, *rest)


# One session.
SESSION_BY_ID: Rows = select(*_VIEW).where(CheckoutSession.id == bindparam("session_id"))

# The user's live session.
ACTIVE_SESSION: Rows = select(*_VIEW).where(CheckoutSession.user_id == bindparam("user_id"), _is_live(CheckoutSession))

# One session for a change of step or data: a completion or renewal waits until it is through, or it for them.
LOCKED_SESSION: Rows = SESSION_BY_ID.with_for_update(of=CheckoutSession, key_share=True)


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as the API shows it, with the session that came of it."""

    id: UUID
    kind: Kind
    user_id: str
    state: TaskState
    session_id: UUID
    accepted_at: datetime
    finished_at: datetime | None
    refusal: Refusal | None
    reason: str | None
    result: SessionView | None


# Tasks, each with the session that came of it, read live.
TASKS_BY_ID: Rows = (
    select(
        SessionTask.id,
        SessionTask.kind,
        SessionTask.user_id,
        SessionTask.state,
        func.coalesce(SessionTask.result_session_id, SessionTask.session_id),
        SessionTask.accepted_at,
        SessionTask.finished_at,
        SessionTask.refusal,
        SessionTask.reason,
        *_VIEW,
    )
    .outerjoin(
        CheckoutSession,
        and_(CheckoutSession.id == SessionTask.result_session_id, SessionTask.state == TaskState.SUCCESS),
    )
    .where(_one_of(SessionTask.id, "task_ids"))
)

# Which of these are not pending any more.
FINISHED_AMONG: Rows = select(SessionTask.id).where(
    _one_of(SessionTask.id, "task_ids"), SessionTask.state != TaskState.PENDING
)


def task_view(row: Sequence[Any]) -> TaskView:
    """One row of `TASKS_BY_ID`."""
    task_id, kind, user_id, state, session_id, accepted_at, finished_at, refusal, reason, *session = row
    return TaskView(
        id=task_id,
        kind=Kind(kind),
        user_id=user_id,
        state=TaskState(state),
        session_id=session_id,
        accepted_at=accepted_at,
        finished_at=finished_at,
        refusal=Refusal(refusal) if refusal else None,
        reason=reason,
        result=session_view(tuple(session)) if session[0] else None,
    )


# Who executed a task: for operators, so apart from what each shopper's poll reads.
EXECUTION: Rows = select(SessionTask.worker, SessionTask.celery_task_id).where(SessionTask.id == bindparam("task_id"))

# The pending create that will make this session.
MAKER: Rows = (
    select(SessionTask.id, SessionTask.user_id)
    .where(
        SessionTask.session_id == bindparam("session_id"),
        SessionTask.kind == Kind.CREATE,
        SessionTask.state.is_not_distinct_from(TaskState.PENDING),  # by the session's id, not by all that is pending
    )
    .limit(1)
)

# The members of a session's line, newest first.
NEWEST_OF_LINE: Rows = (
    select(*_VIEW)
    .where(
        CheckoutSession.line_id == select(_LIVE.line_id).where(_LIVE.id == bindparam("session_id")).scalar_subquery()
    )
    .order_by(CheckoutSession.line_position.desc())
    .limit(bindparam("limit"))
)

# The runs of one cleanup that was asked for over HTTP.
CLEANUP_RUNS: Rows = select(
    MaintenanceRun.task,
    MaintenanceRun.requested_at,
    MaintenanceRun.finished_at,
    MaintenanceRun.rows,
    MaintenanceRun.error,
).where(MaintenanceRun.cleanup_id == bindparam("cleanup_id"))

# Whether the schema is there.
READINESS: Rows = select(func.to_regclass(SessionTask.__tablename__).label("schema"))

# A task that is pending for longer than `age`, however often its doorbell was rung again meanwhile.
PENDING_FOR_LONG: Rows = (
    select(SessionTask.id)
    .where(SessionTask.finished_at.is_(None), SessionTask.accepted_at < func.now() - bindparam("age", type_=Interval))
    .order_by(SessionTask.due_at)  # in their index
    .limit(1)
)

# Seconds that the session which expired first, of those not marked, is overdue; none if nothing is.
OLDEST_OVERDUE: Rows = (
    select(func.extract("epoch", func.now() - CheckoutSession.expires_at))
    .where(CheckoutSession.status == _ACTIVE, CheckoutSession.expires_at <= func.now())
    .order_by(CheckoutSession.expires_at)
    .limit(1)
)

# How many tasks are pending, counted up to `limit`, in the order of the index that they stand in.
PENDING_UP_TO: Rows = select(func.count()).select_from(
    select(SessionTask.seq)
    .where(SessionTask.state == _PENDING)
    .order_by(SessionTask.user_id, SessionTask.seq)
    .limit(bindparam("limit"))
    .subquery()
)
